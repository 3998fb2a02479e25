// Invariants of a sound pool, checked here:
//   P1  an entry whose state counts has a valid CRC and zero reserved bytes
//   P2  no two file systems have one uuid, no two regions one id; every id is below the superblock's next one
//   P3  regions lie inside the data, in whole pages, and do not overlap
//   P4  a leased region belongs to a file system of the table and to the pool's generation
// What a free entry holds is not looked at: it may be half-written.
#include "memnode/pool_tables.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <unordered_set>

#include "memnode/region_allocator.h"

namespace rmemfs {
namespace {

Error damaged(Errc code, const char* table, std::uint32_t slot, const char* what) {
  return Error(code, "pool", std::string(table) + " entry " + std::to_string(slot) + " " + what);
}

template <typename Entry>
Entry load(std::span<const std::byte> bytes, std::uint64_t offset, std::uint32_t slot) {
  Entry entry;
  std::memcpy(&entry, bytes.data() + offset + slot * sizeof(Entry), sizeof entry);
  return entry;
}

template <std::size_t size>
bool all_zero(const std::array<std::byte, size>& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

Result<void> read_file_systems(std::span<const std::byte> bytes, PoolTables& tables, std::set<Uuid>& known) {
  constexpr const char* kTable = "file system table";
  for (std::uint32_t slot = 0; slot < kFileSystemSlots; ++slot) {
    const auto entry = load<FileSystemEntry>(bytes, tables.layout.file_systems_offset, slot);
    if (entry.state == static_cast<std::uint64_t>(FileSystemState::kFree)) continue;
    if (entry.state != static_cast<std::uint64_t>(FileSystemState::kUsed)) {
      return damaged(Errc::kCorrupt, kTable, slot, "has an unknown state");
    }
    if (entry.crc != checksum(entry)) return damaged(Errc::kChecksum, kTable, slot, "has a wrong checksum");
    if (!all_zero(entry.reserved)) return damaged(Errc::kCorrupt, kTable, slot, "has reserved bytes set");
    const Uuid uuid{entry.uuid};
    if (uuid.is_zero() || !known.insert(uuid).second) {
      return damaged(Errc::kCorrupt, kTable, slot, "repeats or lacks a uuid");
    }
    tables.file_systems.push_back({slot, uuid});
  }
  return success();
}

}  // namespace

Result<PoolTables> read_pool_tables(std::span<const std::byte> bytes, std::uint64_t file_bytes) {
  constexpr const char* kTable = "region table";
  if (bytes.size() < sizeof(PoolSuperblock)) return Error(Errc::kCorrupt, "pool", "shorter than its superblock");
  const auto superblock = load<PoolSuperblock>(bytes, 0, 0);
  PoolTables tables;
  ASSIGN_OR_RETURN(tables.layout, check_superblock(superblock, file_bytes));
  if (bytes.size() < tables.layout.data_offset) return Error(Errc::kCorrupt, "pool", "shorter than its tables");
  std::set<Uuid> known;
  RETURN_IF_ERROR(read_file_systems(bytes, tables, known));

  RegionAllocator room(tables.layout.data_bytes, kPoolPage, kHugePage);
  std::unordered_set<std::uint64_t> ids;
  for (std::uint32_t slot = 0; slot < tables.layout.region_slots; ++slot) {
    const auto entry = load<RegionEntry>(bytes, tables.layout.regions_offset, slot);
    if (entry.state == static_cast<std::uint64_t>(RegionState::kFree)) continue;
    if (entry.state > static_cast<std::uint64_t>(RegionState::kDirty)) {
      return damaged(Errc::kCorrupt, kTable, slot, "has an unknown state");
    }
    const auto state = static_cast<RegionState>(entry.state);
    if (entry.crc != checksum(entry)) return damaged(Errc::kChecksum, kTable, slot, "has a wrong checksum");
    if (!all_zero(entry.reserved)) return damaged(Errc::kCorrupt, kTable, slot, "has reserved bytes set");
    if (entry.id == 0 || entry.id >= superblock.next_region || !ids.insert(entry.id).second) {
      return damaged(Errc::kCorrupt, kTable, slot, "has an impossible id");
    }
    if (entry.generation != superblock.generation) {
      return damaged(Errc::kCorrupt, kTable, slot, "is of another generation");
    }
    if (!room.take_exactly({entry.offset, entry.length})) {
      return damaged(Errc::kCorrupt, kTable, slot, "overlaps another or leaves the pool");
    }
    if (state == RegionState::kLeased && !known.contains(Uuid{entry.file_system})) {
      return damaged(Errc::kCorrupt, kTable, slot, "belongs to an unknown file system");
    }
    tables.regions.push_back({slot, state});
  }
  return tables;
}

}  // namespace rmemfs
