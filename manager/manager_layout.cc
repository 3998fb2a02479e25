// Truncate, punch, seek: whatever changes the layout without moving data.
//
// Freeing goes from the end in bounded transactions, each of which lowers the size (truncate) to where it has freed, so
// that a crash in between leaves a file that is whole up to its size and has nothing beyond it.
#include <algorithm>

#include "manager/manager_impl.h"

namespace rmemfs {
namespace {

Result<void> check_range(std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return Error(Errc::kInvalid, "range");
  if (offset > kMaxFileBytes || length > kMaxFileBytes - offset) return Error(Errc::kTooBig, "range");
  return success();
}

}  // namespace

Result<std::size_t> ManagerImpl::count_extents(Inode& inode, std::uint64_t begin, std::uint64_t end) {
  MutexLock lock(inode.mutex);
  ASSIGN_OR_RETURN(const Layout* layout, layout_of(inode));
  return layout_count(*layout, begin, end, extents_per_step_);
}

// Under the inode's mutex, its layout loaded.
std::vector<SpaceRun> ManagerImpl::remove_range(Inode& inode, std::uint64_t begin, std::uint64_t end,
                                                TransactionBuilder& builder) {
  TouchedKeys touched;
  std::vector<SpaceRun> runs;
  for (const Extent& extent : layout_remove(*inode.layout, begin, end, touched)) {
    runs.push_back(run_of(extent));
    const std::uint64_t blocks = extent.length / kBlockBytes;
    inode.attributes.blocks -= std::min(blocks, inode.attributes.blocks);
  }
  inode.charge_layout();
  emit_touched(inode.ino, *inode.layout, touched, builder);
  merge_bitmaps(builder, runs, false);
  return runs;
}

void ManagerImpl::freed(std::span<const SpaceRun> runs, CommitId id) {
  if (runs.empty()) return;
  allocator_->free_after(runs, id);
  // It may have become persistent before the allocator heard of it.
  allocator_->persisted(journal_.persisted_id());
}

Result<Pieces> ManagerImpl::written_parts(Inode& inode,
                                          std::initializer_list<std::pair<std::uint64_t, std::uint64_t>> ranges) {
  Pieces pieces;
  for (const auto& [begin, end] : ranges) {
    if (begin >= end) continue;
    const auto found = map(inode, begin, end - begin);
    if (!found.ok()) return found.error();
    for (const Piece& piece : *found) {
      if (piece.chunk != nullptr) pieces.push_back(piece);
    }
  }
  return pieces;
}

Result<Pieces> ManagerImpl::plan_truncate(Inode& inode, std::uint64_t size) {
  RETURN_IF_ERROR(writable());
  if (size > kMaxFileBytes) return Error(Errc::kTooBig, "truncate");
  const std::uint64_t old = attributes(inode).size;
  return written_parts(inode, {{old, std::min(round_up_block(old), size)}});
}

// True when the size is reached.
Task<Result<bool>> ManagerImpl::truncate_step(InodeRef inode, std::uint64_t size, bool grows,
                                              const AttributeChange& change, std::uint64_t request) {
  // What was reserved beyond the end stays reserved when the file grows.
  const std::uint64_t keep = grows ? UINT64_MAX : round_up_block(size);
  CO_ASSIGN_OR_RETURN(std::size_t extents, count_extents(*inode, keep, UINT64_MAX));
  // An access list follows the permission bits, and keeps its length.
  const std::size_t extended = change.mode ? attributes(*inode).extended_bytes : 0;
  const std::size_t fixed = kInodeBytes + (extended != 0 ? kExtendedKeyBytes + extended : 0);
  if (extended != 0) {
    // set_extended() has seen to it that there is room for one.
    const std::size_t room_left = journal_.max_payload_bytes() - std::min(journal_.max_payload_bytes(), fixed);
    extents = std::min(extents, std::max<std::size_t>(room_left / kExtentStepBytes, 1));
  }
  CO_ASSIGN_OR_RETURN(SlotReservation slots, co_await room(fixed + extents * kExtentStepBytes));
  bool last;
  CommitId id;
  std::vector<SpaceRun> runs;
  {
    MutexLock lock(inode->mutex);
    if (change.mode && inode->attributes.extended_bytes > extended) co_return false;  // it has grown meanwhile
    CO_ASSIGN_OR_RETURN(const Layout* layout, layout_of(*inode));
    const std::uint64_t start = layout_tail(*layout, keep, UINT64_MAX, extents);
    last = start == keep;
    TransactionBuilder builder;
    Attributes changed = inode->attributes;
    changed.size = last ? size : std::min(changed.size, start);
    if (last) {
      const Timestamp now = now_timestamp();
      changed.mtime = now;
      apply_change(changed, change, now);
      if (change.mode && changed.extended_bytes != 0) CO_RETURN_IF_ERROR(change_list_mode(changed, builder));
    }
    runs = remove_range(*inode, start, UINT64_MAX, builder);
    changed.blocks = inode->attributes.blocks;
    inode->attributes = changed;
    put_inode(builder, changed);
    id = commit(std::move(slots), builder, request, {inode.get()});
  }
  freed(runs, id);
  co_return last;
}

Task<Result<Attributes>> ManagerImpl::truncate(InodeRef inode, std::uint64_t size, AttributeChange change,
                                               std::uint64_t request) {
  if (size > kMaxFileBytes) co_return Error(Errc::kTooBig, "truncate");
  CO_RETURN_IF_ERROR(check_change(change));
  const bool grows = size > attributes(*inode).size;
  for (bool done = false; !done;) {
    CO_ASSIGN_OR_RETURN(done, co_await truncate_step(inode, size, grows, change, request));
  }
  CO_RETURN_IF_ERROR(co_await settle(CommitId(inode->last_commit.load())));
  co_return attributes(*inode);
}

Result<Pieces> ManagerImpl::plan_punch(Inode& inode, std::uint64_t offset, std::uint64_t length) {
  RETURN_IF_ERROR(writable());
  RETURN_IF_ERROR(check_range(offset, length));
  const std::uint64_t stop = offset + length;
  const std::uint64_t first = round_up_block(offset);
  const std::uint64_t last = punch_end(stop, attributes(inode).size);
  if (last < first) return written_parts(inode, {{offset, stop}});
  return written_parts(inode, {{offset, std::min(first, stop)}, {last, stop}});
}

// Frees the end of [begin, end) and moves `end` there. True when nothing is left.
Task<Result<bool>> ManagerImpl::punch_step(InodeRef inode, std::uint64_t begin, std::uint64_t& end, SetId set_id,
                                           std::uint64_t request) {
  CO_ASSIGN_OR_RETURN(const std::size_t extents, count_extents(*inode, begin, end));
  CO_ASSIGN_OR_RETURN(SlotReservation slots, co_await room(kInodeBytes + extents * kExtentStepBytes));
  CommitId id;
  std::vector<SpaceRun> runs;
  {
    MutexLock lock(inode->mutex);
    CO_ASSIGN_OR_RETURN(const Layout* layout, layout_of(*inode));
    const std::uint64_t start = layout_tail(*layout, begin, end, extents);
    TransactionBuilder builder;
    runs = remove_range(*inode, start, end, builder);
    end = start;
    inode->attributes.mtime = inode->attributes.ctime = now_timestamp();
    clear_set_id(inode->attributes, set_id);
    put_inode(builder, inode->attributes);
    id = commit(std::move(slots), builder, request, {inode.get()});
  }
  freed(runs, id);
  co_return end == begin;
}

// Makes the end of [begin, end) unwritten and moves `end` there. True when nothing is left.
Task<Result<bool>> ManagerImpl::zero_step(InodeRef inode, std::uint64_t begin, std::uint64_t& end,
                                          std::uint64_t request) {
  CO_ASSIGN_OR_RETURN(const std::size_t extents, count_extents(*inode, begin, end));
  CO_ASSIGN_OR_RETURN(SlotReservation slots, co_await room(kInodeBytes + extents * kExtentStepBytes));
  MutexLock lock(inode->mutex);
  CO_ASSIGN_OR_RETURN(Layout* const layout, layout_of(*inode));
  const std::uint64_t start = layout_tail(*layout, begin, end, extents);
  TouchedKeys touched;
  layout_mark(*layout, start, end, true, touched);
  inode->charge_layout();
  end = start;
  TransactionBuilder builder;
  emit_touched(inode->ino, *layout, touched, builder);
  inode->attributes.mtime = inode->attributes.ctime = now_timestamp();
  put_inode(builder, inode->attributes);
  commit(std::move(slots), builder, request, {inode.get()});
  co_return end == begin;
}

Task<Result<void>> ManagerImpl::punch(InodeRef inode, std::uint64_t offset, std::uint64_t length, SetId set_id,
                                      std::uint64_t request) {
  CO_RETURN_IF_ERROR(check_range(offset, length));
  const std::uint64_t begin = round_up_block(offset);
  std::uint64_t end = std::max(punch_end(offset + length, attributes(*inode).size), begin);
  for (bool done = false; !done;) {
    CO_ASSIGN_OR_RETURN(done, co_await punch_step(inode, begin, end, set_id, request));
  }
  co_return co_await settle(CommitId(inode->last_commit.load()));
}

Result<std::uint64_t> ManagerImpl::seek(Inode& inode, std::uint64_t offset, bool hole) {
  RETURN_IF_ERROR(readable());
  MutexLock lock(inode.mutex);
  const std::uint64_t size = inode.attributes.size;
  if (offset >= size) return Error(Errc::kNoSuchOffset, "seek");
  ASSIGN_OR_RETURN(const Layout* layout, layout_of(inode));
  std::optional<std::uint64_t> found;
  layout_visit(*layout, offset, size, [&](std::uint64_t begin, std::uint64_t, const Extent* extent) {
    const bool is_hole = extent == nullptr || extent->unwritten;
    if (!found && is_hole == hole) found = begin;
  });
  if (found) return *found;
  if (hole) return size;  // the end of a file is a hole
  return Error(Errc::kNoSuchOffset, "seek");
}

}  // namespace rmemfs
