// Pass 6, space accounting.
//
// Checks: each chunk's bitmap marks exactly the blocks that extents have; no bitmap is without its chunk; the next
// inode and chunk numbers lie above all in use; the number of inodes. Leaves to others: which file has which blocks
// (extents), what the nodes lend (nodes).
#include <algorithm>

#include "recovery/check_context.h"

namespace rmemfs {
namespace {

bool bit(std::string_view bitmap, std::size_t at) {
  return at / 8 < bitmap.size() && (static_cast<unsigned char>(bitmap[at / 8]) >> (at % 8) & 1) != 0;
}

// As merges leave it: no longer than the last block in use needs.
std::string bitmap_of(const std::vector<bool>& claimed) {
  std::string bitmap((claimed.size() + 7) / 8, '\0');
  for (std::size_t i = 0; i < claimed.size(); ++i) {
    if (claimed[i]) bitmap[i / 8] = static_cast<char>(bitmap[i / 8] | 1 << (i % 8));
  }
  while (!bitmap.empty() && bitmap.back() == '\0') bitmap.pop_back();
  return bitmap;
}

Result<void> check_bitmap(CheckContext& context, const ChunkInfo& chunk) {
  const std::string key = bitmap_key(chunk.id);
  ASSIGN_OR_RETURN(const auto value, context.get(key));
  const std::string_view stored = value ? std::string_view(*value) : std::string_view();
  const std::size_t blocks = chunk.claimed.size();
  std::uint64_t leaked = 0, unmarked = 0, used = 0;
  for (std::size_t i = 0; i < blocks; ++i) {
    const bool marked = bit(stored, i);
    if (chunk.claimed[i]) ++used;
    if (marked && !chunk.claimed[i]) ++leaked;
    if (!marked && chunk.claimed[i]) ++unmarked;
  }
  bool outside = stored.size() > (blocks + 7) / 8;
  for (std::size_t i = blocks; i < stored.size() * 8 && !outside; ++i) outside = bit(stored, i);
  context.report.used_bytes += used * kBlockBytes;

  const std::string where = "chunk " + std::to_string(chunk.id.value());
  bool remake = false;
  if (outside) remake |= context.found(ProblemCode::kBitmapDamaged, InodeNumber(), where);
  if (leaked != 0) {
    remake |= context.found(ProblemCode::kBlocksLeaked, InodeNumber(), where + ": " + std::to_string(leaked));
  }
  if (unmarked != 0) {
    remake |= context.found(ProblemCode::kBlocksUnmarked, InodeNumber(), where + ": " + std::to_string(unmarked));
  }
  if (!remake) return success();
  std::string right = bitmap_of(chunk.claimed);
  if (right.empty())
    context.erase(key);
  else
    context.put(key, std::move(right));
  return success();
}

Result<void> check_strays(CheckContext& context) {
  auto it = context.store->iterate("B");
  for (; it->valid(); it->next()) {
    RETURN_IF_ERROR(context.settle());
    const auto id = decode_chunk_key(it->key());
    if (id.ok() && context.find_chunk(*id) != nullptr) continue;
    if (context.found(ProblemCode::kBitmapNoChunk, InodeNumber(),
                      id.ok() ? "chunk " + std::to_string(id->value()) : "its key is damaged")) {
      context.erase(std::string(it->key()));
    }
  }
  return it->status();
}

Result<std::optional<std::uint64_t>> number_at(const CheckContext& context, std::string_view name) {
  ASSIGN_OR_RETURN(const auto value, context.get(singleton_key(name)));
  if (!value) return std::optional<std::uint64_t>();
  const auto number = decode_number(*value);
  return number.ok() ? std::optional<std::uint64_t>(*number) : std::optional<std::uint64_t>();
}

std::string versus(const std::optional<std::uint64_t>& stored, std::uint64_t right) {
  return (stored ? std::to_string(*stored) : std::string("unreadable")) + ", should be " + std::to_string(right);
}

// `used` is the highest number in use, `end` the first that no number may be.
Result<void> check_next(CheckContext& context, std::string_view name, ProblemCode code, std::uint64_t used,
                        std::uint64_t end) {
  ASSIGN_OR_RETURN(const auto stored, number_at(context, name));
  if (stored && *stored > used && *stored <= end) return success();
  if (context.found(code, InodeNumber(), versus(stored, used + 1))) {
    context.put(singleton_key(name), encode_number(used + 1));
  }
  return success();
}

}  // namespace

Result<void> check_space(CheckContext& context) {
  context.report.chunks = context.chunks.size();
  std::uint64_t done = 0;
  for (const ChunkInfo& chunk : context.chunks) {
    RETURN_IF_ERROR(context.settle());
    context.progress(CheckPass::kSpace, done++, context.chunks.size());
    if (!chunk.uncertain) RETURN_IF_ERROR(check_bitmap(context, chunk));
  }
  RETURN_IF_ERROR(check_strays(context));
  RETURN_IF_ERROR(check_next(context, "next_inode", ProblemCode::kNextInodeLow,
                             context.inodes.empty() ? 0 : context.inodes.back().ino, kInodeNumberEnd));
  RETURN_IF_ERROR(check_next(context, "next_chunk", ProblemCode::kNextChunkLow,
                             context.chunks.empty() ? 0 : context.chunks.back().id.value(), kChunkNumberEnd));
  ASSIGN_OR_RETURN(const auto count, number_at(context, "inodes"));
  const std::uint64_t right = context.inodes.size();
  if ((!count || *count != right) &&
      context.found(ProblemCode::kInodeCounterWrong, InodeNumber(), versus(count, right))) {
    context.put(singleton_key("inodes"), encode_number(right));
  }
  context.progress(CheckPass::kSpace, 1, 1);
  return success();
}

}  // namespace rmemfs
