// Pass 8, the chunk map against the nodes' leases.
//
// Checks: each live chunk's region is on its node, with the contents that the chunk was written to (generation); each
// region that a node holds for this file system belongs to a chunk. Lists the files with data in lost chunks.
// Leaves to others: key and length (extents, because extents are measured against them). A node that did not answer is
// not judged. Contents are not read: they have no checksums, and a region of the right generation has them.
// A node that was started with another pool than its own looks as one that lost everything. So nothing is marked lost
// without a decision, and what was marked is not beyond recall: the mount uses it again when it is back.
// Regions are given back last, after all repairs are durable: so no record can still refer to one.
#include <algorithm>
#include <map>

#include "manager/chunk_map.h"
#include "recovery/check_context.h"

namespace rmemfs {
namespace {

const LeasedRegion* lease_of(const NodeState& node, const ChunkRecord& record) {
  for (const LeasedRegion& lease : node.leases) {
    if (lease.id == record.region.id && lease.generation == record.region.generation) return &lease;
  }
  return nullptr;
}

// Whether a mount would find the lost chunk again (manager/chunk_map.h). It is the one to do so: only a mount raises
// the epoch that keeps older mounts away.
void look_for_lost(CheckContext& context, ChunkInfo& chunk, const NodeState& node) {
  chunk.back =
      std::any_of(node.leases.begin(), node.leases.end(),
                  [&chunk](const LeasedRegion& lease) { return holds_chunk(lease, chunk.id, chunk.record.region); }) &&
      std::none_of(context.chunks.begin(), context.chunks.end(), [&chunk](const ChunkInfo& other) {
        return !other.uncertain && other.record.state == ChunkState::kActive &&
               other.record.node == chunk.record.node && other.record.region.id == chunk.record.region.id &&
               other.record.region.generation == chunk.record.region.generation;
      });
  if (chunk.back) {
    context.notice("chunk " + std::to_string(chunk.id.value()) + " is marked lost, and " + node.address +
                   " has it again, with its contents: the next mount uses it");
  }
}

void check_chunk(CheckContext& context, ChunkInfo& chunk) {
  if (chunk.uncertain) return;
  const NodeState* node = context.find_node(chunk.record.node);
  if (chunk.record.state == ChunkState::kLost) {
    if (node != nullptr && node->answered) look_for_lost(context, chunk, *node);
    return;
  }
  if (node == nullptr || !node->answered || lease_of(*node, chunk.record) != nullptr) return;
  const bool same = node->generation == chunk.record.region.generation;
  const std::string detail = "chunk " + std::to_string(chunk.id.value()) + ", region " +
                             std::to_string(chunk.record.region.id.value()) + " of " + node->address;
  if (!context.found(same ? ProblemCode::kChunkRegionMissing : ProblemCode::kChunkGenerationGone, InodeNumber(),
                     detail)) {
    return;
  }
  chunk.record.state = ChunkState::kLost;
  context.put(chunk_key(chunk.id), encode(chunk.record));
}

Result<void> release_unknown(CheckContext& context, NodeState& node) {
  const FileSystemIdentity who{context.superblock.uuid, context.superblock.key, context.superblock.epoch};
  for (const LeasedRegion& lease : node.leases) {
    RETURN_IF_ERROR(context.settle());
    const bool known = std::any_of(context.chunks.begin(), context.chunks.end(), [&](const ChunkInfo& chunk) {
      // An unreadable record may be this region's: the tag says so.
      if (chunk.uncertain) return chunk.id.value() == lease.tag;
      // Whatever node it names: two addresses may lead to one pool, and its chunks are then of both.
      return chunk.record.region.id == lease.id && chunk.record.region.generation == lease.generation;
    });
    if (known) continue;
    const std::string detail = "region " + std::to_string(lease.id.value()) + " of " + node.address + ", " +
                               std::to_string(lease.length_bytes) + " bytes";
    if (!context.found(ProblemCode::kLeaseUnknown, InodeNumber(), detail) || context.read_only()) continue;
    const auto released = node.client->release(who, lease.id, context.options.node_timeout_ms);
    if (!released.ok()) context.repair_failed(detail + " could not be given back: " + released.error().message());
  }
  return success();
}

Result<void> list_lost_files(CheckContext& context) {
  const bool any = std::any_of(context.chunks.begin(), context.chunks.end(), [](const ChunkInfo& chunk) {
    return chunk.record.state == ChunkState::kLost && !chunk.back;
  });
  if (!any) return success();
  std::vector<LostFile>& files = context.report.lost_files;
  return context.walk("E", [&](std::string_view key, std::string_view value) {
    const auto extent = decode_extent(key, value);
    if (!extent.ok() || extent->unwritten) return success();
    const ChunkInfo* chunk = context.find_chunk(extent->chunk);
    if (chunk == nullptr || chunk->uncertain || chunk->back || chunk->record.state != ChunkState::kLost)
      return success();
    std::uint64_t number = 0;
    for (std::size_t i = 1; i < 9; ++i) number = number << 8 | static_cast<unsigned char>(key[i]);
    if (files.empty() || files.back().ino.value() != number) files.push_back({InodeNumber(number), {}, 0});
    files.back().bytes += extent->length;
    return success();
  });
}

}  // namespace

Result<void> check_nodes(CheckContext& context) {
  std::uint64_t done = 0;
  const std::uint64_t total = context.chunks.size() + context.nodes.size();
  for (ChunkInfo& chunk : context.chunks) {
    RETURN_IF_ERROR(context.settle());
    check_chunk(context, chunk);
    context.progress(CheckPass::kNodes, done++, total);
  }
  RETURN_IF_ERROR(context.write_all());
  for (NodeState& node : context.nodes) {
    if (node.answered && !node.doubled) RETURN_IF_ERROR(release_unknown(context, node));
    context.progress(CheckPass::kNodes, done++, total);
  }
  RETURN_IF_ERROR(list_lost_files(context));
  context.progress(CheckPass::kNodes, 1, 1);
  return success();
}

}  // namespace rmemfs
