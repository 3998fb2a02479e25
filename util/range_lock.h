// RangeLock: byte ranges of one file, shared or exclusive, awaited by coroutines.
//
// Reads hold their range shared, writes hold theirs exclusive, whatever frees space (truncate, punch) holds everything
// to the end of the file exclusive. So a read never sees space that was freed under it, two writes never tear each
// other, and disjoint requests run side by side.
// Invariants: granted ranges do not conflict; a request waits if it conflicts with a granted range or with an EARLIER
// waiting one (first come, first served: no starvation).
// Bound on waiting: a holder always finishes by its remote operations' deadline.
#pragma once

#include <coroutine>
#include <cstdint>
#include <list>

#include "util/executor.h"
#include "util/mutex.h"

namespace rmemfs {

class RangeLock {
 public:
  enum class Mode : std::uint8_t { kShared, kExclusive };

  // Held range; releases in its destructor (any thread). Movable.
  class Guard;

  // co_await range_lock.lock(begin, end, mode) -> Guard. `end` is exclusive; UINT64_MAX is the end of every file.
  auto lock(std::uint64_t begin, std::uint64_t end, Mode mode);

  bool idle() const;

 private:
  struct Entry {
    std::uint64_t begin;
    std::uint64_t end;
    Mode mode;
    bool granted;
    Executor* executor;
    std::coroutine_handle<> handle;
  };
  using Entries = std::list<Entry>;
  struct Awaiter;

  static bool conflict(const Entry& a, const Entry& b) {
    return a.begin < b.end && b.begin < a.end && (a.mode == Mode::kExclusive || b.mode == Mode::kExclusive);
  }
  bool blocked(Entries::iterator entry);  // conflicts with anything before it in the list
  void unlock(Entries::iterator entry);

  mutable Mutex mutex_{LockRank::kRangeLock};
  Entries entries_;  // granted and waiting, in order of arrival; guarded by mutex_
};

class RangeLock::Guard {
 public:
  Guard() = default;
  Guard(RangeLock& lock, Entries::iterator entry) : lock_(&lock), entry_(entry) {}
  Guard(Guard&& other) noexcept : lock_(std::exchange(other.lock_, nullptr)), entry_(other.entry_) {}
  Guard& operator=(Guard&& other) noexcept {
    release();
    lock_ = std::exchange(other.lock_, nullptr);
    entry_ = other.entry_;
    return *this;
  }
  ~Guard() { release(); }
  void release() {
    if (lock_ != nullptr) std::exchange(lock_, nullptr)->unlock(entry_);
  }

 private:
  RangeLock* lock_ = nullptr;
  Entries::iterator entry_{};
};

struct RangeLock::Awaiter {
  RangeLock& lock;
  std::uint64_t begin;
  std::uint64_t end;
  Mode mode;
  Entries::iterator entry{};

  bool await_ready() {
    MutexLock guard(lock.mutex_);
    entry = lock.entries_.insert(lock.entries_.end(), Entry{begin, end, mode, true, nullptr, nullptr});
    return !lock.blocked(entry) || (entry->granted = false);
  }
  bool await_suspend(std::coroutine_handle<> h) {
    Executor& executor = Executor::current();
    MutexLock guard(lock.mutex_);
    if (!lock.blocked(entry)) {  // freed between await_ready and here
      entry->granted = true;
      return false;
    }
    entry->executor = &executor;
    entry->handle = h;
    return true;
  }
  Guard await_resume() { return Guard(lock, entry); }
};

inline auto RangeLock::lock(std::uint64_t begin, std::uint64_t end, Mode mode) {
  return Awaiter{*this, begin, end, mode};
}

}  // namespace rmemfs
