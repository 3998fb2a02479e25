// Extents that claim the same blocks.
//
// One of the files shows another one's bytes. Which one cannot be told from the blocks, so a rule decides: the file
// whose inode was changed last was given the blocks last; it keeps them. (Equal times: the higher inode number, being
// being the younger file.) Within a file the extent with the lower offset keeps them. The others' ranges are lost:
// nobody reads bytes of somebody else's file, and nobody reads zeros where something was written. (An unwritten extent
// held nothing; it becomes a hole.)
#include <algorithm>
#include <map>
#include <tuple>

#include "recovery/check_chunks.h"

namespace rmemfs {
namespace {

struct Claim {
  InodeNumber ino;
  Timestamp changed;
  Extent extent;
  std::uint64_t first() const { return extent.chunk_offset / kBlockBytes; }
  std::uint64_t end() const { return first() + extent.length / kBlockBytes; }
};

// Disjoint runs of blocks of one chunk, begin -> end.
using Runs = std::map<std::uint64_t, std::uint64_t>;

bool intersects(const std::vector<ClaimedRun>& sorted, ChunkId chunk, std::uint64_t first, std::uint64_t end) {
  auto it = std::lower_bound(sorted.begin(), sorted.end(), std::tuple(chunk, first),
                             [](const ClaimedRun& r, auto key) { return std::tuple(r.chunk, r.end) <= key; });
  return it != sorted.end() && it->chunk == chunk && it->first < end;
}

// Sorted by chunk and block, with touching runs made one.
std::vector<ClaimedRun> merged(std::vector<ClaimedRun> runs) {
  std::sort(runs.begin(), runs.end(), [](const ClaimedRun& a, const ClaimedRun& b) {
    return std::tie(a.chunk, a.first) < std::tie(b.chunk, b.first);
  });
  std::vector<ClaimedRun> out;
  for (const ClaimedRun& run : runs) {
    if (!out.empty() && out.back().chunk == run.chunk && run.first <= out.back().end) {
      out.back().end = std::max(out.back().end, run.end);
    } else {
      out.push_back(run);
    }
  }
  return out;
}

// What of [first, end) is not in `taken`, in order.
std::vector<std::pair<std::uint64_t, std::uint64_t>> free_parts(const Runs& taken, std::uint64_t first,
                                                                std::uint64_t end) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> parts;
  auto it = taken.upper_bound(first);
  if (it != taken.begin() && std::prev(it)->second > first) first = std::prev(it)->second;
  for (; first < end; ++it) {
    const std::uint64_t stop = it == taken.end() ? end : std::min(end, it->first);
    if (first < stop) parts.emplace_back(first, stop);
    if (it == taken.end()) break;
    first = std::max(first, it->second);
  }
  return parts;
}

Result<std::vector<Claim>> collect(const CheckContext& context, const std::vector<ClaimedRun>& conflicts) {
  std::vector<Claim> claims;
  RETURN_IF_ERROR(context.walk("E", [&](std::string_view key, std::string_view value) {
    const auto extent = decode_extent(key, value);
    if (!extent.ok()) return success();
    std::uint64_t number = 0;
    for (std::size_t i = 1; i < 9; ++i) number = number << 8 | static_cast<unsigned char>(key[i]);
    Claim claim{InodeNumber(number), {}, *extent};
    if (intersects(conflicts, extent->chunk, claim.first(), claim.end())) claims.push_back(claim);
    return success();
  }));
  for (Claim& claim : claims) {
    const auto attributes = context.attributes(claim.ino);
    if (attributes.ok()) claim.changed = attributes->ctime;
  }
  std::sort(claims.begin(), claims.end(), [](const Claim& a, const Claim& b) {
    return std::tie(b.changed, b.ino, a.extent.file_offset) < std::tie(a.changed, a.ino, b.extent.file_offset);
  });
  return claims;
}

Result<void> punch(CheckContext& context, const Claim& claim,
                   const std::vector<std::pair<std::uint64_t, std::uint64_t>>& kept) {
  context.erase(extent_key(claim.ino, claim.extent.file_offset));
  std::uint64_t blocks = 0;
  if (!claim.extent.unwritten) {
    std::uint64_t at = claim.first();
    const auto lose_up_to = [&](std::uint64_t end) {
      const std::uint64_t offset = claim.extent.file_offset + (at - claim.first()) * kBlockBytes;
      for (const Extent& lost : lost_extents(context, offset, at < end ? (end - at) * kBlockBytes : 0)) {
        context.put(extent_key(claim.ino, lost.file_offset), encode(lost));
        blocks += lost.length / kBlockBytes;
      }
    };
    for (const auto& [first, end] : kept) {
      lose_up_to(first);
      at = end;
    }
    lose_up_to(claim.end());
  }
  for (const auto& [first, end] : kept) {
    Extent part = claim.extent;
    part.file_offset += (first - claim.first()) * kBlockBytes;
    part.chunk_offset = first * kBlockBytes;
    part.length = (end - first) * kBlockBytes;
    context.put(extent_key(claim.ino, part.file_offset), encode(part));
    blocks += end - first;
  }
  const std::uint64_t gone = claim.end() - claim.first() - blocks;
  ASSIGN_OR_RETURN(Attributes attributes, context.attributes(claim.ino));
  attributes.blocks -= std::min(attributes.blocks, gone);
  context.put(inode_key(claim.ino), encode(attributes));
  if (InodeEntry* entry = context.find(claim.ino)) entry->blocks = attributes.blocks;
  return success();
}

}  // namespace

Result<void> settle_shared(CheckContext& context, std::vector<ClaimedRun> runs) {
  const std::vector<ClaimedRun> conflicts = merged(std::move(runs));
  ASSIGN_OR_RETURN(const std::vector<Claim> claims, collect(context, conflicts));
  std::map<ChunkId, Runs> taken;
  for (const Claim& claim : claims) {
    RETURN_IF_ERROR(context.settle());
    Runs& runs_taken = taken[claim.extent.chunk];
    const auto parts = free_parts(runs_taken, claim.first(), claim.end());
    const bool whole = parts.size() == 1 && parts[0] == std::pair(claim.first(), claim.end());
    if (!whole) {
      const std::string detail = "blocks " + std::to_string(claim.first()) + " to " + std::to_string(claim.end() - 1) +
                                 " of chunk " + std::to_string(claim.extent.chunk.value()) + ", offset " +
                                 std::to_string(claim.extent.file_offset);
      if (!context.found(ProblemCode::kExtentShared, claim.ino, detail)) continue;
      RETURN_IF_ERROR(punch(context, claim, parts));
    }
    for (const auto& [first, end] : parts) runs_taken[first] = end;
  }
  return success();
}

}  // namespace rmemfs
