// Encodings of the metadata store's keys and values. Each value is a fixed struct whose reserved bytes are zero.
#include "manager/meta_format.h"

#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "manager/superblock.h"
#include "util/bytes.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kUnwrittenFlag = 1;
constexpr std::uint32_t kRunSetBit = 1u << 31;

struct InodeRecord {
  std::uint32_t mode;              //   0
  std::uint32_t nlink;             //   4
  std::uint32_t uid;               //   8
  std::uint32_t gid;               //  12
  std::uint32_t rdev;              //  16
  std::uint32_t nanoseconds[4];    //  20  atime, mtime, ctime, btime
  std::uint32_t extended_bytes;    //  36
  std::uint64_t size;              //  40
  std::uint64_t blocks;            //  48
  std::uint64_t entries;           //  56
  std::uint64_t parent;            //  64
  std::int64_t seconds[4];         //  72
  std::uint8_t reserved_tail[24];  // 104
};
static_assert(sizeof(InodeRecord) == 128);
static_assert(offsetof(InodeRecord, nanoseconds) == 20);
static_assert(offsetof(InodeRecord, size) == 40);
static_assert(offsetof(InodeRecord, seconds) == 72);
static_assert(offsetof(InodeRecord, reserved_tail) == 104);

struct DirentRecord {
  std::uint64_t ino;         //   0
  std::uint8_t type;         //   8
  std::uint8_t reserved[7];  //   9
};
static_assert(sizeof(DirentRecord) == 16 && offsetof(DirentRecord, reserved) == 9);

struct ExtentRecord {
  std::uint64_t length;        //   0
  std::uint64_t chunk;         //   8
  std::uint64_t chunk_offset;  //  16
  std::uint32_t flags;         //  24
  std::uint32_t reserved;      //  28
};
static_assert(sizeof(ExtentRecord) == 32 && offsetof(ExtentRecord, flags) == 24);

struct ChunkRecordBytes {
  std::uint32_t node;           //   0
  std::uint8_t state;           //   4
  std::uint8_t durability;      //   5
  std::uint8_t persist_method;  //   6
  std::uint8_t reserved;        //   7
  std::uint64_t region;         //   8
  std::uint64_t generation;     //  16
  std::uint64_t length;         //  24
  std::uint64_t address;        //  32
  std::uint32_t rkey;           //  40
  std::uint32_t reserved2;      //  44
  std::uint8_t key[16];         //  48
};
static_assert(sizeof(ChunkRecordBytes) == 64 && offsetof(ChunkRecordBytes, region) == 8 &&
              offsetof(ChunkRecordBytes, key) == 48);

Error damaged(const char* what) { return Error(Errc::kCorrupt, what); }

template <typename Record>
std::string to_bytes(const Record& record) {
  return std::string(reinterpret_cast<const char*>(&record), sizeof record);
}

template <typename Record>
bool from_bytes(std::string_view value, Record& record) {
  if (value.size() != sizeof record) return false;
  std::memcpy(&record, value.data(), sizeof record);
  return true;
}

template <typename Bytes>
bool all_zero(const Bytes& bytes) {
  return std::all_of(std::begin(bytes), std::end(bytes), [](auto byte) { return byte == 0; });
}

std::string number_key(char type, std::uint64_t number) {
  std::string key(1, type);
  append_be64(key, number);
  return key;
}

// A type letter out of `types` and one number that is not 0.
std::optional<std::uint64_t> number_of(std::string_view key, std::string_view types) {
  if (key.size() != 9 || types.find(key[0]) == std::string_view::npos) return std::nullopt;
  ByteReader reader(as_bytes(key.substr(1)));
  const std::uint64_t number = reader.take_be64();
  if (number == 0) return std::nullopt;
  return number;
}

bool known_file_type(std::uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
      return true;
    default:
      return false;
  }
}

