// RangeLock: byte ranges of one file, shared or exclusive, awaited by coroutines.
//
// Reads hold their range shared, writes hold theirs exclusive, whatever frees space (truncate, punch) holds everything
// to the end of the file exclusive. So a read never sees space that was freed under it, two writes never tear each
// other, and disjoint requests run side by side.
// Invariants: granted ranges do not conflict; a request waits if it conflicts with a granted range or with an EARLIER
// waiting one (first come, first served: no starvation).
// Bound on waiting: each request says until when it waits. A holder finishes by its remote operations' deadline, but
// those who wait behind it would otherwise add theirs one after the other.
#pragma once

#include <coroutine>
#include <cstdint>
#include <list>
#include <utility>
#include <vector>

#include "util/executor.h"
#include "util/mutex.h"

namespace rmemfs {

class RangeLock {
 public:
  enum class Mode : std::uint8_t { kShared, kExclusive };

  // Held range; releases in its destructor (any thread). Movable.
  class Guard;

  // co_await range_lock.lock(begin, end, mode, deadline) -> Guard, which holds nothing when the deadline passed first.
  // `end` is exclusive; UINT64_MAX is the end of every file.
  auto lock(std::uint64_t begin, std::uint64_t end, Mode mode, TimePoint deadline);

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
  bool give_up(Entries::iterator entry);  // false: it is granted already

  // Takes the entry out and lets those go on that waited for it.
  void remove(Entries::iterator entry, std::vector<std::pair<Executor*, std::coroutine_handle<>>>& resume);

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
  explicit operator bool() const { return lock_ != nullptr; }
  void release() {
    if (lock_ != nullptr) std::exchange(lock_, nullptr)->unlock(entry_);
  }

 private:
  RangeLock* lock_ = nullptr;
  Entries::iterator entry_{};
};

struct RangeLock::Awaiter final : Executor::Timer {
  Awaiter(RangeLock& of, std::uint64_t from, std::uint64_t to, Mode how, TimePoint until)
      : lock(of), begin(from), end(to), mode(how), deadline(until) {}
  Awaiter(const Awaiter&) = delete;
  Awaiter& operator=(const Awaiter&) = delete;

  bool await_ready() {
    MutexLock guard(lock.mutex_);
    entry = lock.entries_.insert(lock.entries_.end(), Entry{begin, end, mode, true, nullptr, nullptr});
    return !lock.blocked(entry) || (entry->granted = false);
  }
  bool await_suspend(std::coroutine_handle<> h) {
    executor = &Executor::current();
    {
      MutexLock guard(lock.mutex_);
      if (!lock.blocked(entry)) {  // freed between await_ready and here
        entry->granted = true;
        return false;
      }
      entry->executor = executor;
      entry->handle = h;
    }
    // Granted meanwhile, it is resumed by this thread all the same, and so later.
    handle = h;
    executor->set(*this, deadline);
    return true;
  }
  Guard await_resume() {
    if (executor != nullptr) executor->unset(*this);
    return late ? Guard() : Guard(lock, entry);
  }
  void expired() override {
    if (!lock.give_up(entry)) return;
    late = true;
    executor->post(handle);
  }

  RangeLock& lock;
  const std::uint64_t begin;
  const std::uint64_t end;
  const Mode mode;
  const TimePoint deadline;
  Entries::iterator entry{};
  Executor* executor = nullptr;
  std::coroutine_handle<> handle;
  bool late = false;
};

inline auto RangeLock::lock(std::uint64_t begin, std::uint64_t end, Mode mode, TimePoint deadline) {
  return Awaiter(*this, begin, end, mode, deadline);
}

}  // namespace rmemfs
