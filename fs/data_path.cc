// Invariants:
//   D1  Operations go only to bytes that the held range lock covers, so nothing is freed or moved under them.
//   D2  A failed operation of a write whose fate is unknown (deadline, broken link) may still land: its target is
//       quarantined before the lock is released, so it can never be given to another file.
//   D3  A region that must be persisted is recorded before the write is acknowledged.
//   D4  Metadata names only bytes that survive what it survives: where a region needs a PERSIST, bytes in blocks that
//   are
//       new to the file are persistent before the transaction. Otherwise a power loss of the node could leave a file
//       that shows what the blocks held before. (Overwriting in place waits for fsync.)
// Not done here: retries. A Connection repeats what is safe to repeat until the deadline; past it the answer is an
// error.
#include "fs/data_path.h"

#include <algorithm>
#include <cstring>

#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kEnd = UINT64_MAX;
constexpr std::uint64_t round_down(std::uint64_t n) { return n & ~std::uint64_t{kBlockBytes - 1}; }
constexpr std::uint64_t round_up(std::uint64_t n) { return round_down(n + kBlockBytes - 1); }

alignas(4096) constexpr std::byte kZeros[16384]{};

bool ambiguous(Errc error) {
  return error == Errc::kDeadline || error == Errc::kUnreachable || error == Errc::kCancelled ||
         error == Errc::kProtocol;
}

}  // namespace

Task<Result<RangeLock::Guard>> DataPath::lock_tail(InodeRef inode, std::uint64_t offset, TimePoint limit) {
  for (;;) {
    const std::uint64_t begin = round_down(std::min(offset, manager_.size(*inode)));
    RangeLock::Guard guard = co_await inode->range_lock.lock(begin, kEnd, RangeLock::Mode::kExclusive, limit);
    if (!guard) co_return Error(Errc::kDeadline, "range lock");
    if (round_down(std::min(offset, manager_.size(*inode))) >= begin) co_return guard;
  }
}

void DataPath::add_zeros(OperationBatch& batch, const Pieces& zeros, TimePoint limit) {
  for (const Piece& piece : zeros) {
    if (piece.chunk == nullptr) continue;
    for (std::uint64_t done = 0; done < piece.length;) {
      const std::uint64_t part = std::min<std::uint64_t>(piece.length - done, sizeof kZeros);
      batch.add(OperationKind::kWrite, *piece.chunk, piece.chunk_offset + done, const_cast<std::byte*>(kZeros), part,
                deadline(*piece.chunk, limit));
      done += part;
    }
  }
}

Error DataPath::note_failure(const ConnectionSet& connections, const OperationBatch& batch, const char* where) {
  Error error(Errc::kUnreachable, where);
  bool first = true;
  for (const OperationBatch::Item& item : batch.items()) {
    if (item.operation.ok) continue;
    const_cast<ConnectionSet&>(connections).counters.add(Counter::kRemoteFailed);
    if (item.operation.error == Errc::kRegionLost) manager_.chunk_lost(*item.chunk);
    if (item.operation.error == Errc::kFenced) manager_.fenced();
    if (item.operation.error == Errc::kDeadline || item.operation.error == Errc::kUnreachable) {
      manager_.node_unreachable(item.chunk->node);
    }
    if (first) error.code = item.operation.error;
    first = false;
  }
  return error;
}

bool DataPath::note_written(InodeNumber ino, const ConnectionSet& connections, const OperationBatch& batch) {
  bool all = true;
  for (const OperationBatch::Item& item : batch.items()) {
    if (DirtyRegions::needs_persist(*item.chunk))
      all &= dirty_.written(ino, connections.lane(), *item.chunk, item.operation.boot);
  }
  return all;
}