Result<void> merge_runs(std::string& bitmap, std::string_view operand) {
  if (operand.size() % 8 != 0 || bitmap.size() > kMaxChunkBlocks / 8) return damaged("allocation bitmap");
  ByteReader reader(as_bytes(operand));
  while (reader.remaining() != 0) {
    const auto first = reader.take<std::uint32_t>();
    const auto word = reader.take<std::uint32_t>();
    const std::uint32_t count = word & ~kRunSetBit;
    const bool set = (word & kRunSetBit) != 0;
    if (count == 0 || count > kMaxChunkBlocks || first > kMaxChunkBlocks - count) return damaged("allocation run");
    const std::size_t bytes = (std::size_t{first} + count + 7) / 8;
    if (bitmap.size() < bytes) bitmap.resize(bytes, '\0');
    for (std::uint32_t block = first; block < first + count; ++block) {
      const auto mask = static_cast<char>(1u << (block % 8));
      char& byte = bitmap[block / 8];
      byte = static_cast<char>(set ? byte | mask : byte & ~mask);
    }
  }
  return success();
}

Result<void> merge_sum(std::string& value, std::string_view operand) {
  if (operand.size() % 8 != 0) return damaged("counter operand");
  std::uint64_t sum = 0;
  if (!value.empty()) {
    ASSIGN_OR_RETURN(sum, decode_number(value));
  }
  ByteReader reader(as_bytes(operand));
  while (reader.remaining() != 0) {
    const auto delta = reader.take<std::int64_t>();
    const bool bad = delta < 0 ? sum < std::uint64_t{0} - static_cast<std::uint64_t>(delta)
                               : sum > UINT64_MAX - static_cast<std::uint64_t>(delta);
    if (bad) return damaged("counter");
    sum += static_cast<std::uint64_t>(delta);
  }
  value = encode_number(sum);
  return success();
}

}  // namespace

std::uint64_t hash_name(std::string_view name, std::uint64_t seed) {
  return std::max<std::uint64_t>(XXH3_64bits_withSeed(name.data(), name.size(), seed) >> 1, 3);
}

std::string inode_key(InodeNumber ino) { return number_key('I', ino.value()); }
std::string symlink_key(InodeNumber ino) { return number_key('S', ino.value()); }
std::string extended_key(InodeNumber ino) { return number_key('X', ino.value()); }
std::string orphan_key(InodeNumber ino) { return number_key('O', ino.value()); }
std::string chunk_key(ChunkId chunk) { return number_key('C', chunk.value()); }
std::string bitmap_key(ChunkId chunk) { return number_key('B', chunk.value()); }
std::string singleton_key(std::string_view name) { return "M" + std::string(name); }

std::string dirent_key(InodeNumber parent, std::uint64_t hash, std::string_view name) {
  std::string key;
  key.reserve(17 + name.size());
  key += 'D';
  append_be64(key, parent.value());
  append_be64(key, hash);
  key += name;
  return key;
}

std::string extent_key(InodeNumber ino, std::uint64_t file_offset) {
  std::string key = number_key('E', ino.value());
  append_be64(key, file_offset);
  return key;
}

std::string encode(const Attributes& a) {
  InodeRecord r{};
  r.mode = a.mode;
  r.nlink = a.nlink;
  r.uid = a.uid;
  r.gid = a.gid;
  r.rdev = a.rdev;
  r.size = a.size;
  r.blocks = a.blocks;
  r.entries = a.entries;
  r.parent = a.parent.value();
  r.extended_bytes = a.extended_bytes;
  const std::array times = {a.atime, a.mtime, a.ctime, a.btime};
  for (std::size_t i = 0; i < times.size(); ++i) {
    r.seconds[i] = times[i].seconds;
    r.nanoseconds[i] = times[i].nanoseconds;
  }
  return to_bytes(r);
}

std::string encode(const Dirent& dirent) {
  DirentRecord r{};
  r.ino = dirent.ino.value();
  r.type = dirent.type;
  return to_bytes(r);
}

std::string encode(const Extent& extent) {
  ExtentRecord r{};
  r.length = extent.length;
  r.chunk = extent.chunk.value();
  r.chunk_offset = extent.chunk_offset;
  r.flags = extent.unwritten ? kUnwrittenFlag : 0;
  return to_bytes(r);
}

