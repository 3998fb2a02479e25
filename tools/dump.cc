// rmemfs-dump: shows what is stored. Never writes, never asks a node, and shows in hexadecimal what it cannot decode.
//
// A mounted file system can be looked at too: what is shown is then a state that it had a moment ago, and the program
// says so. Keys (of the file system and of regions) are secrets and shown only with --keys.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>

#include "manager/meta_format.h"
#include "memnode/pool_format.h"
#include "recovery/recover.h"
#include "tools/cli.h"
#include "tools/dump_output.h"
#include "util/bytes.h"
#include "util/log.h"

namespace rmemfs {
namespace {

using dump::Output;
using dump::Record;

constexpr const char* kProgram = "rmemfs-dump";

struct Arguments {
  std::string what, directory;
  std::uint64_t ino = 0;
  bool json = false, keys = false;
};

class Dumper {
 public:
  Dumper(const Arguments& arguments, Output& output) : arguments_(arguments), output_(output) {}
  Result<void> superblock();
  Result<void> journal();
  Result<void> inode();
  Result<void> tree();
  Result<void> chunks();
  Result<void> extents();
  Result<void> pool();

 private:
  Result<void> open();
  Result<void> each(const std::string& prefix, const std::function<void(std::string_view, std::string_view)>& visit);
  std::string secret(std::span<const std::byte> key) const {
    return arguments_.keys ? dump::hex(as_text(key)) : "(secret)";
  }
  Result<void> subtree(InodeNumber directory, const std::string& path, unsigned depth);
  std::optional<Attributes> attributes(InodeNumber ino);
  void write_attributes(Record& record, const Attributes& a);
  void write_extent(std::string_view key, std::string_view value);

