// SlotPool: the free slots, and who waits for some.
//
// Invariants:
//   - a slot is in the free list or in exactly one chain that somebody holds;
//   - who waits holds nothing: all slots of a transaction are taken at once (J6);
//   - first come, first served: take() gives nothing while somebody waits, so a long transaction is not starved by
//     short ones.
// Bound: one waiter per suspended request; each has a deadline, kept by whoever calls expire().
// Thread-safety: any thread. One lock of rank kJournalLists; nothing is resumed under it.
#pragma once

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "util/clock.h"
#include "util/executor.h"
#include "util/mutex.h"

namespace rmemfs {

inline constexpr std::uint32_t kNoSlot = UINT32_MAX;

// Slots linked through the pool's table: taken, held and given back without allocation.
struct SlotChain {
  std::uint32_t first = kNoSlot;
  std::uint32_t last = kNoSlot;
  std::uint32_t count = 0;
};

class SlotPool {
 public:
  enum class Outcome : std::uint8_t { kGranted, kDeadline, kClosed };

  explicit SlotPool(std::uint32_t slot_count);

  // Takes `count` slots into the empty `held`, all or none, without waiting.
  bool take(std::uint32_t count, SlotChain& held);
  // Gives slots back and grants waiters in order.
  void put(const SlotChain& chain);
  // As put() of one slot by its number, unless it is free. What the mutation kRetireBySlot does wrong.
  void put_by_number(std::uint32_t slot);

  std::uint32_t next(std::uint32_t slot) const { return next_[slot]; }  // the holder's: of a slot in its chain
  // Joins `tail` to `chain`; both are held by the caller.
  void join(SlotChain& chain, const SlotChain& tail);
  // Cuts `chain` after its first `count` slots and returns the rest.
  SlotChain cut(SlotChain& chain, std::uint32_t count);

  // co_await: takes `count` slots, waiting for them until `deadline`. `on_wait` is called once, without locks, when the
  // coroutine has really begun to wait. Suspends on the calling thread's executor.
  struct Waiter {
    SlotPool& pool;
    std::uint32_t count;
    TimePoint deadline;
    std::function<void()> on_wait;
    SlotChain held{};
    Outcome outcome = Outcome::kGranted;
    Executor* executor = nullptr;
    std::coroutine_handle<> handle = nullptr;

    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> h);
    Outcome await_resume() const noexcept { return outcome; }
  };

  std::size_t expire(TimePoint now);  // number of waiters that were late
  void close();                       // every waiter, now and later, gets kClosed
  bool anyone_waits() const { return waiting_.load(std::memory_order_relaxed) != 0; }
  std::uint32_t free_count() const { return free_count_.load(std::memory_order_relaxed); }
  std::uint32_t least_free() const { return least_free_.load(std::memory_order_relaxed); }

 private:
  using Resumable = std::vector<Waiter*>;
  bool take_locked(std::uint32_t count, SlotChain& held);
  void grant_locked(Resumable& granted);
  static void resume(const Resumable& waiters);

  mutable Mutex mutex_{LockRank::kJournalLists};
  std::vector<std::uint32_t> next_;  // links of the free list and of chains; a chain's links are its holder's
  // Guarded by mutex_.
  std::uint32_t head_ = kNoSlot;
  std::deque<Waiter*> waiters_;
  bool closed_ = false;
  // Written under mutex_, read by anybody.
  std::atomic<std::uint32_t> free_count_;
  std::atomic<std::uint32_t> least_free_;
  std::atomic<std::size_t> waiting_{0};
};

}  // namespace rmemfs
