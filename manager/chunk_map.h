// The table of chunks: what the data path's pieces point to.
//
// A Chunk is made once and lives as long as the map; find() takes no lock (two levels of atomic pointers), because each
// read of a file asks it. Thread-safe. Rank kChunkMap for changes.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "manager/manager.h"
#include "util/mutex.h"

namespace rmemfs {

class ChunkMap {
 public:
  ChunkMap() = default;
  ~ChunkMap();
  ChunkMap(const ChunkMap&) = delete;
  ChunkMap& operator=(const ChunkMap&) = delete;

  // Null: there is no such chunk.
  Chunk* find(ChunkId id) const;
  // kCorrupt: an id that is there already or out of range (0, 2^24 and above).
  Result<Chunk*> add(ChunkId id, const ChunkRecord& record);
  // True for the one caller that made it lost.
  bool mark_lost(Chunk& chunk);

  std::vector<Chunk*> all() const;
  std::uint64_t leased_bytes() const { return leased_bytes_.load(std::memory_order_relaxed); }
  std::uint64_t lost_bytes() const { return lost_bytes_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::size_t kSegmentEntries = 4096;
  static constexpr std::size_t kSegments = 4096;
  using Segment = std::array<std::atomic<Chunk*>, kSegmentEntries>;

  std::array<std::atomic<Segment*>, kSegments> segments_{};
  std::atomic<std::uint64_t> leased_bytes_{0};
  std::atomic<std::uint64_t> lost_bytes_{0};

  mutable Mutex mutex_{LockRank::kChunkMap};
  // Guarded by mutex_:
  std::vector<std::unique_ptr<Chunk>> chunks_;
};

}  // namespace rmemfs
