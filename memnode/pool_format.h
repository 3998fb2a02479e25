// The pool's format: what a memory node keeps at the head of the memory that it lends, so that a node that was killed
// finds its regions again.
//
//   0                    superblock, one page; written once, never changed afterwards
//   file_systems_offset  table of file systems, kFileSystemSlots entries
//   regions_offset       table of regions, region_slots entries
//   data_offset          what is lent, data_bytes
//
// Little-endian, fixed width. Reserved bytes are zero and checked. What changes, changes by one aligned 8-byte store:
// an entry's other fields are written (and made persistent) while its state says that they do not count.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "util/ids.h"
#include "util/result.h"

namespace rmemfs {

inline constexpr std::uint64_t kPoolMagic = 0x4c4f4f504d454d52;  // "RMEMPOOL"
inline constexpr std::uint32_t kPoolVersion = 1;
inline constexpr std::uint64_t kPoolPage = 4096;
inline constexpr std::uint64_t kHugePage = 2u << 20;
inline constexpr std::uint32_t kFileSystemSlots = 1024;
inline constexpr std::uint64_t kMaxPoolBytes = std::uint64_t{1} << 46;  // 64 TiB

// Feature bits, ext4's rule: an unknown incompatible one refuses, an unknown read-only one refuses to lend, an unknown
// compatible one is ignored. None is defined yet.
inline constexpr std::uint32_t kPoolKnownReadOnlyFeatures = 0;
inline constexpr std::uint32_t kPoolKnownIncompatFeatures = 0;

// Plain numbers in these structs: they are a format, and are copied to and from media as they are.
struct PoolSuperblock {
  std::uint64_t magic;                   // 0
  std::uint32_t version;                 // 8
  std::uint32_t crc;                     // 12: CRC32C of the page with this field zero
  std::array<std::byte, 16> uuid;        // 16
  std::uint64_t generation;              // 32: never 0
  std::uint32_t compat_features;         // 40
  std::uint32_t ro_compat_features;      // 44
  std::uint32_t incompat_features;       // 48
  std::uint32_t persistent;              // 52: 1: on persistent memory, keeps its contents when the host restarts
  std::uint64_t file_bytes;              // 56
  std::uint64_t file_systems_offset;     // 64
  std::uint64_t regions_offset;          // 72
  std::uint64_t region_slots;            // 80
  std::uint64_t data_offset;             // 88
  std::uint64_t data_bytes;              // 96
  std::array<std::byte, 16> boot;        // 104: the host's boot id when it was made
  std::array<std::byte, 3968> reserved;  // 120
  std::uint64_t next_region;             // 4088: not covered by the CRC; the lowest id never given out
};
static_assert(sizeof(PoolSuperblock) == kPoolPage);
static_assert(offsetof(PoolSuperblock, uuid) == 16 && offsetof(PoolSuperblock, generation) == 32);
static_assert(offsetof(PoolSuperblock, file_bytes) == 56 && offsetof(PoolSuperblock, data_bytes) == 96);
static_assert(offsetof(PoolSuperblock, boot) == 104 && offsetof(PoolSuperblock, reserved) == 120);
static_assert(offsetof(PoolSuperblock, next_region) == 4088);

enum class FileSystemState : std::uint64_t { kFree = 0, kUsed = 1 };

struct FileSystemEntry {
  std::uint64_t epoch;                 // 0: read atomically by same-host agents; not covered by the CRC
  std::uint64_t state;                 // 8: FileSystemState; not covered by the CRC
  std::array<std::byte, 16> uuid;      // 16
  std::array<std::byte, 16> key;       // 32
  std::uint32_t crc;                   // 48: CRC32C of uuid and key
  std::array<std::byte, 76> reserved;  // 52
};
static_assert(sizeof(FileSystemEntry) == 128);
static_assert(offsetof(FileSystemEntry, key) == 32 && offsetof(FileSystemEntry, crc) == 48);

enum class RegionState : std::uint64_t { kFree = 0, kLeased = 1, kDirty = 2 };  // dirty: released, not zeroed yet

struct RegionEntry {
  std::uint64_t state;                    // 0: RegionState; not covered by the CRC
  std::uint64_t id;                       // 8
  std::uint64_t offset;                   // 16: from data_offset
  std::uint64_t length;                   // 24
  std::array<std::byte, 16> file_system;  // 32
  std::array<std::byte, 16> key;          // 48
  std::uint64_t tag;                      // 64
  std::uint64_t generation;               // 72: the pool's when it was leased
  std::uint32_t crc;                      // 80: CRC32C of bytes 8 to 80
  std::array<std::byte, 44> reserved;     // 84
};
static_assert(sizeof(RegionEntry) == 128);
static_assert(offsetof(RegionEntry, file_system) == 32 && offsetof(RegionEntry, key) == 48);
static_assert(offsetof(RegionEntry, tag) == 64 && offsetof(RegionEntry, crc) == 80);

// Where things are in a pool that lends `data_bytes`, in a file whose size is a multiple of `granule`.
struct PoolLayout {
  std::uint64_t file_systems_offset = 0, regions_offset = 0, region_slots = 0, data_offset = 0, data_bytes = 0;
  std::uint64_t file_bytes = 0;
  auto operator<=>(const PoolLayout&) const = default;
  // kInvalid: no multiple of 4 KiB, or out of range.
  static Result<PoolLayout> make(std::uint64_t data_bytes, std::uint64_t granule);
};

std::uint32_t checksum(const PoolSuperblock& superblock);
std::uint32_t checksum(const FileSystemEntry& entry);
std::uint32_t checksum(const RegionEntry& entry);

// Does this page begin a pool (of any version)?
bool looks_like_pool(std::span<const std::byte> page);
// Checks everything in the superblock against itself and the file's size. kNotFormatted (no pool), kVersion,
// kUnsupportedFeature, kChecksum, kCorrupt; each with a detail.
Result<PoolLayout> check_superblock(const PoolSuperblock& superblock, std::uint64_t file_bytes);

}  // namespace rmemfs
