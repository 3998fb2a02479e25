#include "journal/group_commit.h"

#include <algorithm>

namespace rmemfs {

bool GroupCommit::Waiter::await_suspend(std::coroutine_handle<> h) {
  executor = &Executor::current();
  handle = h;
  {
    MutexLock lock(group.mutex_);
    if (group.closed_) {
      error = Error(Errc::kCancelled, "journal persist");
      return false;
    }
    group.next_.push_back(this);
  }
  // This object lives on: it is resumed on this very thread, later.
  on_wait();
  return true;
}

void GroupCommit::begin() {
  MutexLock lock(mutex_);
  running_.insert(running_.end(), next_.begin(), next_.end());
  next_.clear();
}

void GroupCommit::finish(const Result<void>& result) {
  Waiters done;
  {
    MutexLock lock(mutex_);
    done.swap(running_);
    if (!result.ok()) {
      for (Waiter* waiter : done) waiter->error = result.error();
    }
  }
  resume(done);
}

std::size_t GroupCommit::expire(TimePoint now) {
  Waiters late;
  {
    MutexLock lock(mutex_);
    for (Waiters* waiters : {&next_, &running_}) {
      const auto keep = std::stable_partition(waiters->begin(), waiters->end(),
                                              [&](const Waiter* waiter) { return waiter->deadline > now; });
      late.insert(late.end(), keep, waiters->end());
      waiters->erase(keep, waiters->end());
    }
    for (Waiter* waiter : late) waiter->error = Error(Errc::kDeadline, "journal persist");
  }
  const std::size_t count = late.size();
  resume(late);
  return count;
}

void GroupCommit::close() {
  Waiters all;
  {
    MutexLock lock(mutex_);
    closed_ = true;
    all = running_;
    all.insert(all.end(), next_.begin(), next_.end());
    running_.clear();
    next_.clear();
    for (Waiter* waiter : all) waiter->error = Error(Errc::kCancelled, "journal persist");
  }
  resume(all);
}

bool GroupCommit::anyone_waits() const {
  MutexLock lock(mutex_);
  return !next_.empty();
}

std::size_t GroupCommit::waiting() const {
  MutexLock lock(mutex_);
  return next_.size() + running_.size();
}

void GroupCommit::resume(const Waiters& waiters) {
  for (Waiter* waiter : waiters) {
    Executor* executor = waiter->executor;
    executor->post(waiter->handle);
  }
}

}  // namespace rmemfs
