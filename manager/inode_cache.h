// Inodes in memory: sharded, least recently used first out, limited in number and in memory. An inode somebody holds is
// never dropped, so there is at most one Inode object per number at any time.
//
// Memory is counted in units of 128 bytes: an inode is 4, each extent of its loaded layout 1. The budget is 4 units per
// entry of the limit, so that 4 * inodes + extents <= 4 * limit and everything together takes about limit * 512 bytes.
// Layouts grow while their inodes are held; trim() drops others for them. Invariants:
//   I1  The sum is what all living inodes of this cache are charged, dropped ones that somebody still holds included.
//   I2  After trim(), when no other is under way, the sum is within the budget or no unheld inode was found that could
//       be dropped. A layout is loaded whole: one inode in use may be larger than the budget, and stays as long as it
//       is in use.
//   I3  Inodes are destroyed after the shard's lock is released: a large layout takes long to free.
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
  // Drops inodes until the memory is within the budget; one load when it is. Without an inode's mutex held: whoever
  // changed a layout calls it after releasing that.
  void trim() {
    if (units_->load(std::memory_order_relaxed) > budget_units_) drop_excess();
  }
  std::size_t size() const;
  std::uint64_t budget_units() const { return budget_units_; }

 private:
  static constexpr std::size_t kShards = 64;
  using Recent = std::list<InodeRef>;  // most recently used first
  struct Shard {
    mutable Mutex mutex{LockRank::kInodeTable};
    // Guarded by mutex:
    Recent recent;
    std::unordered_map<std::uint64_t, Recent::iterator> by_number;
    std::uint64_t drops = 0;  // a load that raced with a drop may be old, and is repeated
  };
  Shard& shard(InodeNumber ino) { return shards_[ino.value() % kShards]; }
  Result<InodeRef> find_or_load(InodeNumber ino, const std::function<CommitId()>& known_commit);
  // Under the shard's lock; what is dropped goes to `dropped`.
  void add(Shard& shard, const InodeRef& inode, Recent& dropped);
  bool drop_one(Shard& shard, Recent& dropped);
  void drop_excess();

  const std::size_t limit_per_shard_;
  const std::uint64_t budget_units_;
  const std::shared_ptr<InodeCharge::Sum> units_ = std::make_shared<InodeCharge::Sum>(0);
  std::atomic<bool> trimming_{false};  // one thread trims: two would drop twice the excess
  std::size_t hand_ = 0;               // of the trimming thread: the shard to drop from next
  const Load load_;
  std::array<Shard, kShards> shards_;
};

}  // namespace rmemfs
