// Pass 5, extents: which file has which blocks.
//
// Checks: each extent can be read (so it is aligned and within the limits of a file), belongs to a regular file, does
// not overlap its neighbour, names a chunk that exists and lies inside it; no two extents claim the same blocks; the
// inode's number of allocated blocks is right. Marks the claimed blocks of each chunk for the space pass. Leaves to
// others: chunk records (check_chunks.cc), extents that share blocks once they are found (check_shared.cc), bitmaps
// (space), whether the chunk's contents still exist (nodes). An extent behind the end of its file is right:
// fallocate(2) with FALLOC_FL_KEEP_SIZE makes them.
//
// What a repair takes from a file must not read as zeros. Such ranges become lost extents (check_chunks.h), once the
// file's other extents are known: they cover neither what another extent has nor what lies behind the end. How long a
// damaged extent was is not known: it is lost up to the next extent or the end, but not more blocks than the file is
// said to have and no extent accounts for, nor more than a chunk has. A hole is left only where zeros were read before
// (an unwritten extent), and where the damaged extent's key does not say where it was.
#include <dirent.h>

#include <algorithm>
#include <utility>

#include "recovery/check_chunks.h"
#include "recovery/check_context.h"

namespace rmemfs {
namespace {

std::string range_of(const Extent& e) {
  return "offset " + std::to_string(e.file_offset) + ", " + std::to_string(e.length) + " bytes";
}

class ExtentPass {
 public:
  explicit ExtentPass(CheckContext& context) : context_(context) {}
  Result<void> run();

 private:
  Result<void> check_record(std::string_view key, std::string_view value);
  Result<void> check_extent(InodeNumber ino, std::string key, Extent extent, bool known);
  Result<void> close_inodes(std::uint64_t before);  // lost ranges and block counts of all inodes below `before`
  Result<void> write_losses(const InodeEntry& entry);
  void keep(const Extent& extent);
  Result<bool> trim_overlap(InodeNumber ino, std::string& key, Extent& extent);
  Result<ChunkInfo*> chunk_of(InodeNumber ino, const Extent& extent, bool& dropped);
  bool cut_to_chunk(InodeNumber ino, const std::string& key, Extent& extent, const ChunkInfo& chunk, bool known);
  void claim(ChunkInfo& chunk, const Extent& extent);

  CheckContext& context_;
  std::size_t cursor_ = 0;         // in context_.inodes: all before it are closed
  InodeNumber current_;            // whose extents are being read
  std::uint64_t current_end_ = 0;  // of its last extent kept
  std::uint64_t current_blocks_ = 0;
  std::vector<ClaimedRun> conflicts_;