Task<Result<std::size_t>> DataPath::read(RequestContext context, InodeRef inode, std::uint64_t offset,
                                         std::span<std::byte> to) {
  if (offset >= kMaxFileBytes || to.empty()) co_return std::size_t{0};
  const TimePoint limit = limit_from_now();
  const RangeLock::Guard guard = co_await inode->range_lock.lock(round_down(offset), round_up(offset + to.size()),
                                                                 RangeLock::Mode::kShared, limit);
  if (!guard) co_return Error(Errc::kDeadline, "range lock");
  const std::uint64_t size = manager_.size(*inode);
  if (offset >= size) co_return std::size_t{0};
  const std::size_t length = std::min<std::uint64_t>(to.size(), size - offset);
  CO_ASSIGN_OR_RETURN(const Pieces pieces, manager_.map(*inode, offset, length));
  OperationBatch batch(*context.connections);
  for (const Piece& piece : pieces) {
    std::byte* target = to.data() + (piece.file_offset - offset);
    if (piece.chunk == nullptr) {
      std::memset(target, 0, piece.length);
    } else {
      batch.add(OperationKind::kRead, *piece.chunk, piece.chunk_offset, target, piece.length,
                deadline(*piece.chunk, limit));
    }
  }
  if (!batch.empty()) {
    co_await batch.run();
    if (batch.failed() != nullptr) co_return note_failure(*context.connections, batch, "read");
  }
  co_return length;
}

Task<Result<std::size_t>> DataPath::write(RequestContext context, InodeRef inode, std::uint64_t offset,
                                          std::span<const std::byte> from, SetId set_id) {
  if (from.empty()) co_return std::size_t{0};
  const TimePoint limit = limit_from_now();
  RangeLock::Guard guard;
  for (;;) {
    const std::uint64_t size = manager_.size(*inode);
    if (offset >= kMaxFileBytes || from.size() > kMaxFileBytes - offset) co_return Error(Errc::kTooBig, "write");
    const bool extends = offset + from.size() > size;
    const std::uint64_t begin = round_down(extends ? std::min(offset, size) : offset);
    const std::uint64_t end = extends ? kEnd : round_up(offset + from.size());
    guard = co_await inode->range_lock.lock(begin, end, RangeLock::Mode::kExclusive, limit);
    if (!guard) co_return Error(Errc::kDeadline, "range lock");
    const std::uint64_t settled = manager_.size(*inode);
    if (extends ? settled >= begin : offset + from.size() <= settled) break;
    guard.release();
  }

  std::size_t done = 0;
  while (done < from.size()) {
    const auto written = co_await write_planned(context, inode, offset + done, from.subspan(done), set_id, limit);
    // What is committed is part of the file, which the caller has to know; the next call meets the error again.
    if (!written.ok() && done == 0) co_return written.error();
    if (!written.ok()) break;
    done += *written;
  }
  co_return done;
}

Task<Result<std::uint64_t>> DataPath::write_planned(RequestContext context, InodeRef inode, std::uint64_t offset,
                                                    std::span<const std::byte> from, SetId set_id, TimePoint limit) {
  CO_ASSIGN_OR_RETURN(const WritePlan plan, co_await manager_.plan_write(inode, offset, from.size(), limit));
  OperationBatch batch(*context.connections);
  for (const Piece& piece : plan.pieces) {
    CHECK(piece.chunk != nullptr);
    auto* source = const_cast<std::byte*>(from.data() + (piece.file_offset - offset));
    batch.add(OperationKind::kWrite, *piece.chunk, piece.chunk_offset, source, piece.length,
              deadline(*piece.chunk, limit));
  }
  add_zeros(batch, plan.zeros, limit);
  co_await batch.run();
  if (batch.failed() != nullptr) {
    bool unknown = false;
    for (const auto& item : batch.items()) unknown |= !item.operation.ok && ambiguous(item.operation.error);
    if (unknown) {
      manager_.quarantine(plan.pieces);
      manager_.quarantine(plan.zeros);
    }
    manager_.abandon_write(plan, unknown);
    co_return note_failure(*context.connections, batch, "write");
  }
  const bool in_place = plan.fresh.empty() && plan.converted.empty();
  if (!in_place || !note_written(inode->ino, *context.connections, batch)) {
    auto persistent = co_await persist_before_naming(context, batch, limit);
    if (!persistent.ok()) {
      manager_.abandon_write(plan, false);
      co_return std::move(persistent).error();
    }
  }
  CO_RETURN_IF_ERROR(co_await manager_.commit_write(inode, plan, set_id, context.request));
  co_return plan.length;
}

