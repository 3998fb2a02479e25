#include "manager/chunk_map.h"

namespace rmemfs {

bool holds_chunk(const LeasedRegion& lease, ChunkId id, const RemoteRegion& region) {
  return lease.tag == id.value() && lease.id == region.id && lease.generation == region.generation &&
         lease.length_bytes == region.length_bytes && lease.key.matches(region.key);
}

ChunkMap::~ChunkMap() {
  for (auto& segment : segments_) delete segment.load(std::memory_order_relaxed);
}

Chunk* ChunkMap::find(ChunkId id) const {
  if (id.value() >= kSegments * kSegmentEntries) return nullptr;
  const Segment* segment = segments_[id.value() / kSegmentEntries].load(std::memory_order_acquire);
  if (segment == nullptr) return nullptr;
  return (*segment)[id.value() % kSegmentEntries].load(std::memory_order_acquire);
}

Result<Chunk*> ChunkMap::add(ChunkId id, const ChunkRecord& record) {
  const std::uint64_t number = id.value();
  if (number == 0 || number >= kSegments * kSegmentEntries) {
    return Error(Errc::kCorrupt, "chunk map", "chunk " + std::to_string(number) + " is out of range");
  }
  MutexLock lock(mutex_);
  if (find(id) != nullptr) return Error(Errc::kCorrupt, "chunk map", "chunk " + std::to_string(number) + " twice");
  auto& slot = segments_[number / kSegmentEntries];
  if (slot.load(std::memory_order_relaxed) == nullptr) slot.store(new Segment{}, std::memory_order_release);
  auto chunk = std::make_unique<Chunk>();
  chunk->id = id;
  chunk->node = record.node;
  chunk->region = record.region;
  chunk->state.store(record.state, std::memory_order_relaxed);
  Chunk* const made = chunk.get();
  chunks_.push_back(std::move(chunk));
  (*slot.load(std::memory_order_relaxed))[number % kSegmentEntries].store(made, std::memory_order_release);
  leased_bytes_ += record.region.length_bytes;
  if (record.state == ChunkState::kLost) lost_bytes_ += record.region.length_bytes;
  return made;
}

bool ChunkMap::mark_lost(Chunk& chunk) {
  if (chunk.state.exchange(ChunkState::kLost, std::memory_order_acq_rel) == ChunkState::kLost) return false;
  lost_bytes_ += chunk.region.length_bytes;
  return true;
}

void ChunkMap::mark_found(Chunk& chunk) {
  if (chunk.state.exchange(ChunkState::kActive, std::memory_order_acq_rel) == ChunkState::kActive) return;
  lost_bytes_ -= chunk.region.length_bytes;
}

std::vector<Chunk*> ChunkMap::all() const {
  MutexLock lock(mutex_);
  std::vector<Chunk*> out;
  out.reserve(chunks_.size());
  for (const auto& chunk : chunks_) out.push_back(chunk.get());
  return out;
}

}  // namespace rmemfs
