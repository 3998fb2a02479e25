#include "util/executor.h"

#include <algorithm>

namespace rmemfs {
namespace {
thread_local Executor* current_executor = nullptr;

constexpr std::chrono::milliseconds kGrace{1000};
}  // namespace

Executor& Executor::current() {
  CHECK(current_executor != nullptr);
  return *current_executor;
}

Executor* Executor::set_current(Executor* executor) { return std::exchange(current_executor, executor); }

void Executor::set(Timer& timer, TimePoint at) {
  CHECK(!timer.set_);
  if (at == kNoDeadline) return;
  if (timers_.empty()) timers_watch_.begin(MonoClock::now());
  timer.place_ = timers_.emplace(at, &timer);
  timer.set_ = true;
}

void Executor::unset(Timer& timer) {
  if (!timer.set_) return;
  timers_.erase(timer.place_);
  timer.set_ = false;
}

void Executor::run_timers(TimePoint now) {
  if (timers_watch_.frozen(now) != Duration::zero()) timers_held_ = now + kGrace;
  if (now < timers_held_) return;
  while (!timers_.empty() && timers_.begin()->first <= now) {
    Timer& timer = *timers_.begin()->second;
    unset(timer);
    timer.expired();
  }
}

LoopExecutor::LoopExecutor() : previous_(set_current(this)) {}
LoopExecutor::~LoopExecutor() { set_current(previous_); }

void LoopExecutor::post(std::coroutine_handle<> handle) {
  // Notified under the lock: the thread that waits may destroy this executor as soon as it sees the queue.
  std::lock_guard lock(mutex_);
  queue_.push_back(handle);
  wakeup_.notify_one();
}

void LoopExecutor::run_until(const bool& done) {
  while (!done) {
    std::coroutine_handle<> next;
    {
      std::unique_lock lock(mutex_);
      if (queue_.empty() && !on_idle) {
        if (has_timers())
          wakeup_.wait_for(lock, kTimerTick, [&] { return !queue_.empty(); });
        else
          wakeup_.wait(lock, [&] { return !queue_.empty(); });
      }
      if (!queue_.empty()) {
        next = queue_.front();
        queue_.pop_front();
      }
    }
    if (next)
      next.resume();
    else if (on_idle)
      on_idle();
    if (has_timers()) run_timers(MonoClock::now());
  }
}

bool WaitList::Waiter::await_suspend(std::coroutine_handle<> h) {
  executor = &Executor::current();
  handle = h;
  MutexLock lock(list.mutex_);
  if (ready && ready()) return false;
  list.waiters_.push_back(this);
  return true;
}

std::size_t WaitList::wake(std::size_t count) {
  std::size_t woken = 0;
  while (woken < count) {
    Executor* executor;
    std::coroutine_handle<> handle;
    {
      MutexLock lock(mutex_);
      if (waiters_.empty()) break;
      Waiter* waiter = waiters_.front();
      waiters_.pop_front();
      executor = waiter->executor;
      handle = waiter->handle;
    }
    executor->post(handle);
    ++woken;
  }
  return woken;
}

std::size_t WaitList::expire(TimePoint now) {
  std::vector<Waiter*> late;
  {
    MutexLock lock(mutex_);
    auto keep =
        std::stable_partition(waiters_.begin(), waiters_.end(), [&](const Waiter* w) { return w->deadline > now; });
    late.assign(keep, waiters_.end());
    waiters_.erase(keep, waiters_.end());
  }
  for (Waiter* waiter : late) {
    waiter->woken = false;
    waiter->executor->post(waiter->handle);
  }
  return late.size();
}

std::size_t WaitList::size() const {
  MutexLock lock(const_cast<Mutex&>(mutex_));
  return waiters_.size();
}

BlockingPool::BlockingPool(std::size_t threads) {
  for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

BlockingPool::~BlockingPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wakeup_.notify_all();
}

void BlockingPool::submit(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
  }
  wakeup_.notify_one();
}

void BlockingPool::work() {
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock lock(mutex_);
      wakeup_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    job();
  }
}

}  // namespace rmemfs
