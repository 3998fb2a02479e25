// GroupCommit: who waits for a sync of the journal's file.
//
// A sync makes persistent what was committed before it began. So a waiter joins the NEXT sync: begin() takes everyone
// who waits, finish() tells all of them the one result. Whoever comes in between waits for the sync after. Bound: one
// waiter per suspended request; each has a deadline, kept by whoever calls expire(). Thread-safety: any thread; begin()
// and finish() alternate on one thread. Lock of rank kJournalLists; nothing is resumed under it.
#pragma once

#include <coroutine>
#include <functional>
#include <optional>
#include <vector>

#include "util/clock.h"
#include "util/executor.h"
#include "util/mutex.h"
#include "util/result.h"

namespace rmemfs {

class GroupCommit {
 public:
  // co_await: the result of a sync that begins after this. `on_wait` is called once the coroutine waits.
  struct Waiter {
    GroupCommit& group;
    TimePoint deadline;
    std::function<void()> on_wait;
    std::optional<Error> error{};
    Executor* executor = nullptr;
    std::coroutine_handle<> handle = nullptr;

    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> h);
    Result<void> await_resume() const { return error ? Result<void>(*error) : success(); }
  };

  void begin();
  void finish(const Result<void>& result);
  std::size_t expire(TimePoint now);  // kDeadline to late waiters; their number
  void close();                       // kCancelled to every waiter, now and later
  bool anyone_waits() const;          // for the next sync
  std::size_t waiting() const;        // for the next sync or the running one

 private:
  using Waiters = std::vector<Waiter*>;
  static void resume(const Waiters& waiters);

  mutable Mutex mutex_{LockRank::kJournalLists};
  Waiters next_;     // guarded by mutex_
  Waiters running_;  // guarded by mutex_
  bool closed_ = false;
};

}  // namespace rmemfs
