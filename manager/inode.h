// Inode: the manager's in-memory form of one inode. A cache entry, never the only copy of anything committed.
//
// Members stand in three groups. Constant: ino. Own synchronization: range_lock, last_commit. Guarded by mutex: the
// rest. Holding an InodeRef keeps the object (and so its range lock) alive; the cache drops unreferenced ones, least
// recently used first, when it is over its limit. Two inodes are locked lower number first (lock_two).
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>

#include "manager/meta_format.h"
#include "util/mutex.h"
#include "util/range_lock.h"

namespace rmemfs {

using Layout = std::map<std::uint64_t, Extent>;  // by file_offset; extents do not overlap

struct Inode {
  explicit Inode(InodeNumber number) : ino(number) {}

  const InodeNumber ino;

  RangeLock range_lock;                         // data operations against each other and against freeing
  std::atomic<std::uint64_t> last_commit{0};    // id of the last transaction that changed it: fsync persists up to here
  std::atomic<std::uint64_t> touched_nodes{0};  // data path: bit (node id mod 64) of nodes written since the last fsync

  Mutex mutex{LockRank::kInode};
  // Guarded by mutex:
  Attributes attributes;
  std::optional<Layout> layout;  // loaded when first needed
};

using InodeRef = std::shared_ptr<Inode>;

}  // namespace rmemfs
