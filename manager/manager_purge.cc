// Orphans: inodes without a name. Their space is freed from the end in bounded transactions; the orphan record stays
// until the last one, which forgets the inode. A crash in between leaves a shorter orphan, and the next mount goes on.
#include <sys/stat.h>

#include <algorithm>

#include "manager/manager_impl.h"
#include "util/log.h"

namespace rmemfs {
namespace {
constexpr std::size_t kOrphansPerRound = 1024;
}

// True when the inode is gone.
Task<Result<bool>> ManagerImpl::purge_step(InodeRef inode) {
  CO_ASSIGN_OR_RETURN(const std::size_t extents, count_extents(*inode, 0, UINT64_MAX));
  CO_ASSIGN_OR_RETURN(SlotReservation slots,
                      co_await room(kInodeBytes + 4 * kOrphanBytes + kCounterBytes + extents * kExtentStepBytes));
  bool last;
  CommitId id;
  std::vector<SpaceRun> runs;
  {
    MutexLock lock(inode->mutex);
    Attributes& a = inode->attributes;
    if (a.mode == 0) co_return true;  // purged already
    if (a.nlink != 0) co_return Error(Errc::kInvalid, "purge");
    CO_ASSIGN_OR_RETURN(const Layout* layout, layout_of(*inode));
    const std::uint64_t start = layout_tail(*layout, 0, UINT64_MAX, extents);
    last = start == 0;
    TransactionBuilder builder;
    runs = remove_range(*inode, start, UINT64_MAX, builder);
    if (last) {
      builder.erase(inode_key(inode->ino));
      builder.erase(orphan_key(inode->ino));
      if (a.extended_bytes != 0) builder.erase(extended_key(inode->ino));
      if (S_ISLNK(a.mode)) builder.erase(symlink_key(inode->ino));
      builder.merge(singleton_key("inodes"), encode_number(~std::uint64_t{0}));  // one less
      a.mode = 0;
    } else {
      a.size = std::min(a.size, start);
      put_inode(builder, a);
    }
    id = commit(std::move(slots), builder, 0, {inode.get()});
  }
  freed(runs, id);
  if (last) {
    --inodes_;
    cache_.erase(inode->ino);
    MutexLock lock(orphan_mutex_);
    live_orphans_.erase(inode->ino.value());
    temporary_.erase(inode->ino.value());
  }
  co_return last;
}

Task<Result<void>> ManagerImpl::purge(InodeNumber ino) {
  auto found = get(ino);
  if (!found.ok()) {
    if (found.error().code == Errc::kNotFound) co_return success();
    co_return std::move(found).error();
  }
  const InodeRef inode = std::move(*found);
  const auto guard = co_await inode->range_lock.lock(0, UINT64_MAX, RangeLock::Mode::kExclusive, kNoDeadline);
  for (bool done = false; !done;) {
    CO_ASSIGN_OR_RETURN(done, co_await purge_step(inode));
  }
  co_return co_await settle(CommitId(inode->last_commit.load()));
}

Task<Result<void>> ManagerImpl::purge_orphans() {
  std::string from = "O";
  std::size_t purged = 0;
  for (;;) {
    std::vector<InodeNumber> round;
    bool end = true;
    {
      const auto records = metastore_.iterate("O");
      for (records->seek(from); records->valid(); records->next()) {
        if (round.size() == kOrphansPerRound) {
          end = false;
          break;
        }
        CO_ASSIGN_OR_RETURN(const InodeNumber ino, decode_inode_key(records->key()));
        from = std::string(records->key()) + '\0';
        MutexLock lock(orphan_mutex_);
        if (!live_orphans_.contains(ino.value())) round.push_back(ino);
      }
      CO_RETURN_IF_ERROR(records->status());
    }
    for (const InodeNumber ino : round) {
      co_await Yield{};  // the lane serves requests in between
      CO_RETURN_IF_ERROR(co_await purge(ino));
      ++purged;
    }
    if (end) break;
  }
  if (purged != 0) log::info("{} files that were unlinked before the last crash are purged", purged);
  co_return success();
}

}  // namespace rmemfs