std::string encode(const ChunkRecord& chunk) {
  ChunkRecordBytes r{};
  r.node = chunk.node.value();
  r.state = static_cast<std::uint8_t>(chunk.state);
  r.durability = static_cast<std::uint8_t>(chunk.region.durability.durability);
  r.persist_method = static_cast<std::uint8_t>(chunk.region.durability.method);
  r.region = chunk.region.id.value();
  r.generation = chunk.region.generation.value();
  r.length = chunk.region.length_bytes;
  r.address = chunk.region.address;
  r.rkey = chunk.region.rkey;
  std::memcpy(r.key, chunk.region.key.bytes.data(), sizeof r.key);
  return to_bytes(r);
}

std::string encode_extended(const ExtendedAttributes& attributes) {
  std::string out;
  for (const auto& [name, value] : attributes) {
    append_le(out, static_cast<std::uint16_t>(name.size()));
    append_le(out, std::uint16_t{0});
    append_le(out, static_cast<std::uint32_t>(value.size()));
    out += name;
    out += value;
  }
  return out;
}

std::string encode_runs(std::span<const BlockRun> runs) {
  std::string out;
  for (const BlockRun& run : runs) {
    append_le(out, run.first);
    append_le(out, run.count | (run.set ? kRunSetBit : 0));
  }
  return out;
}

std::string encode_number(std::uint64_t number) {
  std::string out;
  append_le(out, number);
  return out;
}

Result<InodeNumber> decode_inode_key(std::string_view key) {
  const auto number = number_of(key, "ISOX");
  if (!number) return damaged("inode key");
  return InodeNumber(*number);
}

Result<ChunkId> decode_chunk_key(std::string_view key) {
  const auto number = number_of(key, "CB");
  if (!number) return damaged("chunk key");
  return ChunkId(*number);
}

Result<DirentKey> decode_dirent_key(std::string_view key) {
  if (key.size() < 18 || key.size() > 17 + kMaxNameBytes || key[0] != 'D') return damaged("directory entry key");
  ByteReader reader(as_bytes(key.substr(1, 16)));
  DirentKey out;
  out.parent = InodeNumber(reader.take_be64());
  out.hash = reader.take_be64();
  out.name = key.substr(17);
  if (out.parent.value() == 0 || out.hash < 3 || out.hash >> 63 != 0 || out.name == "." || out.name == ".." ||
      out.name.find('/') != std::string_view::npos || out.name.find('\0') != std::string_view::npos) {
    return damaged("directory entry key");
  }
  return out;
}

Result<Attributes> decode_inode(std::string_view key, std::string_view value) {
  Attributes a;
  ASSIGN_OR_RETURN(a.ino, decode_inode_key(key));
  InodeRecord r;
  if (key[0] != 'I' || !from_bytes(value, r)) return damaged("inode record");
  const bool directory = (r.mode & S_IFMT) == S_IFDIR;
  if (!known_file_type(r.mode) || (r.mode & ~(S_IFMT | 07777u)) != 0 || r.nlink > kMaxLinks || r.size > kMaxFileBytes ||
      r.blocks > kMaxFileBytes / kBlockBytes || (!directory && r.entries != 0) ||
      (directory ? r.parent == 0 : r.parent != 0) || r.extended_bytes > kMaxExtendedBytes ||
      !all_zero(r.reserved_tail)) {
    return damaged("inode record");
  }
  a.mode = r.mode;
  a.nlink = r.nlink;
  a.uid = r.uid;
  a.gid = r.gid;
  a.rdev = r.rdev;
  a.size = r.size;
  a.blocks = r.blocks;
  a.entries = r.entries;
  a.parent = InodeNumber(r.parent);
  a.extended_bytes = r.extended_bytes;
  const std::array times = {&a.atime, &a.mtime, &a.ctime, &a.btime};
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (r.nanoseconds[i] >= 1000000000) return damaged("inode record");
    *times[i] = {r.seconds[i], r.nanoseconds[i]};
  }
  return a;
}

