// The data path: byte ranges of a file -> pieces of chunks -> operations on memory nodes -> completions.
//
// Locking of ranges (Inode::range_lock), all rounded to blocks:
//   read                                shared over the range
//   write inside the size               exclusive over the range
//   write that extends, truncate,       exclusive from round_down(min(offset, size)) to the end of every file
//   punch, allocate
// The size is looked at again once the lock is held; if the lock proves too narrow it is taken again, wider.
// Data before metadata: a write is committed after all its operations completed. A write that failed is not committed:
// size, times and extents stay as they were; bytes that were overwritten in place are either the old or the new ones.
//
// Threads: any lane, on its own ConnectionSet. No lock but range locks is held across a suspension.
// A request has one limit, the deadline given at construction counted from its start: waiting for the range, for space
// and for nodes all end by it, but for the moment that an operation which is about to be posted is always granted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "fs/connection_set.h"
#include "fs/dirty_regions.h"
#include "manager/manager.h"
#include "util/range_lock.h"
#include "util/result.h"
#include "util/task.h"

namespace rmemfs {

// For whom something is done: the lane it runs on and the caller of the system call.
struct RequestContext {
  ConnectionSet* connections = nullptr;
  std::uint32_t uid = 0, gid = 0;
  std::uint64_t request = 0;   // FUSE request number; 0: none
  std::int32_t process = 0;    // 0: not known
  bool clears_set_id = false;  // the caller may not keep the set-user-ID bits of what it changes
};

class DataPath {
 public:
  // `lanes` finds another lane's connections by its number, for fsync; they live as long as this object.
  DataPath(Manager& manager, std::uint32_t deadline_ms, std::function<ConnectionSet*(std::uint32_t lane)> lanes)
      : manager_(manager), deadline_ms_(deadline_ms), lanes_(std::move(lanes)) {}

  // Fills `to` from `offset`; returns the bytes before the end of the file. Holes are zeros.
  Task<Result<std::size_t>> read(RequestContext context, InodeRef inode, std::uint64_t offset, std::span<std::byte> to);
  // Writes `from`; returns how much of it is part of the file now, at least one byte of it. It is less than all only
  // when very fragmented space took more than one transaction and not the first of them failed.
  Task<Result<std::size_t>> write(RequestContext context, InodeRef inode, std::uint64_t offset,
                                  std::span<const std::byte> from, SetId set_id);
  Task<Result<Attributes>> truncate(RequestContext context, InodeRef inode, std::uint64_t size, AttributeChange change);
  Task<Result<void>> allocate(RequestContext context, InodeRef inode, std::uint64_t offset, std::uint64_t length,
                              AllocateMode mode);
  Task<Result<void>> punch(RequestContext context, InodeRef inode, std::uint64_t offset, std::uint64_t length,
                           SetId set_id);
  // Data and metadata of the inode survive what the mount promises. What was written and is lost since is an error each
  // time, until it is no part of the file any more: so everybody who has the file open hears of it. What may be lost
  // (kNotKept) is one for DirtyRegions::kToldFor: nobody knows which bytes it is, so nothing says that they are
  // replaced.
  Task<Result<void>> persist(InodeRef inode);

  void forget(InodeNumber ino) { dirty_.forget(ino); }

 private:
  // Of a request that starts now.
  TimePoint limit_from_now() const { return deadline_after_ms(deadline_ms_); }
  // Of an operation that is posted now, for a request with that limit.
  TimePoint deadline(const Chunk& chunk, TimePoint limit) const {
    return manager_.operation_deadline(chunk.node, limit);
  }
  // The lock of whatever changes the size or frees: from `offset` or the end, whichever comes first, to the end of
  // every file. The size is settled when it returns. kDeadline.
  Task<Result<RangeLock::Guard>> lock_tail(InodeRef inode, std::uint64_t offset, TimePoint limit);
  // Writes and commits what one plan covers of `from`, under the range's lock; the number of bytes.
  Task<Result<std::uint64_t>> write_planned(RequestContext context, InodeRef inode, std::uint64_t offset,
                                            std::span<const std::byte> from, SetId set_id, TimePoint limit);
  void add_zeros(OperationBatch& batch, const Pieces& zeros, TimePoint limit);
  // Tells the manager what a failed operation says about the node; returns the error to give the caller.
  Error note_failure(const ConnectionSet& connections, const OperationBatch& batch, const char* where);
  // False: not all could be noted; the caller persists them.
  bool note_written(InodeNumber ino, const ConnectionSet& connections, const OperationBatch& batch);
  // Zeros to `zeros`, which belong to the file already.
  Task<Result<void>> write_zeros(RequestContext context, Pieces zeros, TimePoint limit);
  // What is to be persisted but for regions that are lost and of which the file has nothing any more. kRegionLost.
  Result<DirtyRegions::Entries> dirty_regions(Inode& inode);
  // PERSIST for each region of a completed batch that needs one (D4 in data_path.cc).
  Task<Result<void>> persist_before_naming(RequestContext context, const OperationBatch& written, TimePoint limit);

  Manager& manager_;
  const std::uint32_t deadline_ms_;
  const std::function<ConnectionSet*(std::uint32_t)> lanes_;
  DirtyRegions dirty_;
};

}  // namespace rmemfs
