// Inodes in memory: sharded, least recently used first out, limited in number. An inode somebody holds is never
// dropped, so there is at most one Inode object per number at any time.
//
// Thread-safe. Rank kInodeTable. load() is called without a lock and may read the local disk.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <list>
#include <unordered_map>

#include "manager/inode.h"
#include "util/mutex.h"
#include "util/result.h"

namespace rmemfs {

class InodeCache {
 public:
  using Load = std::function<Result<Attributes>(InodeNumber)>;

  InodeCache(std::size_t limit, Load load);

  // The cached inode, or one made of what load() says. `known_commit` gives a fresh one's last_commit: whatever changed
  // it before it was dropped is not above.
  Result<InodeRef> get(InodeNumber ino, const std::function<CommitId()>& known_commit);
  // An inode whose number nobody knows yet.
  void insert(const InodeRef& inode);
  void erase(InodeNumber ino);
  std::size_t size() const;

 private:
  static constexpr std::size_t kShards = 64;
  using Recent = std::list<InodeRef>;  // most recently used first
  struct Shard {
    mutable Mutex mutex{LockRank::kInodeTable};
    // Guarded by mutex:
    Recent recent;
    std::unordered_map<std::uint64_t, Recent::iterator> by_number;
    std::uint64_t drops = 0;  // a load that raced with a drop may be old, and is repeated
    bool dropped_touched =
        false;  // an inode with unpersisted node writes was dropped: which ones is not known any more
  };
  Shard& shard(InodeNumber ino) { return shards_[ino.value() % kShards]; }
  void add(Shard& shard, const InodeRef& inode);
  void shrink(Shard& shard);

  const std::size_t limit_per_shard_;
  const Load load_;
  std::array<Shard, kShards> shards_;
};

}  // namespace rmemfs