  const Arguments& arguments_;
  Output& output_;
  UniqueFd lock_;
  RecoveredStore store_;
};

void note(const std::string& sentence) { cli::print_error(kProgram, "note: " + sentence); }

// The store with the journal's transactions laid over it. Beside a running mount files come and go while they are
// opened, and slots are written while they are read: a few tries, then the store alone.
Result<void> Dumper::open() {
  ASSIGN_OR_RETURN(store_.superblock, load_superblock(arguments_.directory));
  auto lock = lock_directory(arguments_.directory, LockMode::kShared, kProgram);
  const bool mounted = !lock.ok() && lock.error().code == Errc::kLocked;
  if (lock.ok()) lock_ = std::move(*lock);
  if (mounted) note(arguments_.directory + " is mounted; what is shown may be a moment old");
  RecoverOptions options;
  options.read_only = true;
  options.accept_gap = true;
  options.raise_epoch = false;
  for (int attempt = 0; attempt < (mounted ? 5 : 1); ++attempt) {
    auto opened = recover(arguments_.directory, options);
    if (opened.ok()) {
      store_ = std::move(*opened);
      return success();
    }
    if (!mounted) note("the journal or the metadata store is not as it should be: " + opened.error().message());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ASSIGN_OR_RETURN(store_.metastore, Metastore::open(arguments_.directory + "/db", Metastore::Mode::kReadOnly,
                                                     store_.superblock.uuid, {}));
  note("what the journal alone holds is not shown");
  return success();
}

Result<void> Dumper::each(const std::string& prefix,
                          const std::function<void(std::string_view, std::string_view)>& visit) {
  auto it = store_.metastore->iterate(prefix);
  for (; it->valid(); it->next()) visit(it->key(), it->value());
  return it->status();
}

Result<void> Dumper::superblock() {
  const auto loaded = load_superblock(arguments_.directory);
  if (!loaded.ok()) {
    if (loaded.error().code == Errc::kNotFormatted) return loaded.error();
    std::ostringstream raw;
    raw << std::ifstream(arguments_.directory + "/superblock", std::ios::binary).rdbuf();
    Record record;
    record.text("error", loaded.error().message()).number("length", raw.str().size()).bytes("bytes", raw.str());
    output_.write(record);
    return success();
  }
  Record record;
  record.text("uuid", loaded->uuid.to_string()).text("label", loaded->label);
  record.number("compat", loaded->compat).number("ro_compat", loaded->ro_compat).number("incompat", loaded->incompat);
  record.number("chunk_bytes", loaded->chunk_bytes).number("epoch", loaded->epoch.value());
  record.number("name_hash_seed", loaded->name_hash_seed).text("key", secret(loaded->key.bytes));
  record.number("slot_bytes", loaded->journal.slot_bytes).number("slot_count", loaded->journal.slot_count);
  record.text("journal", journal_path_of(arguments_.directory, *loaded));
  record.number("local_bytes", loaded->local_bytes).text("local_pool", loaded->local_pool);
  record.text("created", dump::time_text(loaded->created, 0));
  output_.write(record);
  for (const NodeRecord& node : loaded->nodes) {
    Record line;
    line.number("node", node.id.value()).text("address", node.address);
    output_.write(line);
  }
  return success();
}

std::string_view state_text(SlotState state) {
  switch (state) {
    case SlotState::kEmpty:
      return "empty";
    case SlotState::kTorn:
      return "torn";
    case SlotState::kStale:
      return "stale";
    case SlotState::kCommitted:
      return "committed";
    case SlotState::kContinuation:
      return "continuation";
  }
  return "unknown";
}

std::string_view kind_text(ModificationKind kind) {
  switch (kind) {
    case ModificationKind::kPut:
      return "put";
    case ModificationKind::kErase:
      return "erase";
    case ModificationKind::kMerge:
      return "merge";
  }
  return "unknown";
}

Result<void> Dumper::journal() {
  ASSIGN_OR_RETURN(const Superblock sb, load_superblock(arguments_.directory));
  PmemOptions mapping;
  mapping.read_only = true;
  ASSIGN_OR_RETURN(const auto memory, map_persistent(journal_path_of(arguments_.directory, sb), mapping));
  CommitId watermark;
  auto store = Metastore::open(arguments_.directory + "/db", Metastore::Mode::kReadOnly, sb.uuid, {});
  if (store.ok())
    watermark = (*store)->durable_watermark();
  else
    note("the watermark is not known, so every transaction is shown as committed: " + store.error().message());
  ASSIGN_OR_RETURN(const JournalScan scan, scan_journal(*memory, sb.uuid, watermark));
  Record head;
  head.number("epoch", scan.epoch).number("slot_bytes", scan.geometry.slot_bytes);
  head.number("slot_count", scan.geometry.slot_count).number("watermark", watermark.value());
  head.number("first", scan.first.value()).number("last", scan.last.value());
  head.number("persisted", scan.highest_persisted.value()).number("discarded", scan.discarded);
  if (scan.missing) head.number("missing", scan.missing->value());
  output_.write(head);
  for (const SlotReport& slot : scan.slots) {
    Record line;
    line.number("slot", slot.slot).text("state", state_text(slot.state)).number("id", slot.id.value());
    line.number("persisted", slot.persisted.value()).number("request", slot.request_id);
    line.number("modifications", slot.modifications).number("bytes", slot.payload_bytes);
    output_.write(line);
    if (slot.state != SlotState::kCommitted) continue;
    std::string storage;
    const auto modifications = read_transaction(*memory, scan, slot.id, storage);
    if (!modifications.ok()) continue;
    for (const Modification& m : *modifications) {
      Record change;
      change.number("id", slot.id.value())
          .text("change", kind_text(m.kind))
          .bytes("key", m.key)
          .bytes("value", m.value);
      output_.write(change);
    }
  }
  return success();
}

std::optional<Attributes> Dumper::attributes(InodeNumber ino) {
  const std::string key = inode_key(ino);
  const auto value = store_.metastore->get(key);
  if (!value.ok() || !*value) return std::nullopt;
  const auto decoded = decode_inode(key, **value);
  return decoded.ok() ? std::optional(*decoded) : std::nullopt;
}

void Dumper::write_attributes(Record& record, const Attributes& a) {
  record.text("mode", dump::mode_text(a.mode)).number("nlink", a.nlink).number("uid", a.uid).number("gid", a.gid);
  record.number("rdev", a.rdev).number("size", a.size).number("blocks", a.blocks);
  record.number("entries", a.entries).number("parent", a.parent.value());
  record.text("atime", dump::time_text(a.atime.seconds, a.atime.nanoseconds));
  record.text("mtime", dump::time_text(a.mtime.seconds, a.mtime.nanoseconds));
  record.text("ctime", dump::time_text(a.ctime.seconds, a.ctime.nanoseconds));
  record.text("btime", dump::time_text(a.btime.seconds, a.btime.nanoseconds));
}

Result<void> Dumper::inode() {
  RETURN_IF_ERROR(open());
  const InodeNumber ino(arguments_.ino);
  const std::string key = inode_key(ino);
  ASSIGN_OR_RETURN(const auto value, store_.metastore->get(key));
  if (!value) return Error(Errc::kNotFound, "inode", std::to_string(arguments_.ino));
  Record record;
  record.number("inode", arguments_.ino);
  const auto decoded = decode_inode(key, *value);
  if (decoded.ok())
    write_attributes(record, *decoded);
  else
    record.text("error", decoded.error().message()).bytes("bytes", *value);
  ASSIGN_OR_RETURN(const auto target, store_.metastore->get(symlink_key(ino)));
  if (target) record.text("target", *target);
  ASSIGN_OR_RETURN(const auto extended, store_.metastore->get(extended_key(ino)));
  if (extended) {
    if (const auto all = decode_extended(*extended); all.ok()) {
      for (const auto& [name, bytes] : *all) record.bytes(name.c_str(), bytes);
    } else {
      record.bytes("attributes", *extended);
    }
  }
  ASSIGN_OR_RETURN(const auto orphan, store_.metastore->get(orphan_key(ino)));
  if (orphan) record.number("orphan", 1);
  output_.write(record);
  return success();
}

// Not deeper than paths can be; a damaged tree may hold a loop.
Result<void> Dumper::subtree(InodeNumber directory, const std::string& path, unsigned depth) {
  std::vector<std::pair<InodeNumber, std::string>> below;
  RETURN_IF_ERROR(each("D" + inode_key(directory).substr(1), [&](std::string_view key, std::string_view value) {
    Record record;
    const auto at = decode_dirent_key(key);
    const auto dirent = decode_dirent(value);
    if (!at.ok() || !dirent.ok()) {
      record.text("path", path + "/").text("error", "undecodable name").bytes("key", key).bytes("value", value);
      return output_.write(record);
    }
    const std::string here = path + "/" + std::string(at->name);
    record.text("path", here).number("inode", dirent->ino.value());
    if (const auto a = attributes(dirent->ino)) {
      record.text("mode", dump::mode_text(a->mode)).number("nlink", a->nlink).number("size", a->size);
      if (S_ISDIR(a->mode)) below.emplace_back(dirent->ino, here);
    } else {
      record.text("error", "the inode is missing or damaged");
    }
    output_.write(record);
  }));
  if (depth == 0) return below.empty() ? success() : Result<void>(Error(Errc::kCorrupt, "tree", path));
  for (const auto& [ino, here] : below) RETURN_IF_ERROR(subtree(ino, here, depth - 1));
  return success();
}

Result<void> Dumper::tree() {
  RETURN_IF_ERROR(open());
  RETURN_IF_ERROR(subtree(kRootInode, "", 2048));
  return each("O", [&](std::string_view key, std::string_view) {
    Record record;
    const auto ino = decode_inode_key(key);
    if (ino.ok())
      record.number("orphan", ino->value());
    else
      record.bytes("orphan_key", key);
    output_.write(record);
  });
}

Result<void> Dumper::chunks() {
  RETURN_IF_ERROR(open());
  return each("C", [&](std::string_view key, std::string_view value) {
    Record record;
    const auto id = decode_chunk_key(key);
    const auto chunk = decode_chunk(value);
    if (!id.ok() || !chunk.ok()) {
      return output_.write(record.text("error", "undecodable chunk").bytes("key", key).bytes("value", value));
    }
    const RemoteRegion& region = chunk->region;
    record.number("chunk", id->value()).text("state", chunk->state == ChunkState::kLost ? "lost" : "active");
    record.number("node", chunk->node.value()).number("region", region.id.value());
    record.number("generation", region.generation.value()).number("length", region.length_bytes);
    record.number("address", region.address).number("rkey", region.rkey).text("key", secret(region.key.bytes));
    record.number("durability", static_cast<std::uint64_t>(region.durability.durability));
    record.number("persist_method", static_cast<std::uint64_t>(region.durability.method));
    if (const auto bitmap = store_.metastore->get(bitmap_key(*id)); bitmap.ok() && *bitmap) {
      std::uint64_t used = 0;
      for (const char byte : **bitmap)
        used += static_cast<std::uint64_t>(std::popcount(static_cast<unsigned char>(byte)));
      record.number("used_blocks", used);
    }
    output_.write(record);
  });
}

void Dumper::write_extent(std::string_view key, std::string_view value) {
  Record record;
  const auto extent = decode_extent(key, value);
  if (!extent.ok()) {
    return output_.write(record.text("error", "undecodable extent").bytes("key", key).bytes("value", value));
  }
  record.number("offset", extent->file_offset).number("length", extent->length).number("chunk", extent->chunk.value());
  record.number("chunk_offset", extent->chunk_offset).text("state", extent->unwritten ? "unwritten" : "written");
  output_.write(record);
}

Result<void> Dumper::extents() {
  RETURN_IF_ERROR(open());
  const std::string inode = inode_key(InodeNumber(arguments_.ino));
  bool found = false;
  RETURN_IF_ERROR(each("E" + inode.substr(1), [&](std::string_view key, std::string_view value) {
    found = true;
    write_extent(key, value);
  }));
  if (found) return success();  // of a missing inode, too: that is damage, which is to be seen
  ASSIGN_OR_RETURN(const auto record, store_.metastore->get(inode));
  if (!record) return Error(Errc::kNotFound, "inode", std::to_string(arguments_.ino));
  return success();
}

// A pool's file, which a running node may be changing: read entry by entry, with each one's own checksum.
Result<void> Dumper::pool() {
  const std::string& path = arguments_.directory;
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat st;
  if (!fd.valid() || ::fstat(fd.get(), &st) != 0) return Error(errc_from_errno(errno), "pool", path);
  const auto read_at = [&](void* to, std::size_t size, std::uint64_t at) {
    return ::pread(fd.get(), to, size, static_cast<off_t>(at)) == static_cast<ssize_t>(size);
  };
  PoolSuperblock sb{};
  const bool whole = read_at(&sb, sizeof sb, 0);
  const auto layout = check_superblock(sb, static_cast<std::uint64_t>(st.st_size));
  if (!whole || (!layout.ok() && layout.error().code == Errc::kNotFormatted)) {
    return Error(Errc::kInvalid, "", path + " is not the pool of a memory node");
  }
  Record head;
  const auto uuid_text = [](const std::array<std::byte, 16>& bytes) { return Uuid{bytes}.to_string(); };
  head.text("uuid", uuid_text(sb.uuid)).number("generation", sb.generation).number("version", sb.version);
  head.number("compat", sb.compat_features).number("ro_compat", sb.ro_compat_features);
  head.number("incompat", sb.incompat_features).number("persistent", sb.persistent);
  head.number("data_offset", sb.data_offset).number("data_bytes", sb.data_bytes).number("next_region", sb.next_region);
  if (!layout.ok()) head.text("error", layout.error().message());
  output_.write(head);
  if (!layout.ok()) return success();
  for (std::uint64_t i = 0; i < kFileSystemSlots; ++i) {
    FileSystemEntry entry;
    if (!read_at(&entry, sizeof entry, layout->file_systems_offset + i * sizeof entry)) break;
    if (entry.state == 0 && entry.crc == 0) continue;
    Record line;
    line.number("slot", i).text("state", entry.state == 0 ? "free" : "used").text("file_system", uuid_text(entry.uuid));
    line.number("epoch", entry.epoch).text("key", secret(entry.key));
    if (entry.crc != checksum(entry)) line.text("error", "the checksum does not match");
    output_.write(line);
  }
  static constexpr const char* kStates[] = {"free", "leased", "dirty"};
  for (std::uint64_t i = 0; i < layout->region_slots; ++i) {
    RegionEntry entry;
    if (!read_at(&entry, sizeof entry, layout->regions_offset + i * sizeof entry)) break;
    if (entry.state == 0) continue;
    Record line;
    line.number("slot", i)
        .number("region", entry.id)
        .text("state", entry.state <= 2 ? kStates[entry.state] : "unknown");
    line.number("offset", entry.offset)
        .number("length", entry.length)
        .text("file_system", uuid_text(entry.file_system));
    line.number("tag", entry.tag).number("generation", entry.generation).text("key", secret(entry.key));
    if (entry.crc != checksum(entry)) line.text("error", "the checksum does not match");
    output_.write(line);
  }
  return success();
}

CLI::App* declare(CLI::App& app, Arguments& arguments, const std::string& name, const std::string& description) {
  CLI::App* const command = app.add_subcommand(name, description);
  command->callback([&arguments, name] { arguments.what = name; });
  command->fallthrough();
  if (name == "inode" || name == "extents") command->add_option("INO", arguments.ino, "Inode number")->required();
  const bool pool = name == "pool";
  command->add_option(pool ? "PATH" : "DIR", arguments.directory, pool ? "A memory node's pool" : "Metadata directory")
      ->required();
  return command;
}

Result<void> run(const Arguments& arguments, Output& output) {
  Dumper dumper(arguments, output);
  if (arguments.ino == 0 && (arguments.what == "inode" || arguments.what == "extents")) {
    return Error(Errc::kInvalid, "", "inode numbers begin with 1");
  }
  if (arguments.what == "superblock") return dumper.superblock();
  if (arguments.what == "journal") return dumper.journal();
  if (arguments.what == "inode") return dumper.inode();
  if (arguments.what == "tree") return dumper.tree();
  if (arguments.what == "chunks") return dumper.chunks();
  if (arguments.what == "extents") return dumper.extents();
  return dumper.pool();
}

int main_of(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Shows what an rmemfs file system or a memory node's pool has stored; never changes anything");
  cli::prepare(app, kProgram);
  app.add_flag("--json", arguments.json, "Write a JSON array of objects");
  app.add_flag("--keys", arguments.keys, "Show keys, which are secrets");
  app.require_subcommand(1);
  declare(app, arguments, "superblock", "Identity, features, geometry, memory nodes");
  declare(app, arguments, "journal", "The journal's slots and what its transactions change");
  declare(app, arguments, "inode", "One inode");
  declare(app, arguments, "tree", "Every name, with its inode");
  declare(app, arguments, "chunks", "The chunk map");
  declare(app, arguments, "extents", "Where one file's bytes are");
  declare(app, arguments, "pool", "A memory node's file systems and regions");
  if (const auto status = cli::parse(app, argc, argv)) return *status;
  log::set_level(log::Level::kOff);
  Output output(arguments.json);
  const auto shown = run(arguments, output);
  const bool written = output.finish();
  if (!shown.ok()) return cli::fail(kProgram, shown.error());
  if (written) return 0;
  cli::print_error(kProgram, "standard output could not be written");
  return cli::kFailure;
}

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) { return rmemfs::main_of(argc, argv); }
