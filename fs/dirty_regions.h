// What fsync has to make persistent: per inode, the regions written since, with the lane whose connection wrote them
// (a PERSIST covers the earlier writes of its own connection only). Regions that need nothing are never recorded.
//
// Entries are numbered: fsync copies them, persists them, and removes those that were not written again meanwhile. So
// two fsyncs at once both wait for the data, and a failed one leaves its entries for the next.
// An entry knows in which boot of the node's host its bytes were written. A PERSIST of another boot cannot speak for
// them: they may be gone, and fsync says so: for a while, because without open files nobody knows who has heard it
// already. Thread-safe; rank kLeaf. Bound: kMostEntries of (inode, lane, chunk). A file that nobody ever fsyncs keeps
// its entries, so the table may be full: then written() says so, and the writer makes its own write persistent at once.
// (To gather the entries of many inodes in one would let a dead node fail the fsync of files that have nothing there.)
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "manager/manager.h"
#include "util/clock.h"
#include "util/ids.h"
#include "util/mutex.h"

namespace rmemfs {

class DirtyRegions {
 public:
  struct Entry {
    std::uint32_t lane;
    const Chunk* chunk;
    std::uint64_t version;             // of the last write
    std::uint64_t boot;                // of the first write (Operation::boot); 0: not known
    bool mixed = false;                // a later write was in another boot
    std::optional<TimePoint> doubted;  // since when fsync says so
  };
  using Entries = std::vector<Entry>;

  // True when `chunk` needs a PERSIST before its writes are as durable as its region promises.
  static bool needs_persist(const Chunk& chunk) { return chunk.region.durability.method != PersistMethod::kNone; }

  // False: there is no room for it; the caller persists the region itself, on that lane, before it reports the write.
  [[nodiscard]] bool written(InodeNumber ino, std::uint32_t lane, const Chunk& chunk, std::uint64_t boot);
  // Whether a PERSIST in the boot `persisted` speaks for what was written in the boot `written`.
  static bool kept(std::uint64_t written, std::uint64_t persisted) {
    return written == 0 || persisted == 0 || written == persisted;
  }
  Entries snapshot(InodeNumber ino) const;
  void persisted(InodeNumber ino, const Entries& entries);
  // A PERSIST cannot speak for these. True: the caller's fsync has to say so; the entries stay. False: it was said for
  // kToldFor, and they are gone.
  bool doubted(InodeNumber ino, const Entries& entries, TimePoint now);
  void forget(InodeNumber ino);  // purged

  static constexpr std::chrono::seconds kToldFor{5};

  static constexpr std::size_t kShards = 16;
  static constexpr std::size_t kMostEntries = 65536;  // a shard has its part

 private:
  struct alignas(64) Shard {
    mutable Mutex mutex{LockRank::kLeaf};
    std::unordered_map<std::uint64_t, Entries> inodes;  // guarded by mutex
    std::uint64_t version = 0;                          // guarded by mutex
    std::size_t entries = 0;                            // guarded by mutex: of all inodes
  };
  Shard& shard(InodeNumber ino) { return shards_[ino.value() % kShards]; }
  const Shard& shard(InodeNumber ino) const { return shards_[ino.value() % kShards]; }
  std::array<Shard, kShards> shards_;
};

}  // namespace rmemfs