  // Of the current inode: what repairs are going to lose, written when the inode is closed.
  struct Loss {
    std::string key;   // of the extent that was wrong
    std::string rest;  // what stays under the key; empty: nothing
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    bool exact = true;  // false: nobody knows where it ended
  };
  std::vector<Loss> losses_;
  std::size_t open_losses_ = 0;  // from here on another extent may still limit them
};

// The next extent of the file that stays, or that is lost itself: what is lost before it ends there.
void ExtentPass::keep(const Extent& extent) {
  for (std::size_t i = open_losses_; i < losses_.size(); ++i) {
    Loss& loss = losses_[i];
    if (loss.begin < extent.file_offset) {
      loss.end = std::min(loss.end, extent.file_offset);
      if (i == open_losses_) ++open_losses_;
    } else {
      loss.begin = std::max(loss.begin, extent.end());
    }
  }
}

Result<void> ExtentPass::write_losses(const InodeEntry& entry) {
  open_losses_ = 0;
  if (losses_.empty()) return success();
  const InodeNumber ino(entry.ino);
  ASSIGN_OR_RETURN(const Attributes attributes, context_.attributes(ino));
  const std::uint64_t size_end = (attributes.size + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  // All of the file's in one batch: a crash leaves either the damage or the lost ranges.
  const std::vector<Loss> losses = std::exchange(losses_, {});
  for (const Loss& loss : losses) {
    if (loss.rest.empty())
      context_.erase(loss.key);
    else
      context_.put(loss.key, loss.rest);
  }
  std::uint64_t at = 0;
  for (const Loss& loss : losses) {
    at = std::max(at, loss.begin);
    const std::uint64_t end = std::min(loss.end, size_end);
    std::uint64_t length = at < end ? std::min(end - at, context_.superblock.chunk_bytes) : 0;
    if (!loss.exact && entry.blocks > current_blocks_)
      length = std::min(length, (entry.blocks - current_blocks_) * kBlockBytes);
    for (const Extent& extent : lost_extents(context_, at, length)) {
      context_.put(extent_key(ino, extent.file_offset), encode(extent));
      current_blocks_ += extent.length / kBlockBytes;
      ++context_.report.extents;
    }
    at += length;
  }
  return success();
}

// The part in front of the last extent's end goes; all of it when the rest would come to lie on the next extent's key.
// False: nothing is left of it.
Result<bool> ExtentPass::trim_overlap(InodeNumber ino, std::string& key, Extent& extent) {
  if (extent.file_offset >= current_end_) return true;
  if (!context_.found(ProblemCode::kExtentOverlap, ino, range_of(extent))) return true;
  const std::uint64_t excess = current_end_ - extent.file_offset;
  if (excess >= extent.length) {
    context_.erase(key);
    return false;
  }
  const std::string rest = extent_key(ino, current_end_);
  ASSIGN_OR_RETURN(const auto there, context_.get(rest));
  if (there && !extent.unwritten) {
    losses_.push_back({key, {}, current_end_, extent.end()});
    return false;
  }
  context_.erase(key);
  if (there) return false;
  extent.file_offset += excess;
  extent.chunk_offset += excess;
  extent.length -= excess;
  key = rest;
  context_.put(key, encode(extent));
  return true;
}

// Null: the caller drops the extent, or it stays and cannot be judged.
Result<ChunkInfo*> ExtentPass::chunk_of(InodeNumber ino, const Extent& extent, bool& dropped) {
  if (ChunkInfo* chunk = context_.find_chunk(extent.chunk)) return chunk;
  const std::string detail = "chunk " + std::to_string(extent.chunk.value()) + ", " + range_of(extent);
  ASSIGN_OR_RETURN(const ChunkRescue rescue, plan_rescue(context_, extent.chunk));
  if (rescue.kind == ChunkRescue::Kind::kUnsure) {
    context_.found_unrepairable(ProblemCode::kExtentUnknownChunk, ino,
                                detail + "; a node that did not answer may know it");
    return nullptr;
  }
  if (!context_.found(ProblemCode::kExtentUnknownChunk, ino, detail)) return nullptr;
  if (rescue.kind == ChunkRescue::Kind::kNeverWas) {
    dropped = true;
    return nullptr;
  }
  return install_rescued(context_, extent.chunk, rescue);
}

// False: it began outside and is gone.
bool ExtentPass::cut_to_chunk(InodeNumber ino, const std::string& key, Extent& extent, const ChunkInfo& chunk,
                              bool known) {
  const std::uint64_t limit = chunk.record.region.length_bytes;
  if (extent.chunk_offset + extent.length <= limit) return true;
  if (!context_.found(ProblemCode::kExtentOutsideChunk, ino,
                      range_of(extent) + " at " + std::to_string(extent.chunk_offset) + " of chunk " +
                          std::to_string(chunk.id.value()) + " with " + std::to_string(limit) + " bytes")) {
    return false;
  }
  const std::uint64_t end = extent.end();
  const bool inside = extent.chunk_offset < limit;
  extent.length = inside ? limit - extent.chunk_offset : 0;
  const std::string rest = inside ? encode(extent) : std::string();
  if (known && !extent.unwritten) {
    losses_.push_back({key, rest, extent.end(), end});
  } else if (inside) {
    context_.put(key, rest);
  } else {
    context_.erase(key);
  }
  return inside;
}

void ExtentPass::claim(ChunkInfo& chunk, const Extent& extent) {
  const std::uint64_t first = extent.chunk_offset / kBlockBytes;
  const std::uint64_t end = first + extent.length / kBlockBytes;
  for (std::uint64_t block = first; block < end; ++block) {
    if (!chunk.claimed[block]) {
      chunk.claimed[block] = true;
      continue;
    }
    if (!conflicts_.empty() && conflicts_.back().chunk == chunk.id && conflicts_.back().end == block) {
      ++conflicts_.back().end;
    } else {
      conflicts_.push_back({chunk.id, block, block + 1});
    }
  }
}

Result<void> ExtentPass::close_inodes(std::uint64_t before) {
  for (; cursor_ < context_.inodes.size() && context_.inodes[cursor_].ino < before; ++cursor_) {
    InodeEntry& entry = context_.inodes[cursor_];
    if (entry.type != DT_REG) continue;
    if (entry.ino == current_.value()) RETURN_IF_ERROR(write_losses(entry));
    const std::uint64_t right = entry.ino == current_.value() ? current_blocks_ : 0;
    if (entry.blocks == right) continue;
    const InodeNumber ino(entry.ino);
    if (!context_.found(ProblemCode::kBlockCountWrong, ino,
                        std::to_string(entry.blocks) + ", should be " + std::to_string(right))) {
      continue;
    }
    ASSIGN_OR_RETURN(Attributes attributes, context_.attributes(ino));
    attributes.blocks = right;
    entry.blocks = right;
    context_.put(inode_key(ino), encode(attributes));
  }
  return success();
}

Result<void> ExtentPass::check_extent(InodeNumber ino, std::string key, Extent extent, bool known) {
  if (known) {
    ASSIGN_OR_RETURN(const bool kept, trim_overlap(ino, key, extent));
    if (!kept) return success();
  }
  bool dropped = false;
  ASSIGN_OR_RETURN(ChunkInfo* const chunk, chunk_of(ino, extent, dropped));
  if (dropped) {
    if (known && !extent.unwritten)
      losses_.push_back({key, {}, extent.file_offset, extent.end()});
    else
      context_.erase(key);
    return success();
  }
  keep(extent);
  if (chunk != nullptr && !chunk->uncertain) {
    if (!cut_to_chunk(ino, key, extent, *chunk, known)) return success();
    claim(*chunk, extent);
  }
  current_end_ = std::max(current_end_, extent.end());
  current_blocks_ += extent.length / kBlockBytes;
  ++context_.report.extents;
  return success();
}

Result<void> ExtentPass::check_record(std::string_view key_view, std::string_view value) {
  std::string key(key_view);
  const auto extent = decode_extent(key, value);
  std::uint64_t number = 0;
  for (std::size_t i = 1; i < 9 && i < key.size(); ++i) number = number << 8 | static_cast<unsigned char>(key[i]);
  const InodeNumber ino(number);
  const InodeEntry* entry = context_.find(ino);
  const auto turn_to_inode = [&]() -> Result<void> {
    if (ino == current_) return success();
    RETURN_IF_ERROR(close_inodes(number));
    current_ = ino;
    current_end_ = 0;
    current_blocks_ = 0;
    return success();
  };
  if (!extent.ok()) {
    std::uint64_t offset = 0;
    for (std::size_t i = 9; i < 17 && i < key.size(); ++i) offset = offset << 8 | static_cast<unsigned char>(key[i]);
    const bool placed = key.size() == 17 && offset % kBlockBytes == 0 && offset < kMaxFileBytes;
    if (entry == nullptr || entry->type != DT_REG || !placed) {
      if (context_.found(ProblemCode::kExtentDamaged, ino, "")) context_.erase(std::move(key));
      return success();
    }
    RETURN_IF_ERROR(turn_to_inode());
    if (!context_.found(ProblemCode::kExtentDamaged, ino, "offset " + std::to_string(offset))) return success();
    keep({offset, 0, {}, 0, false});
    losses_.push_back({std::move(key), {}, std::max(offset, current_end_), UINT64_MAX, false});
    return success();
  }
  if (entry == nullptr) {
    if (context_.found(ProblemCode::kExtentNoInode, ino, range_of(*extent))) context_.erase(std::move(key));
    return success();
  }
  if (entry->type != DT_REG && entry->type != 0) {
    if (context_.found(ProblemCode::kExtentNotFile, ino, range_of(*extent))) context_.erase(std::move(key));
    return success();
  }
  RETURN_IF_ERROR(turn_to_inode());
  return check_extent(ino, std::move(key), *extent, entry->type == DT_REG);
}

Result<void> ExtentPass::run() {
  RETURN_IF_ERROR(check_chunks(context_));
  const std::uint64_t last = context_.inodes.empty() ? 1 : context_.inodes.back().ino;
  std::uint64_t seen = 0;
  auto it = context_.store->iterate("E");
  for (; it->valid(); it->next()) {
    RETURN_IF_ERROR(context_.settle());
    RETURN_IF_ERROR(check_record(it->key(), it->value()));
    if ((++seen & 1023) == 0) context_.progress(CheckPass::kExtents, current_.value(), last + 1);
  }
  RETURN_IF_ERROR(it->status());
  RETURN_IF_ERROR(close_inodes(UINT64_MAX));
  if (!conflicts_.empty()) RETURN_IF_ERROR(settle_shared(context_, std::move(conflicts_)));
  context_.progress(CheckPass::kExtents, 1, 1);
  return success();
}

}  // namespace

Result<void> check_extents(CheckContext& context) { return ExtentPass(context).run(); }

}  // namespace rmemfs
