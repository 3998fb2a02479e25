// Chunk records, before the extents that name them.
//
// Checks: each record can be read and names a node of this file system; key and length are those of the node's lease;
// no two live chunks have the same region. Leaves to others: whether the region still exists on its node, with its
// contents (nodes). Where the region lies on the node (address, rkey) changes when the node starts again; a mount asks
// for it.
//
// A lease carries the chunk's number as its tag, so a record that is damaged or missing is taken from the node when the
// node still has the region. When no node has it the chunk is recorded as lost, not forgotten: reading there must be an
// error, never zeros. When a node did not answer nothing is decided.
#include "recovery/check_chunks.h"

#include <algorithm>
#include <map>

namespace rmemfs {
namespace {

std::uint64_t stored_number(const CheckContext& context, std::string_view name) {
  const auto value = context.get(singleton_key(name));
  if (!value.ok() || !*value) return 0;
  const auto number = decode_number(**value);
  return number.ok() ? *number : 0;
}

// A record that no lease is like: region 0, and a key of zeros.
ChunkRecord lost_record(const CheckContext& context, std::uint64_t length) {
  ChunkRecord record;
  record.node = context.nodes.front().record.id;
  record.region.generation = Generation(1);
  record.region.length_bytes = length;
  record.state = ChunkState::kLost;
  return record;
}

bool in_use(const CheckContext& context, NodeId node, const LeasedRegion& lease) {
  return std::any_of(context.chunks.begin(), context.chunks.end(), [&](const ChunkInfo& chunk) {
    return !chunk.uncertain && chunk.record.state == ChunkState::kActive && chunk.record.node == node &&
           chunk.record.region.id == lease.id;
  });
}

void add(CheckContext& context, ChunkId id, const ChunkRecord& record, bool uncertain = false) {
  ChunkInfo chunk;
  chunk.id = id;
  chunk.record = record;
  chunk.uncertain = uncertain;
  if (!uncertain) chunk.claimed.resize(record.region.length_bytes / kBlockBytes);
  const auto at = std::lower_bound(context.chunks.begin(), context.chunks.end(), id,
                                   [](const ChunkInfo& c, ChunkId key) { return c.id < key; });
  context.chunks.insert(at, std::move(chunk));
}

// Before the extents are measured against the chunk's length.
void compare_with_lease(CheckContext& context, ChunkId id, ChunkRecord& record) {
  if (record.state != ChunkState::kActive) return;
  for (const LeasedRegion& lease : context.find_node(record.node)->leases) {
    if (lease.id != record.region.id || lease.generation != record.region.generation) continue;
    if (lease.length_bytes == record.region.length_bytes && lease.key.matches(record.region.key)) return;
    const ChunkRecord right = record_of(lease, record.node);
    if (!decode_chunk(encode(right)).ok()) return;
    if (context.found(ProblemCode::kChunkLeaseDiffers, InodeNumber(),
                      "chunk " + std::to_string(id.value()) + ": " + std::to_string(record.region.length_bytes) +
                          " bytes, the lease has " + std::to_string(lease.length_bytes) +
                          (lease.key.matches(record.region.key) ? "" : "; another key"))) {
      record = right;
      context.put(chunk_key(id), encode(record));
    }
    return;
  }
}

Result<void> check_record(CheckContext& context, std::string_view key, std::string_view value) {
  const auto id = decode_chunk_key(key);
  if (!id.ok()) {
    if (context.found(ProblemCode::kChunkDamaged, InodeNumber(), "its key is damaged")) context.erase(std::string(key));
    return success();
  }
  auto record = decode_chunk(value);
  if (record.ok() && id->value() < kChunkNumberEnd && context.find_node(record->node) != nullptr) {
    compare_with_lease(context, *id, *record);
    add(context, *id, *record);
    return success();
  }
  std::string detail = "chunk " + std::to_string(id->value());
  if (id->value() >= kChunkNumberEnd)
    detail += ": no chunk has this number";
  else if (record.ok())
    detail += ": node " + std::to_string(record->node.value()) + " is not one of this file system";
  ASSIGN_OR_RETURN(ChunkRescue rescue, plan_rescue(context, *id));
  if (rescue.kind == ChunkRescue::Kind::kUnsure) {
    context.found_unrepairable(ProblemCode::kChunkDamaged, InodeNumber(),
                               detail + "; a node that did not answer may know it");
    add(context, *id, {}, true);
    return success();
  }
  if (!context.found(ProblemCode::kChunkDamaged, InodeNumber(), detail)) {
    add(context, *id, {}, true);
  } else if (rescue.kind == ChunkRescue::Kind::kNeverWas) {
    context.erase(std::string(key));
  } else {
    install_rescued(context, *id, rescue);
  }
  return success();
}

// The chunk that the node says has the region keeps it; without the node's word, the older chunk.
Result<void> part_shared_regions(CheckContext& context) {
  std::map<std::pair<NodeId, RegionId>, ChunkInfo*> holders;
  for (ChunkInfo& chunk : context.chunks) {
    RETURN_IF_ERROR(context.settle());
    if (chunk.uncertain || chunk.record.state != ChunkState::kActive) continue;
    const auto [it, fresh] = holders.try_emplace({chunk.record.node, chunk.record.region.id}, &chunk);
    if (fresh) continue;
    ChunkInfo* loser = &chunk;
    for (const LeasedRegion& lease : context.find_node(chunk.record.node)->leases) {
      if (lease.id == chunk.record.region.id && lease.tag == chunk.id.value()) loser = it->second;
    }
    if (!context.found(
            ProblemCode::kChunkRegionShared, InodeNumber(),
            "chunks " + std::to_string(it->second->id.value()) + " and " + std::to_string(chunk.id.value()))) {
      continue;
    }
    if (loser != &chunk) it->second = &chunk;
    loser->record.state = ChunkState::kLost;
    context.put(chunk_key(loser->id), encode(loser->record));
  }
  return success();
}

}  // namespace

ChunkRecord record_of(const LeasedRegion& lease, NodeId node) {
  ChunkRecord record;
  record.node = node;
  record.region.id = lease.id;
  record.region.generation = lease.generation;
  record.region.key = lease.key;
  record.region.length_bytes = lease.length_bytes;
  record.region.address = lease.address;
  record.region.rkey = lease.rkey;
  record.region.durability = {static_cast<Durability>(lease.durability),
                              static_cast<PersistMethod>(lease.persist_method)};
  return record;
}

Result<ChunkRescue> plan_rescue(const CheckContext& context, ChunkId id) {
  ChunkRescue rescue;
  if (id.value() >= kChunkNumberEnd) return rescue;
  bool all_answered = true;
  for (const NodeState& node : context.nodes) {
    all_answered = all_answered && node.answered;
    for (const LeasedRegion& lease : node.leases) {
      if (lease.tag != id.value() || in_use(context, node.record.id, lease)) continue;
      const ChunkRecord record = record_of(lease, node.record.id);
      if (!decode_chunk(encode(record)).ok()) continue;  // the node's word is checked like any other foreign bytes
      rescue.kind = ChunkRescue::Kind::kLease;
      rescue.record = record;
      return rescue;
    }
  }
  if (!all_answered) {
    rescue.kind = ChunkRescue::Kind::kUnsure;
    return rescue;
  }
  if (id.value() >= std::min(stored_number(context, "next_chunk"), kChunkNumberEnd)) return rescue;
  rescue.kind = ChunkRescue::Kind::kLost;
  rescue.record = lost_record(context, context.superblock.chunk_bytes);
  return rescue;
}

namespace {

ChunkInfo* new_lost_chunk(CheckContext& context) {
  const std::uint64_t next = stored_number(context, "next_chunk");
  const std::uint64_t above = context.chunks.empty() ? 1 : context.chunks.back().id.value() + 1;
  const ChunkId id(std::max<std::uint64_t>(above, next < kChunkNumberEnd ? next : 0));
  if (id.value() >= kChunkNumberEnd) return nullptr;
  // A counter that is wrong is the space pass's to find.
  if (next == id.value()) context.put(singleton_key("next_chunk"), encode_number(next + 1));
  add(context, id, lost_record(context, 0));
  return context.find_chunk(id);
}

}  // namespace

std::vector<Extent> lost_extents(CheckContext& context, std::uint64_t offset, std::uint64_t length) {
  std::vector<Extent> extents;
  while (length != 0) {
    ChunkInfo* chunk = context.find_chunk(context.lost_chunk);
    if (chunk == nullptr || chunk->record.region.length_bytes >= context.superblock.chunk_bytes) {
      chunk = new_lost_chunk(context);
      if (chunk == nullptr) break;  // 2^24 chunks: there is no number for one more
      context.lost_chunk = chunk->id;
    }
    const std::uint64_t begin = chunk->record.region.length_bytes;
    const std::uint64_t part = std::min(length, context.superblock.chunk_bytes - begin);
    chunk->record.region.length_bytes += part;  // no longer than what is lost: that is what is reported
    chunk->claimed.resize(chunk->record.region.length_bytes / kBlockBytes, true);
    context.put(chunk_key(chunk->id), encode(chunk->record));
    std::string bitmap(chunk->claimed.size() / 8, '\xff');
    if (const std::size_t rest = chunk->claimed.size() % 8; rest != 0)
      bitmap.push_back(static_cast<char>((1u << rest) - 1));
    context.put(bitmap_key(chunk->id), bitmap);
    extents.push_back({offset, part, chunk->id, begin, false});
    offset += part;
    length -= part;
  }
  return extents;
}

ChunkInfo* install_rescued(CheckContext& context, ChunkId id, const ChunkRescue& rescue) {
  context.put(chunk_key(id), encode(rescue.record));
  add(context, id, rescue.record);
  return context.find_chunk(id);
}

Result<void> check_chunks(CheckContext& context) {
  auto it = context.store->iterate("C");
  for (; it->valid(); it->next()) {
    RETURN_IF_ERROR(context.settle());
    RETURN_IF_ERROR(check_record(context, it->key(), it->value()));
  }
  RETURN_IF_ERROR(it->status());
  return part_shared_regions(context);
}

}  // namespace rmemfs
