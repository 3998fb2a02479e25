#include "util/mutex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "util/check.h"

namespace rmemfs {
namespace {

#if !defined(NDEBUG) || defined(RMEMFS_CHECK_LOCK_ORDER)
// Ranks this thread holds, in the order taken.
struct HeldRanks {
  std::array<LockRank, 16> ranks;
  std::size_t count = 0;
};
thread_local HeldRanks held;

void note_lock(LockRank rank, bool same_rank_ok) {
  CHECK(held.count < held.ranks.size());
  for (std::size_t i = 0; i < held.count; ++i) {
    CHECK(held.ranks[i] < rank || (same_rank_ok && held.ranks[i] == rank));
  }
  held.ranks[held.count++] = rank;
}
void note_lock_any(LockRank rank) {
  CHECK(held.count < held.ranks.size());
  held.ranks[held.count++] = rank;
}
void note_unlock(LockRank rank) {
  for (std::size_t i = held.count; i-- > 0;) {
    if (held.ranks[i] != rank) continue;
    for (std::size_t j = i + 1; j < held.count; ++j) held.ranks[j - 1] = held.ranks[j];
    --held.count;
    return;
  }
  CHECK(false && "unlock of a lock that this thread does not hold");
}
#else
void note_lock(LockRank, bool) {}
void note_lock_any(LockRank) {}
void note_unlock(LockRank) {}
#endif

constexpr int kSpins = 200;

void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected) {
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}
void futex_wake_one(std::atomic<std::uint32_t>& word) {
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

}  // namespace

void Mutex::lock() {
  note_lock(rank_, false);
  lock_slow();
}

void Mutex::lock_same_rank() {
  note_lock(rank_, true);
  lock_slow();
}

bool Mutex::try_lock() {
  std::uint32_t expected = 0;
  if (!state_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) return false;
  note_lock_any(rank_);  // cannot deadlock, so any order is allowed
  return true;
}

void Mutex::lock_slow() {
  std::uint32_t expected = 0;
  if (state_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) return;
  for (int i = 0; i < kSpins; ++i) {
    __builtin_ia32_pause();
    expected = 0;
    if (state_.load(std::memory_order_relaxed) == 0 &&
        state_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) {
      return;
    }
  }
  while (state_.exchange(2, std::memory_order_acquire) != 0) futex_wait(state_, 2);
}

void Mutex::unlock() {
  note_unlock(rank_);
  if (state_.exchange(0, std::memory_order_release) == 2) futex_wake_one(state_);
}

}  // namespace rmemfs
