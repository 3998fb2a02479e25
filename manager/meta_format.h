// Keys and values of the metadata store. Little-endian values, big-endian numbers in keys (so that they sort).
// rmemfs-format(5) is the prose. Encoders never fail; decoders check every byte and return kCorrupt.
//
//   key                                  value
//   'I' ino                              InodeRecord, 128 bytes
//   'D' parent hash name                 DirentRecord: ino 8, type 1, reserved 7
//   'S' ino                              symlink target, 1..4095 bytes
//   'E' ino file_offset                  ExtentRecord: length 8, chunk 8, chunk_offset 8, flags 4, reserved 4
//   'X' ino                              extended attributes: {name length 2, reserved 2, value length 4, name,
//   value}...,
//                                        names ascending
//   'O' ino                              empty: an inode without a name, to be purged (open-unlinked or half purged)
//   'C' chunk                            ChunkRecord: node, region, generation, key, length, state ...
//   'B' chunk                            allocation bitmap, one bit per block (merge: runs to set or clear)
//   'M' name                             singletons: "applied", "uuid", "next_inode", "next_chunk", "inodes" (merge:
//   add)
//
// `hash` = XXH3_64(name, superblock.name_hash_seed) >> 1, at least 3: it is also the readdir cookie; 1 and 2 are . and
// ..
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "transport/connection.h"
#include "util/clock.h"
#include "util/ids.h"
#include "util/result.h"

namespace rmemfs {

inline constexpr std::size_t kMaxNameBytes = 255;
inline constexpr std::size_t kMaxSymlinkBytes = 4095;
inline constexpr std::size_t kMaxExtendedBytes = 65536;  // of an inode's record of attributes
inline constexpr std::size_t kExtendedEntryBytes = 8;    // what an attribute takes besides its name and value
inline constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 62;
inline constexpr std::uint32_t kMaxLinks = 1u << 31;

struct Attributes {
  InodeNumber ino;
  std::uint32_t mode = 0;   // type and permission, as st_mode
  std::uint32_t nlink = 0;  // 0: an orphan
  std::uint32_t uid = 0, gid = 0;
  std::uint32_t rdev = 0;
  std::uint64_t size = 0;
  std::uint64_t blocks = 0;          // allocated blocks of kBlockBytes
  std::uint64_t entries = 0;         // directories: names in it, without . and ..
  InodeNumber parent;                // directories: the parent (root: itself)
  std::uint32_t extended_bytes = 0;  // length of the record of extended attributes; 0: there is none
  Timestamp atime, mtime, ctime, btime;
  bool operator==(const Attributes&) const = default;
};

struct Dirent {
  InodeNumber ino;
  std::uint8_t type = 0;  // DT_*
};

struct Extent {
  std::uint64_t file_offset = 0;  // multiple of kBlockBytes
  std::uint64_t length = 0;       // multiple of kBlockBytes, not 0
  ChunkId chunk;
  std::uint64_t chunk_offset = 0;  // multiple of kBlockBytes
  bool unwritten = false;          // reserved by fallocate: reads as zeros
  std::uint64_t end() const { return file_offset + length; }
  bool operator==(const Extent&) const = default;
};

enum class ChunkState : std::uint8_t { kActive = 1, kLost = 2 };

struct ChunkRecord {
  NodeId node;
  RemoteRegion region;
  ChunkState state = ChunkState::kActive;
};

// A run of blocks in a bitmap merge operand.
struct BlockRun {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
  bool set = true;
};

using ExtendedAttributes = std::map<std::string, std::string, std::less<>>;

std::uint64_t hash_name(std::string_view name, std::uint64_t seed);

std::string inode_key(InodeNumber ino);
std::string dirent_key(InodeNumber parent, std::uint64_t hash, std::string_view name);
std::string symlink_key(InodeNumber ino);
std::string extent_key(InodeNumber ino, std::uint64_t file_offset);
std::string extended_key(InodeNumber ino);
std::string orphan_key(InodeNumber ino);
std::string chunk_key(ChunkId chunk);
std::string bitmap_key(ChunkId chunk);
std::string singleton_key(std::string_view name);

std::string encode(const Attributes& attributes);
std::string encode(const Dirent& dirent);
std::string encode(const Extent& extent);  // without file_offset, which is in the key
std::string encode(const ChunkRecord& chunk);
std::string encode_extended(const ExtendedAttributes& attributes);  // empty when there are none
std::string encode_runs(std::span<const BlockRun> runs);
std::string encode_number(std::uint64_t number);

struct DirentKey {
  InodeNumber parent;
  std::uint64_t hash = 0;
  std::string_view name;
};

Result<InodeNumber> decode_inode_key(std::string_view key);  // also symlink, attributes and orphan keys
Result<DirentKey> decode_dirent_key(std::string_view key);
Result<ChunkId> decode_chunk_key(std::string_view key);  // also bitmap keys
Result<Attributes> decode_inode(std::string_view key, std::string_view value);
Result<Dirent> decode_dirent(std::string_view value);
Result<Extent> decode_extent(std::string_view key, std::string_view value);
Result<ChunkRecord> decode_chunk(std::string_view value);
Result<ExtendedAttributes> decode_extended(std::string_view value);
Result<std::uint64_t> decode_number(std::string_view value);

// What a kMerge does, in RocksDB's merge operator, in recovery's view and in fsck's: `value` becomes the merged value.
// Idempotence is not needed (the watermark sees to exactly once). kCorrupt on malformed operands or values.
Result<void> apply_merge(std::string_view key, std::string& value, std::string_view operand);

}  // namespace rmemfs
