// The checker's passes on a small file system whose records are changed at will: they do not crash, -n finds what -y
// repairs, and after a repair nothing is found.
//
// Input: a sequence of changes, each 4 bytes {what, which record, where, value} and then what it needs. The store is a
// map in memory, so that thousands of file systems are checked in a second.
#include <dirent.h>
#include <sys/stat.h>

#include <cstdint>
#include <cstdio>
#include <map>

#include "recovery/check_context.h"
#include "util/bytes.h"
#include "util/check.h"

namespace rmemfs {
namespace {

using Records = std::map<std::string, std::string>;

class MapIterator final : public MetaIterator {
 public:
  MapIterator(const Records& records, std::string_view prefix)
      : records_(records), prefix_(prefix), at_(records_.lower_bound(prefix_)) {}
  void seek(std::string_view key) override { at_ = records_.lower_bound(std::string(key)); }
  bool valid() const override { return at_ != records_.end() && at_->first.starts_with(prefix_); }
  void next() override { ++at_; }
  std::string_view key() const override { return at_->first; }
  std::string_view value() const override { return at_->second; }
  Result<void> status() const override { return success(); }

 private:
  const Records records_;  // a snapshot, as RocksDB's
  const std::string prefix_;
  Records::const_iterator at_;
};

class MapStore final : public Metastore {
 public:
  explicit MapStore(Records& records) : records_(records) {}
  Result<void> apply(std::span<const Modification> modifications, CommitId) override {
    for (const Modification& m : modifications) {
      CHECK(m.kind != ModificationKind::kMerge);
      if (m.kind == ModificationKind::kPut)
        records_[std::string(m.key)] = std::string(m.value);
      else
        records_.erase(std::string(m.key));
    }
    return success();
  }
  Result<CommitId> make_durable() override { return CommitId(); }
  CommitId durable_watermark() const override { return {}; }
  Result<std::optional<std::string>> get(std::string_view key) override {
    const auto it = records_.find(std::string(key));
    return it == records_.end() ? std::optional<std::string>() : std::optional<std::string>(it->second);
  }
  std::unique_ptr<MetaIterator> iterate(std::string_view prefix) override {
    return std::make_unique<MapIterator>(records_, prefix);
  }
  void overlay_insert(const TransactionBuilder&, CommitId) override {}
  void overlay_drop(CommitId) override {}
  std::size_t overlay_entries() const override { return 0; }
  Result<void> overlay_replay(std::span<const Modification>) override { return success(); }
  std::uint64_t approximate_bytes() const override { return 0; }

 private:
  Records& records_;
};

struct World {
  Records records;
  std::vector<LeasedRegion> leases;
  Superblock superblock;
};

class WorldClient final : public NodeClient {
 public:
  explicit WorldClient(World& world) : world_(world) {}
  Result<NodeDescription> describe(std::uint32_t) override {
    NodeDescription description;
    description.generation = Generation(7);
    return description;
  }
  Result<LeasedRegion> lease(const FileSystemIdentity&, std::uint64_t, std::uint64_t, std::uint64_t,
                             std::uint32_t) override {
    return Error(Errc::kNoSpace, "fuzz");
  }
  Result<void> release(const FileSystemIdentity&, RegionId region, std::uint32_t) override {
    return std::erase_if(world_.leases, [&](const LeasedRegion& lease) { return lease.id == region; }) != 0
               ? success()
               : Result<void>(Error(Errc::kNotFound, "fuzz"));
  }
  Result<std::vector<LeasedRegion>> list(const FileSystemIdentity&, std::uint32_t) override { return world_.leases; }
  Result<void> fence(const FileSystemIdentity&, std::uint32_t) override { return success(); }
  Result<void> forget(const FileSystemIdentity&, std::uint32_t) override { return success(); }
  Result<Generation> heartbeat(std::uint32_t) override { return Generation(7); }