Result<Dirent> decode_dirent(std::string_view value) {
  DirentRecord r;
  // The types are DT_*: those of the seven kinds of file, each its S_IF* bits shifted.
  if (!from_bytes(value, r) || r.ino == 0 || !all_zero(r.reserved) || r.type > 15 ||
      !known_file_type(static_cast<std::uint32_t>(r.type) << 12)) {
    return damaged("directory entry");
  }
  return Dirent{InodeNumber(r.ino), r.type};
}

Result<Extent> decode_extent(std::string_view key, std::string_view value) {
  ExtentRecord r;
  if (key.size() != 17 || key[0] != 'E' || !from_bytes(value, r)) return damaged("extent record");
  ByteReader reader(as_bytes(key.substr(1)));
  const std::uint64_t ino = reader.take_be64();
  const std::uint64_t offset = reader.take_be64();
  if (ino == 0 || offset % kBlockBytes != 0 || r.length % kBlockBytes != 0 || r.length == 0 || r.chunk == 0 ||
      r.chunk_offset % kBlockBytes != 0 || r.reserved != 0 || (r.flags & ~kUnwrittenFlag) != 0 ||
      r.length > kMaxChunkBytes || r.chunk_offset > kMaxChunkBytes - r.length || offset > kMaxFileBytes - r.length) {
    return damaged("extent record");
  }
  return Extent{offset, r.length, ChunkId(r.chunk), r.chunk_offset, (r.flags & kUnwrittenFlag) != 0};
}

Result<ChunkRecord> decode_chunk(std::string_view value) {
  ChunkRecordBytes r;
  if (!from_bytes(value, r) || (r.state != 1 && r.state != 2) || r.durability > 2 || r.persist_method > 3 ||
      r.reserved != 0 || r.reserved2 != 0 || r.generation == 0 || r.length == 0 || r.length % kBlockBytes != 0 ||
      r.length > kMaxChunkBytes) {
    return damaged("chunk record");
  }
  ChunkRecord chunk;
  chunk.node = NodeId(r.node);
  chunk.state = static_cast<ChunkState>(r.state);
  chunk.region.id = RegionId(r.region);
  chunk.region.generation = Generation(r.generation);
  std::memcpy(chunk.region.key.bytes.data(), r.key, sizeof r.key);
  chunk.region.length_bytes = r.length;
  chunk.region.address = r.address;
  chunk.region.rkey = r.rkey;
  chunk.region.durability = {static_cast<Durability>(r.durability), static_cast<PersistMethod>(r.persist_method)};
  return chunk;
}

Result<ExtendedAttributes> decode_extended(std::string_view value) {
  ExtendedAttributes all;
  if (value.empty() || value.size() > kMaxExtendedBytes) return damaged("extended attributes");
  while (!value.empty()) {
    if (value.size() < kExtendedEntryBytes) return damaged("extended attributes");
    ByteReader reader(as_bytes(value));
    const std::size_t name = reader.take<std::uint16_t>();
    const auto reserved = reader.take<std::uint16_t>();
    const std::size_t length = reader.take<std::uint32_t>();
    value.remove_prefix(kExtendedEntryBytes);
    if (name == 0 || name > kMaxNameBytes || reserved != 0 || name > value.size() || length > value.size() - name) {
      return damaged("extended attributes");
    }
    const std::string_view key = value.substr(0, name);
    if (key.find('\0') != std::string_view::npos || (!all.empty() && all.rbegin()->first >= key)) {
      return damaged("extended attributes");
    }
    all.emplace_hint(all.end(), key, value.substr(name, length));
    value.remove_prefix(name + length);
  }
  return all;
}

Result<std::uint64_t> decode_number(std::string_view value) {
  if (value.size() != 8) return damaged("number");
  return load_le<std::uint64_t>(as_bytes(value).data());
}

Result<void> apply_merge(std::string_view key, std::string& value, std::string_view operand) {
  if (key == "Minodes") return merge_sum(value, operand);
  if (key.size() == 9 && key[0] == 'B') return merge_runs(value, operand);
  return damaged("merge of a key that has none");
}

}  // namespace rmemfs
