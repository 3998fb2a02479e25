// Free space of all chunks, in memory: one bit per block of each chunk.
//
// Invariants:
//   A1  A block is free, or: reserved (by a plan), committed (in a layout), pending (freed by a transaction that is not
//       yet persistent), or quarantined. Only free ones are given out; the other four have their bit set.
//   A2  A pending block becomes free when its transaction is persistent: otherwise a power loss would bring a file back
//       with another file's bytes in it.
//   A3  A quarantined block never becomes free while this object lives.
//   A4  A dropped (lost) chunk gives out nothing and counts for nothing. Its bits are kept up to date all the same:
//       when it is restored it has free what was free, and what was freed meanwhile.
//   A5  free_blocks() is the number of clear bits of chunks that are neither dropped nor suspended; so allocate() gives
//       all or nothing. pending_blocks() counts the same chunks.
//   A6  A suspended chunk (its node is silent) gives out nothing and its free and pending blocks do not count. What is
//       freed in it meanwhile is remembered, and counts again when it is resumed. A dropped chunk stays dropped then.
// The bitmaps in the store are changed by whoever commits; a reservation is in memory only, and a crash gives it back.
// Cost: independent of the number of chunks (an ordered set holds those with room; the search looks into a few).
// Thread-safe. Rank kAllocator. Never blocks.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "util/ids.h"
#include "util/mutex.h"
#include "util/result.h"

namespace rmemfs {

struct SpaceRun {
  ChunkId chunk;
  std::uint32_t first = 0;  // block
  std::uint32_t count = 0;
};

// Where a file would like to go on.
struct SpaceHint {
  ChunkId chunk;                  // 0: no preference
  std::uint32_t block = 0;        // the one after the file's previous extent
  std::uint64_t file_blocks = 0;  // how large the file is: larger ones get more room to grow in
};

class ExtentAllocator {
 public:
  // `bitmap` as stored (it may be shorter than the chunk). kCorrupt: bits beyond the chunk, or a chunk that is there.
  Result<void> add_chunk(ChunkId chunk, std::uint32_t blocks, std::string_view bitmap);
  void drop_chunk(ChunkId chunk);
  void restore_chunk(ChunkId chunk);
  // These may be repeated, and do nothing to a chunk that is unknown.
  void suspend_chunk(ChunkId chunk);
  void resume_chunk(ChunkId chunk);

  // Reserves `blocks`, in as few runs as it finds quickly. False (and nothing reserved) when fewer are free.
  bool allocate(std::uint64_t blocks, const SpaceHint& hint, std::vector<SpaceRun>& runs);
  // Gives reserved blocks back that were never committed.
  void release(std::span<const SpaceRun> runs);
  // Blocks freed by transaction `id`.
  void free_after(std::span<const SpaceRun> runs, CommitId id);
  // Everything freed at or below `id` may be used again.
  void persisted(CommitId id);
  void quarantine(const SpaceRun& run);

  std::uint64_t free_blocks() const;
  std::uint64_t pending_blocks() const;
  CommitId newest_pending() const;
  // Blocks in use (set bits) of a chunk; 0 for an unknown one.
  std::uint64_t used_blocks(ChunkId chunk) const;

 private:
  struct Space {
    std::uint32_t blocks = 0;
    std::uint32_t free = 0;
    std::uint32_t next = 0;     // where the next file starts
    std::uint64_t pending = 0;  // blocks
    bool dropped = false;
    bool suspended = false;
    bool counts() const { return !dropped && !suspended; }
    std::vector<std::uint64_t> used;
    std::vector<std::uint64_t> quarantined;  // empty: none
  };
  struct Found {
    Space* space = nullptr;
    std::uint64_t chunk = 0;
    std::uint32_t first = 0, count = 0;
  };
  Found pick(std::uint64_t want);
  void take(std::uint64_t chunk, Space& space, std::uint32_t first, std::uint32_t count);
  void give_back(const SpaceRun& run);
  void count(std::uint64_t chunk, const Space& space);
  void discount(std::uint64_t chunk, const Space& space);

  mutable Mutex mutex_{LockRank::kAllocator};
  // Guarded by mutex_:
  std::unordered_map<std::uint64_t, std::unique_ptr<Space>> chunks_;
  std::set<std::uint64_t> with_room_;
  std::uint64_t rover_ = 0;  // chunk that was used last
  std::multimap<CommitId, SpaceRun> pending_;
  std::uint64_t free_ = 0;
  std::uint64_t pending_blocks_ = 0;
};

}  // namespace rmemfs
