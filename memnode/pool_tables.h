// Reads a pool's tables and checks everything in them: for the node that finds its pool again, and for the fuzzer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "memnode/pool_format.h"
#include "util/result.h"

namespace rmemfs {

struct PoolTables {
  struct FileSystem {
    std::uint32_t slot;
    Uuid uuid;
  };
  struct Region {
    std::uint32_t slot;
    RegionState state;  // kLeased or kDirty
  };
  PoolLayout layout;
  std::vector<FileSystem> file_systems;
  std::vector<Region> regions;  // disjoint, each of a file system of the table when leased
};

// `bytes` begins as the file of `file_bytes` does and reaches at least to its data. Errors: check_superblock's, and
// kCorrupt or kChecksum with the table and the entry.
Result<PoolTables> read_pool_tables(std::span<const std::byte> bytes, std::uint64_t file_bytes);

}  // namespace rmemfs
