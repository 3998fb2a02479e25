// Mutex: a lock with a rank. It spins for a moment before it sleeps, because waking a thread on another core costs tens
// of microseconds and no critical section here is longer than a few.
//
// Lock order: a thread takes locks only in growing rank; two locks of one rank only with lock_pair's order (Inode:
// lower inode number first, stated with `same_rank_ok`). Debug and sanitizer builds check it at each lock and stop the
// program. No Mutex is held across co_await, a FUSE reply or a callback into another room.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace rmemfs {

// Taken from top to bottom. ARCHITECTURE.md says what each protects.
enum class LockRank : std::uint8_t {
  kLaneTable,      // fs: set of lanes
  kRename,         // manager: directory moves (loop check)
  kInodeTable,     // fs: lookup counts; manager: inode cache shards
  kInode,          // manager: one inode's attributes and layout
  kChunkMap,       // manager: chunk table
  kAllocator,      // manager: free space
  kJournalCommit,  // journal: order of commit ids
  kJournalLists,   // journal: free, in-flight, ready lists
  kOverlay,        // manager: committed, unapplied modifications
  kNodeSet,        // manager: node states
  kTransport,      // transport: tables shared by connections
  kRangeLock,      // util: one inode's byte ranges
  kWaitList,       // util: suspended coroutines
  kExecutor,       // util: run queues
  kLeaf,           // statistics and other locks that take no other
};

class Mutex {
 public:
  explicit Mutex(LockRank rank) : rank_(rank) {}
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock();
  bool try_lock();
  void unlock();
  // As lock(), for a second lock of the same rank, whose order the caller guarantees.
  void lock_same_rank();

 private:
  void lock_slow();
  const LockRank rank_;
  std::atomic<std::uint32_t> state_{0};  // 0 free, 1 held, 2 held and somebody sleeps
};

using MutexLock = std::unique_lock<Mutex>;

}  // namespace rmemfs
