// The table of chunks: what the data path's pieces point to.
//
// A Chunk is made once and lives as long as the map; find() takes no lock (two levels of atomic pointers), because each
// read of a file asks it. Thread-safe. Rank kChunkMap for changes.
//
// A lost chunk is usable again ("found again") when its node holds, in the very generation, the very lease that the
// chunk was made with (holds_chunk). Then its blocks have the bytes that were acknowledged, because while it was lost
//   R1  it gave out no block: what was freed in it meanwhile is free again, and nobody else got it (allocator A4);
//   R2  no operation on it was posted (OperationBatch), so none was acknowledged either; what a write that failed left
//       there, the caller was told of;
//   R3  its region was neither released nor leased to another: region ids are never given twice in one pool, the key is
//       of that one lease, and a mount gives a region back only when no chunk record, lost or not, names it;
//   R4  no other chunk has the region: the lease's tag is this chunk's number, and no live chunk names the region;
//   R5  no older mount writes there: this mount's epoch was raised on that generation before the lease was looked at. A
//       node that was started with another pool and then with the old one again has an older epoch.
// That the contents are those of the generation is the node's word, as it is for one that is started again with its
// pool. A pool file that somebody replaced by an older copy of itself cannot be told from the right one.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "manager/manager.h"
#include "util/mutex.h"

namespace rmemfs {

// The node holds the lease that `region` of chunk `id` came from, with its contents (R3, R4).
bool holds_chunk(const LeasedRegion& lease, ChunkId id, const RemoteRegion& region);

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
  // The opposite, for the one caller that found it again (R1 to R5).
  void mark_found(Chunk& chunk);

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