 private:
  World& world_;
};

constexpr std::uint64_t kChunk = 256u << 10;

class Builder {
 public:
  explicit Builder(World& world) : world_(world) {}
  void inode(std::uint64_t ino, std::uint32_t mode, std::uint32_t nlink, std::uint64_t parent = 0,
             std::uint64_t entries = 0, std::uint64_t size = 0, std::uint64_t blocks = 0) {
    Attributes a;
    a.ino = InodeNumber(ino);
    a.mode = mode;
    a.nlink = nlink;
    a.parent = InodeNumber(parent);
    a.entries = entries;
    a.size = size;
    a.blocks = blocks;
    a.ctime.seconds = static_cast<std::int64_t>(ino);
    world_.records[inode_key(a.ino)] = encode(a);
  }
  void name(std::uint64_t parent, const std::string& name, std::uint64_t ino, std::uint8_t type) {
    const std::uint64_t hash = hash_name(name, world_.superblock.name_hash_seed);
    world_.records[dirent_key(InodeNumber(parent), hash, name)] = encode(Dirent{InodeNumber(ino), type});
  }
  void extent(std::uint64_t ino, std::uint64_t block, std::uint64_t chunk, std::uint64_t chunk_block,
              std::uint64_t blocks, bool unwritten = false) {
    const Extent e{block * kBlockBytes, blocks * kBlockBytes, ChunkId(chunk), chunk_block * kBlockBytes, unwritten};
    world_.records[extent_key(InodeNumber(ino), e.file_offset)] = encode(e);
  }
  void chunk(std::uint64_t id, const std::string& bitmap) {
    LeasedRegion lease;
    lease.id = RegionId(id + 10);
    lease.generation = Generation(7);
    lease.length_bytes = kChunk;
    lease.tag = id;
    world_.leases.push_back(lease);
    ChunkRecord record;
    record.region.id = lease.id;
    record.region.generation = lease.generation;
    record.region.length_bytes = kChunk;
    world_.records[chunk_key(ChunkId(id))] = encode(record);
    if (!bitmap.empty()) world_.records[bitmap_key(ChunkId(id))] = bitmap;
  }

