// Inode: the manager's in-memory form of one inode. A cache entry, never the only copy of anything committed.
//
// Members stand in three groups. Constant: ino. Own synchronization: range_lock, last_commit. Guarded by mutex: the
// rest. Whoever loads or changes the layout calls charge_layout() before the mutex is released. Holding an InodeRef
// keeps the object (and so its range lock) alive; the cache drops unreferenced ones, least recently used first, when it
// is over its limits. Two inodes are locked lower number first (lock_two).
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

// What one inode adds to the memory its cache accounts for, in units. It is taken back when the object is destroyed and
// not when the cache lets go of it: until then the memory is in use.
class InodeCharge {
 public:
  static constexpr std::uint64_t kUnitBytes = 128;  // an extent in a Layout: its node and the heap's share
  static constexpr std::uint64_t kInodeUnits = 4;   // an inode without extents, its places in the cache included
  using Sum = std::atomic<std::uint64_t>;

  InodeCharge() = default;
  ~InodeCharge() {
    if (sum_) sum_->fetch_sub(units_, std::memory_order_relaxed);
  }
  InodeCharge(const InodeCharge&) = delete;
  InodeCharge& operator=(const InodeCharge&) = delete;

  // Once, before another thread can reach the inode. The sum is shared because an inode may outlive its cache.
  void attach(std::shared_ptr<Sum> sum) {
    sum_ = std::move(sum);
    sum_->fetch_add(units_, std::memory_order_relaxed);
  }
  // Under the inode's mutex.
  std::uint64_t units() const { return units_; }
  void set_extents(std::uint64_t extents) {
    const std::uint64_t units = kInodeUnits + extents;
    if (units == units_) return;
    if (sum_) sum_->fetch_add(units - units_, std::memory_order_relaxed);  // modulo 2^64: may shrink
    units_ = units;
  }

 private:
  std::shared_ptr<Sum> sum_;
  std::uint64_t units_ = kInodeUnits;
};

struct Inode {
  explicit Inode(InodeNumber number) : ino(number) {}

  const InodeNumber ino;

  RangeLock range_lock;                       // data operations against each other and against freeing
  std::atomic<std::uint64_t> last_commit{0};  // id of the last transaction that changed it: fsync persists up to here

  Mutex mutex{LockRank::kInode};
  // Guarded by mutex:
  Attributes attributes;
  bool times_seen = true;        // by somebody, since a write changed them
  bool access_noted = false;     // it waits for its access time to be written (manager_access.cc)
  bool access_newer = false;     // and that time is not in its record yet
  InodeCharge charge;            // before the layout: taken back when that is freed
  std::optional<Layout> layout;  // loaded when first needed

  void charge_layout() { charge.set_extents(layout ? layout->size() : 0); }
};

using InodeRef = std::shared_ptr<Inode>;

}  // namespace rmemfs
