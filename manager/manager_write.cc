// Where bytes are, and the two halves of a write: space is reserved before the data moves, the extents are committed
// after it has arrived. A crash in between gives the reservation back by forgetting it.
#include <sys/stat.h>

#include <algorithm>

#include "manager/manager_impl.h"
#include "util/check.h"

namespace rmemfs {
namespace {

// Adds a run; one that continues the last one, or a hole after a hole, makes it longer.
void append_piece(Pieces& pieces, const Piece& piece) {
  if (piece.length == 0) return;
  if (!pieces.empty()) {
    Piece& last = pieces.back();
    const bool follows = last.file_offset + last.length == piece.file_offset && last.chunk == piece.chunk;
    if (follows && (piece.chunk == nullptr || last.chunk_offset + last.length == piece.chunk_offset)) {
      last.length += piece.length;
      return;
    }
  }
  pieces.push_back(piece);
}

// The part of `piece` in [begin, end).
Piece clip(const Piece& piece, std::uint64_t begin, std::uint64_t end) {
  const std::uint64_t from = std::max(piece.file_offset, begin);
  const std::uint64_t to = std::min(piece.file_offset + piece.length, end);
  if (from >= to) return {};
  return {from, to - from, piece.chunk, piece.chunk_offset + (piece.chunk == nullptr ? 0 : from - piece.file_offset)};
}

// Two writes so close together have the same time unless somebody looked at it in between. That is the clock tick of
// the kernel's own file systems; here it saves a transaction for every block that is overwritten.
constexpr std::int64_t kTimeGrainNs = 4'000'000;

// Whether `time` is as good as now.
bool is_now(const Timestamp& time, const Timestamp& now) {
  const std::int64_t seconds = now.seconds - time.seconds;
  if (seconds < 0 || seconds > 1) return false;
  const std::int64_t age_ns = seconds * 1'000'000'000 + now.nanoseconds - time.nanoseconds;
  return age_ns >= 0 && age_ns < kTimeGrainNs;
}

// A run of whole blocks of the range to be written.
struct Run {
  std::uint64_t begin, end;
  std::optional<Extent> extent;  // none: a hole
};

}  // namespace

Result<Pieces> ManagerImpl::map(Inode& inode, std::uint64_t offset, std::uint64_t length) {
  RETURN_IF_ERROR(readable());
  if (length > UINT64_MAX - offset) return Error(Errc::kInvalid, "map");
  Pieces pieces;
  MutexLock lock(inode.mutex);
  ASSIGN_OR_RETURN(const Layout* layout, layout_of(inode));
  layout_visit(*layout, offset, offset + length, [&](std::uint64_t begin, std::uint64_t end, const Extent* extent) {
    Piece piece{begin, end - begin, nullptr, 0};
    if (extent != nullptr && !extent->unwritten) {
      piece.chunk = chunks_.find(extent->chunk);
      piece.chunk_offset = extent->chunk_offset + (begin - extent->file_offset);
      CHECK(piece.chunk != nullptr);  // layout_of() and N4
    }
    append_piece(pieces, piece);
  });
  return pieces;
}

Task<Result<WritePlan>> ManagerImpl::plan_write(InodeRef inode, std::uint64_t offset, std::uint64_t length,
                                                TimePoint limit) {
  CO_RETURN_IF_ERROR(writable());
  if (length == 0) co_return Error(Errc::kInvalid, "write");
  if (offset > kMaxFileBytes || length > kMaxFileBytes - offset) co_return Error(Errc::kTooBig, "write");
  WritePlan plan;
  plan.offset = offset;
  plan.length = length;
  const std::uint64_t stop = offset + length;
  const std::uint64_t begin = round_down_block(offset);
  const std::uint64_t end = round_up_block(stop);

  boost::container::small_vector<Run, 4> runs;
  std::uint64_t missing = 0;  // bytes
  SpaceHint hint;
  {
    MutexLock lock(inode->mutex);
    CO_ASSIGN_OR_RETURN(const Layout* layout, layout_of(*inode));
    layout_visit(*layout, begin, end, [&](std::uint64_t from, std::uint64_t to, const Extent* extent) {
      runs.push_back({from, to, extent == nullptr ? std::optional<Extent>() : *extent});
      if (extent == nullptr) missing += to - from;
    });
    if (missing != 0) {
      const auto hole = std::find_if(runs.begin(), runs.end(), [](const Run& run) { return !run.extent; });
      auto next = layout->lower_bound(hole->begin);
      if (next != layout->begin() && std::prev(next)->second.end() == hole->begin) {
        const Extent& previous = std::prev(next)->second;
        hint.chunk = previous.chunk;
        hint.block = static_cast<std::uint32_t>((previous.chunk_offset + previous.length) / kBlockBytes);
      }
      hint.file_blocks = inode->attributes.blocks;
    }
    // What lies between the old end and this write is zeros, whatever an earlier truncate left there.
    const std::uint64_t size = inode->attributes.size;
    if (offset > size && size % kBlockBytes != 0) {
      const std::uint64_t gap_end = std::min(round_up_block(size), offset);
      layout_visit(*layout, size, gap_end, [&](std::uint64_t from, std::uint64_t to, const Extent* extent) {
        if (extent == nullptr || extent->unwritten) return;
        append_piece(plan.zeros, {from, to - from, chunks_.find(extent->chunk),
                                  extent->chunk_offset + (from - extent->file_offset)});
      });
    }
  }

  std::vector<SpaceRun> space;
  if (missing != 0 && !allocator_->allocate(missing / kBlockBytes, hint, space)) {
    CO_ASSIGN_OR_RETURN(space, co_await reserve_space(missing / kBlockBytes, hint, limit));
  }
  if (missing != 0) lease_ahead();

  // What is not yet written (fresh or unwritten extents), edges included.
  const auto add_unwritten = [&](const Piece& piece) {
    append_piece(plan.pieces, clip(piece, offset, stop));
    append_piece(plan.zeros, clip(piece, begin, offset));
    append_piece(plan.zeros, clip(piece, stop, end));
  };
  // No transaction holds more changes: what lies behind is left to another plan.
  const std::size_t most_changes = (journal_.max_payload_bytes() - kInodeBytes) / kExtentStepBytes;
  const auto full = [&] { return plan.fresh.size() + plan.converted.size() >= most_changes; };
  std::uint64_t planned = end;  // up to here
  std::size_t next_space = 0;
  std::uint32_t used = 0;  // blocks of space[next_space]
  for (const Run& run : runs) {
    if (planned != end) break;
    if (run.extent) {
      if (run.extent->unwritten && full()) {
        planned = run.begin;
        break;
      }
      Extent part = *run.extent;
      part.chunk_offset += run.begin - part.file_offset;
      part.file_offset = run.begin;
      part.length = run.end - run.begin;
      const Piece piece{run.begin, part.length, chunks_.find(part.chunk), part.chunk_offset};
      CHECK(piece.chunk != nullptr);
      if (part.unwritten) {
        plan.converted.push_back(part);
        add_unwritten(piece);
      } else {
        append_piece(plan.pieces, clip(piece, offset, stop));
      }
      continue;
    }
    for (std::uint64_t at = run.begin; at < run.end;) {
      if (full()) {
        planned = at;
        break;
      }
      const SpaceRun& from = space[next_space];
      const std::uint64_t take = std::min<std::uint64_t>(from.count - used, (run.end - at) / kBlockBytes);
      const std::uint64_t chunk_offset = std::uint64_t{from.first + used} * kBlockBytes;
      plan.fresh.push_back({at, take * kBlockBytes, from.chunk, chunk_offset, false});
      const Chunk* chunk = chunks_.find(from.chunk);
      CHECK(chunk != nullptr);
      add_unwritten({at, take * kBlockBytes, chunk, chunk_offset});
      at += take * kBlockBytes;
      used += static_cast<std::uint32_t>(take);
      if (used == from.count) ++next_space, used = 0;
    }
  }
  if (planned != end) {
    CHECK(planned > offset);  // there is room for at least one change, and it covers the first block
    plan.length = planned - offset;
    std::vector<SpaceRun> unused(space.begin() + static_cast<std::ptrdiff_t>(std::min(next_space, space.size())),
                                 space.end());
    if (!unused.empty()) {
      unused.front().first += used;
      unused.front().count -= used;
      allocator_->release(unused);
    }
  }
  co_return plan;
}

// The metadata says already all that the write would have it say. Bytes in place are the data plane's.
bool ManagerImpl::changes_nothing(Inode& inode, const WritePlan& plan, SetId set_id) {
  if (!plan.fresh.empty() || !plan.converted.empty()) return false;
  MutexLock lock(inode.mutex);
  const Attributes& a = inode.attributes;
  // Read since: the access time must not be the later one.
  if (a.atime > a.mtime) return false;
  if (inode.times_seen || plan.offset + plan.length > a.size) return false;
  if (set_id != SetId::kKeep && (a.mode & (S_ISUID | S_ISGID)) != 0) return false;
  const Timestamp now = now_timestamp();
  return is_now(a.mtime, now) && is_now(a.ctime, now);
}

Task<Result<void>> ManagerImpl::commit_write(InodeRef inode, const WritePlan& plan, SetId set_id,
                                             std::uint64_t request) {
  // What it relies on may be another write's, which is not persistent yet.
  if (changes_nothing(*inode, plan, set_id)) co_return co_await settle(CommitId(inode->last_commit.load()));
  const std::size_t changes = plan.fresh.size() + plan.converted.size();
  auto reserved = co_await room(kInodeBytes + changes * kExtentStepBytes);
  if (!reserved.ok()) {
    abandon_write(plan, false);
    co_return std::move(reserved).error();
  }
  SlotReservation slots = std::move(*reserved);
  CommitId id;
  {
    MutexLock lock(inode->mutex);
    Attributes& a = inode->attributes;
    TransactionBuilder builder;
    if (changes != 0) {
      auto loaded = layout_of(*inode);
      if (!loaded.ok()) {
        abandon_write(plan, false);
        co_return std::move(loaded).error();
      }
      Layout* const layout = *loaded;
      TouchedKeys touched;
      std::vector<SpaceRun> runs;
      for (const Extent& extent : plan.fresh) {
        layout_insert(*layout, extent, touched);
        runs.push_back(run_of(extent));
        a.blocks += extent.length / kBlockBytes;
      }
      for (const Extent& extent : plan.converted) {
        layout_mark(*layout, extent.file_offset, extent.end(), false, touched);
      }
      inode->charge_layout();
      emit_touched(inode->ino, *layout, touched, builder);
      merge_bitmaps(builder, runs, true);
    }
    a.size = std::max(a.size, plan.offset + plan.length);
    a.mtime = a.ctime = now_timestamp();
    inode->times_seen = false;
    clear_set_id(a, set_id);
    put_inode(builder, a);
    id = commit(std::move(slots), builder, request, {inode.get()});
  }
  cache_.trim();
  co_return co_await settle(id);
}

void ManagerImpl::abandon_write(const WritePlan& plan, bool ambiguous) {
  std::vector<SpaceRun> runs;
  for (const Extent& extent : plan.fresh) {
    runs.push_back(run_of(extent));
    if (ambiguous) allocator_->quarantine(runs.back());
  }
  allocator_->release(runs);
}

void ManagerImpl::quarantine(const Pieces& pieces) {
  for (const Piece& piece : pieces) {
    if (piece.chunk == nullptr || piece.length == 0) continue;
    const std::uint64_t first = piece.chunk_offset / kBlockBytes;
    const std::uint64_t last = (piece.chunk_offset + piece.length - 1) / kBlockBytes;
    allocator_->quarantine(
        {piece.chunk->id, static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(last - first + 1)});
  }
}

}  // namespace rmemfs
