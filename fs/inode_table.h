// Lookup counts: how many references to each inode the kernel holds (one per answered LOOKUP, MKNOD, LINK, ...).
//
// An inode without a name (nlink 0) lives as long as the kernel knows it: an open file, a current directory or a
// mapping all keep the kernel's inode and with it the lookup count. So no table of open files is needed. Whoever takes
// the last reference of a nameless inode away is told to purge it, exactly once. Invariant: a count is never 0 in the
// table; the orphan mark is set at most while a count is there. Thread-safe. Rank kInodeTable, one shard at a time.
// Size: one entry per inode that the kernel caches; the kernel shrinks that cache under memory pressure.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "util/ids.h"
#include "util/mutex.h"

namespace rmemfs {

class InodeTable {
 public:
  void add(InodeNumber ino, std::uint64_t count = 1);
  // Takes references away. True: it was the last of an inode without a name; the caller purges it.
  [[nodiscard]] bool forget(InodeNumber ino, std::uint64_t count);
  // The inode lost its last name. True: nobody references it; the caller purges it now.
  [[nodiscard]] bool orphaned(InodeNumber ino);
  // The inode has a name again.
  void adopted(InodeNumber ino);
  // Unmounting: every orphan that is still referenced; their entries go.
  std::vector<InodeNumber> take_orphans();

  std::uint64_t references(InodeNumber ino) const;
  std::size_t size() const;

 private:
  static constexpr std::uint64_t kOrphan = std::uint64_t{1} << 63;
  static constexpr std::size_t kShards = 64;
  struct alignas(64) Shard {
    mutable Mutex mutex{LockRank::kInodeTable};
    std::unordered_map<std::uint64_t, std::uint64_t> counts;  // ino -> count, with kOrphan; guarded by mutex
  };
  Shard& shard(InodeNumber ino) { return shards_[ino.value() % kShards]; }
  const Shard& shard(InodeNumber ino) const { return shards_[ino.value() % kShards]; }
  std::array<Shard, kShards> shards_;
};

}  // namespace rmemfs
