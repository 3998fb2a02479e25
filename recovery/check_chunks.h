// Chunk records, and what the nodes' leases can say about one that is damaged or missing; extents that share blocks;
// and ranges whose bytes cannot be found any more. Parts of the extents pass.
//
// A range whose extent is damaged must not become a hole: it would read as zeros, as if nobody had written there. It
// gets an extent in a chunk that was never leased and is lost from the beginning: reading there is EIO, the file is
// listed with the lost ones, and truncating or removing it makes the chunk go away as every lost one does.
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

// Extents for [offset, offset + length) of a file, in lost chunks made for the purpose (whole blocks; at most one
// chunk's length each). Gathers the chunk's record, its bitmap and the next chunk's number; the caller puts the
// extents, in the same batch. Invalidates pointers to the context's chunks.
std::vector<Extent> lost_extents(CheckContext& context, std::uint64_t offset, std::uint64_t length);

ChunkRecord record_of(const LeasedRegion& lease, NodeId node);

// Blocks [first, end) of a chunk that more than one extent claims.
struct ClaimedRun {
  ChunkId chunk;
  std::uint64_t first = 0;
  std::uint64_t end = 0;
};
Result<void> settle_shared(CheckContext& context, std::vector<ClaimedRun> conflicts);

}  // namespace rmemfs