 private:
  World& world_;
};

World sound() {
  World world;
  world.superblock.uuid.bytes[0] = std::byte{1};
  world.superblock.chunk_bytes = kChunk;
  world.superblock.name_hash_seed = 99;
  world.superblock.nodes.push_back({NodeId(0), "shm:/0"});
  Builder b(world);
  b.inode(1, S_IFDIR | 0755, 4, 1, 4);
  b.inode(2, S_IFDIR | 0755, 3, 1, 2);
  b.inode(3, S_IFDIR | 0755, 2, 2, 1);
  b.inode(4, S_IFREG | 0644, 2, 0, 0, 20000, 5);
  b.inode(5, S_IFREG | 0644, 1, 0, 0, 4096, 3);
  b.inode(6, S_IFLNK | 0777, 1, 0, 0, 3);
  b.inode(7, S_IFREG | 0644, 0, 0, 0, 4096, 1);
  b.inode(8, S_IFDIR | 0755, 2, 1, 0);
  b.name(1, "d", 2, DT_DIR);
  b.name(1, "a", 4, DT_REG);
  b.name(1, "s", 6, DT_LNK);
  b.name(1, "lost+found", 8, DT_DIR);
  b.name(2, "e", 3, DT_DIR);
  b.name(2, "a2", 4, DT_REG);
  b.name(3, "f", 5, DT_REG);
  world.records[symlink_key(InodeNumber(6))] = "abc";
  world.records[orphan_key(InodeNumber(7))] = "";
  b.extent(4, 0, 1, 0, 3);
  b.extent(4, 3, 2, 8, 2);
  b.extent(5, 0, 1, 3, 1);
  b.extent(5, 4, 1, 6, 2, true);
  b.extent(7, 0, 2, 0, 1);
  b.chunk(1, std::string("\xcf", 1));
  b.chunk(2, std::string("\x01\x03", 2));
  world.records[singleton_key("inodes")] = encode_number(8);
  world.records[singleton_key("next_inode")] = encode_number(9);
  world.records[singleton_key("next_chunk")] = encode_number(3);
  return world;
}

void change_value(std::string& value, unsigned what, std::uint8_t where, std::uint8_t to) {
  if (value.empty()) return void(value.push_back(static_cast<char>(to)));
  if (what == 1) value[where % value.size()] ^= static_cast<char>(1u << to % 8);
  if (what == 2) value.resize(where % (value.size() + 1));
  if (what == 3 && value.size() >= 8) {
    const std::uint64_t number = to >= 250   ? std::uint64_t{1} << (to - 190)
                                 : to >= 128 ? (to - 128u) * kBlockBytes
                                             : to;
    std::memcpy(&value[where % (value.size() / 8) * 8], &number, 8);
  }
}

void apply_changes(World& world, ByteReader input) {
  for (unsigned changes = 0; changes < 16 && input.remaining() >= 4; ++changes) {
    const unsigned what = input.take<std::uint8_t>() % 8;
    const std::size_t which = input.take<std::uint8_t>();
    const auto where = input.take<std::uint8_t>();
    const auto to = input.take<std::uint8_t>();
    if (world.records.empty()) return;
    auto record = std::next(world.records.begin(), static_cast<std::ptrdiff_t>(which % world.records.size()));
    std::string key = record->first, value = record->second;
    switch (what) {
      case 0:
        world.records.erase(record);
        break;
      case 1:
      case 2:
      case 3:
        change_value(record->second, what, where, to);
        break;
      case 4:
        key[where % key.size()] = static_cast<char>(to);
        world.records[key] = value;
        break;
      case 5:
        world.records.erase(record);
        key[where % key.size()] ^= static_cast<char>(1u << to % 8);
        world.records[key] = value;
        break;
      case 6: {
        static constexpr char kFamilies[] = "IDSEOCBM";
        key = kFamilies[where % 8] +
              std::string(as_text(input.take_bytes(std::min<std::size_t>(to % 32, input.remaining()))));
        world.records[key] = value;
        break;
      }
      default:
        if (world.leases.empty()) break;
        LeasedRegion& lease = world.leases[which % world.leases.size()];
        if (where % 4 == 0)
          lease.tag = to;
        else if (where % 4 == 1)
          lease.length_bytes = to * std::uint64_t{kBlockBytes};
        else if (where % 4 == 2)
          lease.generation = Generation(to);
        else
          world.leases.erase(world.leases.begin() + static_cast<std::ptrdiff_t>(which % world.leases.size()));
    }
  }
}

CheckReport check(World& world, Answers answers) {
  CheckOptions options;
  options.answers = answers;
  options.batch_modifications = 2;
  options.connect = [&](const std::string&) -> Result<std::unique_ptr<NodeClient>> {
    return std::make_unique<WorldClient>(world);
  };
  CheckReport report;
  CheckContext context(options, report);
  context.superblock = world.superblock;
  context.store = std::make_unique<MapStore>(world.records);
  const auto passed = run_passes(context);
  CHECK(passed.ok());
  CHECK(resolve_paths(context).ok());
  return report;
}

void explain(const char* what, const CheckReport& report) {
  std::fprintf(stderr, "%s:\n", what);
  for (const Problem& problem : report.problems) std::fprintf(stderr, "  %s\n", problem.message().c_str());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  World world = sound();
  apply_changes(world, ByteReader({reinterpret_cast<const std::byte*>(data), size}));
  const Records before = world.records;
  const CheckReport looked = check(world, Answers::kNone);
  CHECK(world.records == before);
  const CheckReport repaired = check(world, Answers::kAll);
  const CheckReport again = check(world, Answers::kAll);
  const bool right = looked.found == repaired.found && repaired.uncorrected() == 0 && again.found == 0 &&
                     (size >= 4 || repaired.found == 0);
  if (!right) {
    explain("read only", looked);
    explain("repair", repaired);
    explain("again", again);
  }
  CHECK(right);
  return 0;
}

}  // namespace rmemfs
