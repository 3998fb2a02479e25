// Chunk records, and what the nodes' leases can say about one that is damaged or missing; extents that share blocks.
// Parts of the extents pass.
#pragma once

#include <vector>

#include "recovery/check_context.h"

namespace rmemfs {

// Fills context.chunks from the chunk records; repairs damaged ones.
Result<void> check_chunks(CheckContext& context);

// What can be done about a chunk without a readable record.
struct ChunkRescue {
  enum class Kind : std::uint8_t {
    kLease,     // a node holds a region for it: `record` is right again
    kLost,      // no node does: `record` says so, and reading there is an error
    kUnsure,    // a node that may hold it did not answer
    kNeverWas,  // a number that no chunk has had: whatever names it is wrong
  };
  Kind kind = Kind::kNeverWas;
  ChunkRecord record;
};
Result<ChunkRescue> plan_rescue(const CheckContext& context, ChunkId id);
// Stores the rescued record (kLease, kLost) and gives the chunk its place in the table.
ChunkInfo* install_rescued(CheckContext& context, ChunkId id, const ChunkRescue& rescue);

ChunkRecord record_of(const LeasedRegion& lease, NodeId node);

// Blocks [first, end) of a chunk that more than one extent claims.
struct ClaimedRun {
  ChunkId chunk;
  std::uint64_t first = 0;
  std::uint64_t end = 0;
};
Result<void> settle_shared(CheckContext& context, std::vector<ClaimedRun> conflicts);

}  // namespace rmemfs