Task<Result<void>> DataPath::persist_before_naming(RequestContext context, const OperationBatch& written,
                                                   TimePoint limit) {
  OperationBatch batch(*context.connections);
  std::vector<const Chunk*> chunks;
  for (const OperationBatch::Item& item : written.items()) {
    if (!DirtyRegions::needs_persist(*item.chunk)) continue;
    if (std::find(chunks.begin(), chunks.end(), item.chunk) != chunks.end()) continue;
    chunks.push_back(item.chunk);
    batch.add(OperationKind::kPersist, *item.chunk, 0, nullptr, 0, deadline(*item.chunk, limit));
  }
  if (batch.empty()) co_return success();
  co_await batch.run();
  if (batch.failed() != nullptr) co_return note_failure(*context.connections, batch, "persist");
  for (const OperationBatch::Item& item : written.items()) {
    for (const OperationBatch::Item& persist : batch.items()) {
      if (persist.chunk == item.chunk && !DirtyRegions::kept(item.operation.boot, persist.operation.boot)) {
        co_return Error(Errc::kNotKept, "persist");
      }
    }
  }
  co_return success();
}

Task<Result<void>> DataPath::write_zeros(RequestContext context, Pieces zeros, TimePoint limit) {
  OperationBatch batch(*context.connections);
  add_zeros(batch, zeros, limit);
  if (batch.empty()) co_return success();
  co_await batch.run();
  if (batch.failed() != nullptr) {
    for (const auto& item : batch.items()) {
      if (item.operation.ok || !ambiguous(item.operation.error)) continue;
      manager_.quarantine(zeros);
      break;
    }
    co_return note_failure(*context.connections, batch, "zero");
  }
  co_return co_await persist_before_naming(context, batch, limit);
}

Task<Result<Attributes>> DataPath::truncate(RequestContext context, InodeRef inode, std::uint64_t size,
                                            AttributeChange change) {
  if (size > kMaxFileBytes) co_return Error(Errc::kTooBig, "truncate");
  const TimePoint limit = limit_from_now();
  CO_ASSIGN_OR_RETURN(const RangeLock::Guard guard, co_await lock_tail(inode, size, limit));
  CO_ASSIGN_OR_RETURN(Pieces zeros, manager_.plan_truncate(*inode, size));
  CO_RETURN_IF_ERROR(co_await write_zeros(context, std::move(zeros), limit));
  co_return co_await manager_.truncate(inode, size, change, context.request);
}

Task<Result<void>> DataPath::allocate(RequestContext context, InodeRef inode, std::uint64_t offset,
                                      std::uint64_t length, AllocateMode mode) {
  if (length == 0) co_return Error(Errc::kInvalid, "allocate");
  if (offset > kMaxFileBytes || length > kMaxFileBytes - offset) co_return Error(Errc::kTooBig, "allocate");
  const TimePoint limit = limit_from_now();
  CO_ASSIGN_OR_RETURN(const RangeLock::Guard guard, co_await lock_tail(inode, offset, limit));
  const std::uint64_t size = manager_.size(*inode);
  if (!mode.keep_size && offset + length > size) {
    // The part of the last block behind the old end becomes part of the file: it must read as zeros.
    CO_ASSIGN_OR_RETURN(Pieces zeros, manager_.plan_truncate(*inode, offset + length));
    CO_RETURN_IF_ERROR(co_await write_zeros(context, std::move(zeros), limit));
  }
  if (mode.zero) {
    CO_ASSIGN_OR_RETURN(Pieces edges, manager_.plan_punch(*inode, offset, length));
    CO_RETURN_IF_ERROR(co_await write_zeros(context, std::move(edges), limit));
  }
  co_return co_await manager_.allocate(inode, offset, length, mode, limit, context.request);
}

