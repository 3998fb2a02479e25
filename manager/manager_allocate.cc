// fallocate(2): space without data. The holes of the range get unwritten extents, which read as zeros.
#include <algorithm>

#include "manager/manager_impl.h"

namespace rmemfs {
namespace {
constexpr std::uint64_t kStepBytes = 256u << 20;  // of the range, per round of reservations
}

// Whole extents in bounded transactions; what fails to be committed is given back.
Task<Result<void>> ManagerImpl::insert_unwritten(InodeRef inode, std::span<const Extent> extents,
                                                 std::uint64_t request) {
  while (!extents.empty()) {
    const auto step = extents.first(std::min(extents.size(), extents_per_step_));
    auto slots = co_await room(kInodeBytes + step.size() * kExtentStepBytes);
    std::vector<SpaceRun> runs;
    if (!slots.ok()) {
      for (const Extent& extent : extents) runs.push_back(run_of(extent));
      allocator_->release(runs);
      co_return std::move(slots).error();
    }
    MutexLock lock(inode->mutex);  // the layout is loaded: fill_holes() has looked at it, and holds the inode
    TransactionBuilder builder;
    TouchedKeys touched;
    for (const Extent& extent : step) {
      layout_insert(*inode->layout, extent, touched);
      runs.push_back(run_of(extent));
      inode->attributes.blocks += extent.length / kBlockBytes;
    }
    inode->charge_layout();
    emit_touched(inode->ino, *inode->layout, touched, builder);
    merge_bitmaps(builder, runs, true);
    inode->attributes.ctime = now_timestamp();
    put_inode(builder, inode->attributes);
    commit(std::move(*slots), builder, request, {inode.get()});
    lock.unlock();
    cache_.trim();
    extents = extents.subspan(step.size());
  }
  co_return success();
}

Task<Result<void>> ManagerImpl::fill_holes(InodeRef inode, std::uint64_t begin, std::uint64_t end, TimePoint limit,
                                           std::uint64_t request) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> holes;
  std::uint64_t missing = 0;
  SpaceHint hint;
  {
    MutexLock lock(inode->mutex);
    CO_ASSIGN_OR_RETURN(const Layout* layout, layout_of(*inode));
    layout_visit(*layout, begin, end, [&](std::uint64_t from, std::uint64_t to, const Extent* extent) {
      if (extent == nullptr) {
        holes.emplace_back(from, to);
        missing += to - from;
      } else if (holes.empty() && to == extent->end()) {
        hint.chunk = extent->chunk;
        hint.block = static_cast<std::uint32_t>((extent->chunk_offset + extent->length) / kBlockBytes);
      }
    });
    const auto next = layout->lower_bound(begin);
    if (hint.chunk == ChunkId() && next != layout->begin() && std::prev(next)->second.end() == begin) {
      const Extent& previous = std::prev(next)->second;
      hint.chunk = previous.chunk;
      hint.block = static_cast<std::uint32_t>((previous.chunk_offset + previous.length) / kBlockBytes);
    }
    hint.file_blocks = inode->attributes.blocks;
  }
  if (missing == 0) co_return success();
  CO_ASSIGN_OR_RETURN(const auto space, co_await reserve_space(missing / kBlockBytes, hint, limit));

  std::vector<Extent> extents;
  std::size_t next_space = 0;
  std::uint32_t used = 0;
  for (auto [at, stop] : holes) {
    while (at < stop) {
      const SpaceRun& from = space[next_space];
      const std::uint64_t take = std::min<std::uint64_t>(from.count - used, (stop - at) / kBlockBytes);
      extents.push_back({at, take * kBlockBytes, from.chunk, std::uint64_t{from.first + used} * kBlockBytes, true});
      at += take * kBlockBytes;
      used += static_cast<std::uint32_t>(take);
      if (used == from.count) ++next_space, used = 0;
    }
  }
  co_return co_await insert_unwritten(inode, extents, request);
}

Task<Result<void>> ManagerImpl::allocate(InodeRef inode, std::uint64_t offset, std::uint64_t length, AllocateMode mode,
                                         TimePoint limit, std::uint64_t request) {
  if (length == 0) co_return Error(Errc::kInvalid, "allocate");
  if (offset > kMaxFileBytes || length > kMaxFileBytes - offset) co_return Error(Errc::kTooBig, "allocate");
  const std::uint64_t end = round_up_block(offset + length);

  // A request that cannot succeed changes nothing.
  std::uint64_t missing = 0;
  {
    MutexLock lock(inode->mutex);
    CO_ASSIGN_OR_RETURN(const Layout* layout, layout_of(*inode));
    layout_visit(*layout, round_down_block(offset), end,
                 [&](std::uint64_t from, std::uint64_t to, const Extent* extent) {
                   if (extent == nullptr) missing += to - from;
                 });
  }
  for (;;) {
    const std::uint64_t returns = nodes_->returns();
    const bool silent = nodes_->any_silent();
    if (missing <= space().free_bytes) break;
    if (!silent) co_return Error(Errc::kNoSpace, "allocate");
    const bool returned = co_await nodes_->await_return(returns, limit);
    if (!returned) co_return Error(Errc::kUnreachable, "allocate");
  }

  for (std::uint64_t at = round_down_block(offset); at < end;) {
    const std::uint64_t stop = std::min(end, at + kStepBytes);
    CO_RETURN_IF_ERROR(co_await fill_holes(inode, at, stop, limit, request));
    at = stop;
  }
  if (mode.zero) {
    const std::uint64_t whole = round_up_block(offset);
    std::uint64_t stop = std::max(punch_end(offset + length, attributes(*inode).size), whole);
    for (bool done = stop == whole; !done;) {
      CO_ASSIGN_OR_RETURN(done, co_await zero_step(inode, whole, stop, request));
    }
  }
  CO_ASSIGN_OR_RETURN(SlotReservation slots, co_await room(kInodeBytes));
  CommitId id;
  {
    MutexLock lock(inode->mutex);
    Attributes& a = inode->attributes;
    a.mtime = a.ctime = now_timestamp();
    if (!mode.keep_size) a.size = std::max(a.size, offset + length);
    clear_set_id(a, mode.set_id);
    TransactionBuilder builder;
    put_inode(builder, a);
    id = commit(std::move(slots), builder, request, {inode.get()});
  }
  co_return co_await settle(id);
}

}  // namespace rmemfs
