#include "journal/slot_pool.h"

#include <algorithm>

#include "journal/mutation.h"
#include "util/check.h"

namespace rmemfs {

SlotPool::SlotPool(std::uint32_t slot_count)
    : next_(slot_count), head_(0), free_count_(slot_count), least_free_(slot_count) {
  for (std::uint32_t slot = 0; slot < slot_count; ++slot) next_[slot] = slot + 1;
  next_[slot_count - 1] = kNoSlot;
}

bool SlotPool::take_locked(std::uint32_t count, SlotChain& held) {
  const std::uint32_t free = free_count_.load(std::memory_order_relaxed);
  std::uint32_t wanted = count;
  if constexpr (mutated(Mutation::kHoldAndWait)) {
    wanted = std::min(free, count - held.count);
    if (wanted == 0) return held.count == count;
  } else {
    if (free < count) return false;
  }
  SlotChain taken{head_, head_, wanted};
  for (std::uint32_t i = 1; i < wanted; ++i) taken.last = next_[taken.last];
  head_ = next_[taken.last];
  const std::uint32_t left = free - wanted;
  free_count_.store(left, std::memory_order_relaxed);
  if (left < least_free_.load(std::memory_order_relaxed)) least_free_.store(left, std::memory_order_relaxed);
  join(held, taken);
  return held.count == count;
}

bool SlotPool::take(std::uint32_t count, SlotChain& held) {
  MutexLock lock(mutex_);
  if (closed_ || !waiters_.empty()) return false;
  return take_locked(count, held);
}

void SlotPool::put(const SlotChain& chain) {
  if (chain.count == 0) return;
  Resumable granted;
  {
    MutexLock lock(mutex_);
    next_[chain.last] = head_;
    head_ = chain.first;
    free_count_.store(free_count_.load(std::memory_order_relaxed) + chain.count, std::memory_order_relaxed);
    if (!waiters_.empty()) grant_locked(granted);
  }
  resume(granted);
}

void SlotPool::put_by_number(std::uint32_t slot) {
  {
    MutexLock lock(mutex_);
    for (std::uint32_t free = head_; free != kNoSlot; free = next_[free]) {
      if (free == slot) return;
    }
  }
  put({slot, slot, 1});
}

void SlotPool::join(SlotChain& chain, const SlotChain& tail) {
  if (tail.count == 0) return;
  if (chain.count == 0) {
    chain = tail;
    return;
  }
  next_[chain.last] = tail.first;
  chain.last = tail.last;
  chain.count += tail.count;
}

SlotChain SlotPool::cut(SlotChain& chain, std::uint32_t count) {
  CHECK(count >= 1 && count <= chain.count);
  if (count == chain.count) return {};
  std::uint32_t last = chain.first;
  for (std::uint32_t i = 1; i < count; ++i) last = next_[last];
  const SlotChain rest{next_[last], chain.last, chain.count - count};
  chain.last = last;
  chain.count = count;
  return rest;
}

void SlotPool::grant_locked(Resumable& granted) {
  while (!waiters_.empty() && take_locked(waiters_.front()->count, waiters_.front()->held)) {
    granted.push_back(waiters_.front());
    waiters_.pop_front();
  }
  waiting_.store(waiters_.size(), std::memory_order_relaxed);
}

void SlotPool::resume(const Resumable& waiters) {
  // After post() the waiter may be gone: its coroutine runs on its own thread.
  for (Waiter* waiter : waiters) {
    Executor* executor = waiter->executor;
    executor->post(waiter->handle);
  }
}

bool SlotPool::Waiter::await_suspend(std::coroutine_handle<> h) {
  executor = &Executor::current();
  handle = h;
  {
    MutexLock lock(pool.mutex_);
    if (pool.closed_) {
      outcome = Outcome::kClosed;
      return false;
    }
    if (pool.waiters_.empty() && pool.take_locked(count, held)) return false;
    pool.waiters_.push_back(this);
    pool.waiting_.store(pool.waiters_.size(), std::memory_order_relaxed);
  }
  // This object lives on: it is resumed on this very thread, later.
  on_wait();
  return true;
}

std::size_t SlotPool::expire(TimePoint now) {
  Resumable late, granted;
  {
    MutexLock lock(mutex_);
    const auto keep = std::stable_partition(waiters_.begin(), waiters_.end(),
                                            [&](const Waiter* waiter) { return waiter->deadline > now; });
    late.assign(keep, waiters_.end());
    waiters_.erase(keep, waiters_.end());
    for (Waiter* waiter : late) waiter->outcome = Outcome::kDeadline;
    grant_locked(granted);  // who waited behind a long one may fit now
  }
  const std::size_t count = late.size();
  resume(late);
  resume(granted);
  return count;
}

void SlotPool::close() {
  Resumable all;
  {
    MutexLock lock(mutex_);
    closed_ = true;
    all.assign(waiters_.begin(), waiters_.end());
    waiters_.clear();
    waiting_.store(0, std::memory_order_relaxed);
    for (Waiter* waiter : all) waiter->outcome = Outcome::kClosed;
  }
  resume(all);
}

}  // namespace rmemfs