Task<Result<void>> DataPath::punch(RequestContext context, InodeRef inode, std::uint64_t offset, std::uint64_t length,
                                   SetId set_id) {
  if (length == 0) co_return Error(Errc::kInvalid, "punch");
  if (offset >= kMaxFileBytes) co_return success();
  length = std::min(length, kMaxFileBytes - offset);
  const TimePoint limit = limit_from_now();
  CO_ASSIGN_OR_RETURN(const RangeLock::Guard guard, co_await lock_tail(inode, offset, limit));
  CO_ASSIGN_OR_RETURN(Pieces zeros, manager_.plan_punch(*inode, offset, length));
  CO_RETURN_IF_ERROR(co_await write_zeros(context, std::move(zeros), limit));
  co_return co_await manager_.punch(inode, offset, length, set_id, context.request);
}

Result<DirtyRegions::Entries> DataPath::dirty_regions(Inode& inode) {
  DirtyRegions::Entries entries = dirty_.snapshot(inode.ino);
  const auto lost = [](const DirtyRegions::Entry& entry) { return entry.chunk->state.load() == ChunkState::kLost; };
  if (std::none_of(entries.begin(), entries.end(), lost)) return entries;
  // Nothing new is put into a chunk that is lost, so what a change under way does not matter here.
  ASSIGN_OR_RETURN(const Pieces pieces, manager_.map(inode, 0, kMaxFileBytes));
  DirtyRegions::Entries gone, left;
  for (const DirtyRegions::Entry& entry : entries) {
    if (!lost(entry)) {
      left.push_back(entry);  // one that is lost from now on is noticed by its PERSIST
      continue;
    }
    const bool named =
        std::any_of(pieces.begin(), pieces.end(), [&](const Piece& p) { return p.chunk == entry.chunk; });
    if (named) return Error(Errc::kRegionLost, "fsync");
    gone.push_back(entry);
  }
  dirty_.persisted(inode.ino, gone);
  return left;
}

Task<Result<void>> DataPath::persist(InodeRef inode) {
  CO_ASSIGN_OR_RETURN(const DirtyRegions::Entries entries, dirty_regions(*inode));
  if (!entries.empty()) {
    const TimePoint limit = limit_from_now();
    // A PERSIST counts for its own connection: each lane that wrote is visited.
    Executor& home = Executor::current();
    Result<void> outcome;
    DirtyRegions::Entries kept, doubtful;
    std::vector<std::uint32_t> visited;
    for (const DirtyRegions::Entry& first : entries) {
      if (std::find(visited.begin(), visited.end(), first.lane) != visited.end()) continue;
      visited.push_back(first.lane);
      ConnectionSet* connections = lanes_(first.lane);
      CHECK(connections != nullptr);
      co_await ResumeOn{connections->executor()};
      OperationBatch batch(*connections);
      for (const DirtyRegions::Entry& entry : entries) {
        if (entry.lane != first.lane) continue;
        batch.add(OperationKind::kPersist, *entry.chunk, 0, nullptr, 0, deadline(*entry.chunk, limit));
      }
      co_await batch.run();
      if (batch.failed() != nullptr) outcome = note_failure(*connections, batch, "fsync");
      if (!outcome.ok()) break;
      auto item = batch.items().begin();
      for (const DirtyRegions::Entry& entry : entries) {
        if (entry.lane != first.lane) continue;
        const bool sure = !entry.mixed && DirtyRegions::kept(entry.boot, item->operation.boot);
        (sure ? kept : doubtful).push_back(entry);
        ++item;
      }
    }
    co_await ResumeOn{home};
    if (!outcome.ok()) co_return outcome;
    dirty_.persisted(inode->ino, kept);
    if (dirty_.doubted(inode->ino, doubtful, MonoClock::now())) {
      log::error("fsync of inode {}: a memory node was booted anew before what was written there was persistent",
                 inode->ino.value());
      co_return Error(Errc::kNotKept, "fsync");
    }
  }
  co_return co_await manager_.persist(inode);
}

}  // namespace rmemfs
