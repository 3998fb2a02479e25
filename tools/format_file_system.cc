// How a file system is made. Invariants:
//   - until every node has answered and accepted, nothing in the directory is changed but the text of a lock file that
//     is there; and where there is one, no node hears of the new file system before the lock is held;
//   - from the moment an old file system is touched until the new one is whole there is no superblock, so what an
//     interruption leaves cannot be mounted; `superblock.old` then tells the next try which regions to give back;
//   - nothing that is not an rmemfs file system's own file is ever removed.
// Does not: lease memory (the first mount does), touch a private rmemd's files.
#include "tools/format_file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <optional>
#include <set>

#include "control/node_client.h"
#include "control/pool_claims.h"
#include "journal/journal_format.h"
#include "manager/manager.h"
#include "manager/metastore.h"
#include "transport/connection.h"
#include "util/bytes.h"
#include "util/pmem.h"

namespace rmemfs {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWhere = "";  // the program that prints it names itself

Error invalid(std::string sentence) { return Error(Errc::kInvalid, kWhere, std::move(sentence)); }

Error local(const std::string& path, int number) {
  return Error(errc_from_errno(number), kWhere, path + ": " + std::strerror(number));
}

constexpr std::uint32_t kMinSlotBytes = 256, kMaxSlotBytes = 65536, kMinSlots = 2, kMaxSlots = 1048576;

bool holds_every_change(const JournalGeometry& journal) {
  return transaction_slots(journal, Manager::largest_transaction_bytes()) != 0;
}

// With the smallest values that would do: of one size given the other.
Error journal_too_small(const JournalGeometry& journal) {
  const auto slots = [](std::uint32_t slot_bytes) {
    return transaction_slots({slot_bytes, kMaxSlots}, Manager::largest_transaction_bytes());
  };
  JournalGeometry larger = journal;
  while (!holds_every_change(larger)) larger.slot_bytes *= 2;
  return invalid("a journal of " + std::to_string(journal.slot_count) + " slots of " +
                 std::to_string(journal.slot_bytes) + " bytes cannot hold the largest change, of " +
                 std::to_string(Manager::largest_transaction_bytes()) + " bytes: it needs at least " +
                 std::to_string(slots(journal.slot_bytes)) + " slots of this size, or slots of at least " +
                 std::to_string(larger.slot_bytes) + " bytes");
}

struct OldFileSystem {
  Superblock superblock;
  bool interrupted = false;  // read from superblock.old
};

struct Survey {
  bool missing = false;              // the directory is to be made
  bool holds_file_system = false;    // there is a superblock (perhaps a damaged one)
  std::optional<OldFileSystem> old;  // readable
};

Result<void> check_options(const FormatOptions& o) {
  if (o.directory.empty()) return invalid("no directory is given");
  if (o.nodes.empty()) return invalid("no memory node is given; name at least one with --node");
  if (o.nodes.size() > kMaxNodes) return invalid("more than 1024 memory nodes are given");
  std::set<std::string> seen;
  for (const std::string& node : o.nodes) {
    RETURN_IF_ERROR(NodeAddress::parse(node_address_of(o.directory, NodeRecord{NodeId(0), node})));
    if (!seen.insert(node).second) return invalid("the memory node " + node + " is given twice");
  }
  if (o.label.size() > kMaxLabelBytes) return invalid("the label is longer than 64 bytes");
  if (o.label.find('\0') != std::string::npos) return invalid("the label has a zero byte");
  if (!std::has_single_bit(o.chunk_bytes) || o.chunk_bytes < kMinChunkBytes || o.chunk_bytes > kMaxChunkBytes) {
    return invalid("the chunk size must be a power of two from 64K to 4G");
  }
  const JournalGeometry& j = o.journal;
  if (!std::has_single_bit(j.slot_bytes) || j.slot_bytes < kMinSlotBytes || j.slot_bytes > kMaxSlotBytes) {
    return invalid("a journal slot must be a power of two from 256 to 65536 bytes");
  }
  if (j.slot_count < kMinSlots || j.slot_count > kMaxSlots) return invalid("the journal must have 2 to 1048576 slots");
  if (!holds_every_change(j)) return journal_too_small(j);
  return success();
}

Result<std::optional<Superblock>> read_old(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return std::optional<Superblock>();
  std::string bytes(1u << 20, '\0');
  const ssize_t n = ::pread(fd.get(), bytes.data(), bytes.size(), 0);
  if (n < 0) return local(path, errno);
  auto parsed = parse_superblock(as_bytes(std::string_view(bytes).substr(0, static_cast<std::size_t>(n))));
  if (!parsed.ok()) return std::optional<Superblock>();
  return std::optional<Superblock>(std::move(*parsed));
}

// Names that an rmemfs directory may hold without a file system in it: what an interrupted mkfs or a private node left.
bool ours(const std::string& name, const FormatOptions& o) {
  static constexpr std::array<std::string_view, 12> kNames = {
      "superblock.old", "superblock.new", "journal",  "journal.new", "db",        "lock",
      "admin.sock",     "node.sock",      "node.pid", "node.log",    "node.pool", "lost+found"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end() ||
         (!o.local_pool.empty() && fs::path(o.local_pool).filename() == name);
}

Result<Survey> survey(const FormatOptions& o) {
  Survey found;
  struct stat st;
  if (::stat(o.directory.c_str(), &st) != 0) {
    if (errno != ENOENT) return local(o.directory, errno);
    found.missing = true;
    const fs::path parent = fs::absolute(fs::path(o.directory) / "").parent_path().parent_path();
    if (::stat(parent.c_str(), &st) != 0) return local(parent.string(), errno);
    return found;
  }
  if (!S_ISDIR(st.st_mode)) return Error(Errc::kNotDirectory, kWhere, o.directory);
  auto loaded = load_superblock(o.directory);
  found.holds_file_system = loaded.ok() || loaded.error().code != Errc::kNotFormatted;
  if (found.holds_file_system && !o.force) {
    return Error(Errc::kExists, kWhere,
                 o.directory + " holds an rmemfs file system already; --force makes a new one in its place");
  }
  if (loaded.ok()) {
    found.old = OldFileSystem{std::move(*loaded)};
    return found;
  }
  ASSIGN_OR_RETURN(auto interrupted, read_old(o.directory + "/superblock.old"));
  if (interrupted) found.old = OldFileSystem{std::move(*interrupted), true};
  if (found.holds_file_system) return found;
  std::error_code error;
  bool marked = false, parts = false;
  for (const auto& entry : fs::directory_iterator(o.directory, error)) {
    const std::string name = entry.path().filename().string();
    if (!ours(name, o)) {
      return Error(Errc::kNotEmpty, kWhere,
                   o.directory + " is not empty and not an rmemfs file system: it holds \"" + name + "\"");
    }
    marked = marked || name == "lock";
    parts = parts || name == "db" || name == "journal";
  }
  if (error) return local(o.directory, error.value());
  if (parts && !marked) {
    return Error(Errc::kNotEmpty, kWhere, o.directory + " is not empty and not an rmemfs file system");
  }
  return found;
}

// A journal outside the directory: made anew, or an own journal, or with --force.
Result<void> check_journal_place(const FormatOptions& o, const Survey& found) {
  if (o.journal_path.empty()) return success();
  struct stat st;
  if (::stat(o.journal_path.c_str(), &st) != 0) return errno == ENOENT ? success() : local(o.journal_path, errno);
  if (S_ISDIR(st.st_mode)) return Error(Errc::kIsDirectory, kWhere, o.journal_path);
  const bool own = found.old && found.old->superblock.journal_path == o.journal_path;
  if (own || o.force || (S_ISREG(st.st_mode) && st.st_size == 0)) return success();
  return Error(Errc::kExists, kWhere, o.journal_path + " exists already; --force takes it for the journal");
}

struct Nodes {
  std::vector<std::unique_ptr<NodeClient>> clients;
};

Result<Nodes> ask_nodes(const FormatOptions& o, const std::vector<NodeRecord>& records, FormatReport& report) {
  Nodes nodes;
  PoolClaims claims;
  for (const NodeRecord& record : records) {
    const std::string address = node_address_of(o.directory, record);
    ASSIGN_OR_RETURN(auto client, NodeClient::make(address));
    const auto description = client->describe(o.timeout_ms);
    if (!description.ok()) return Error(description.error());
    RETURN_IF_ERROR(claims.claim(address, description->pool));
    report.pool_bytes += description->pool_bytes;
    report.free_bytes += description->free_bytes;
    nodes.clients.push_back(std::move(client));
  }
  return nodes;
}

// The first word with each node: it learns the file system's key, or refuses.
Result<void> introduce(const FormatOptions& o, const Nodes& nodes, const Superblock& superblock) {
  const FileSystemIdentity who{superblock.uuid, superblock.key, superblock.epoch};
  for (const auto& client : nodes.clients) RETURN_IF_ERROR(client->fence(who, o.timeout_ms));
  return success();
}

Result<void> sync_directory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return local(path, errno);
  return success();
}

Result<void> remove_parts(const std::string& directory) {
  std::error_code error;
  for (const char* name : {"db", "journal", "journal.new", "superblock.new"}) {
    fs::remove_all(directory + "/" + name, error);
    if (error) return local(directory + "/" + name, error.value());
  }
  return success();
}

// What the replaced file system had leased. A node that cannot be told keeps it until it is told by rmemctl or
// restarted.
void release_old(const FormatOptions& o, const Superblock& old, FormatReport& report) {
  const FileSystemIdentity who{old.uuid, old.key, old.epoch};
  for (const NodeRecord& record : old.nodes) {
    const std::string address = node_address_of(o.directory, record);
    const auto release = [&]() -> Result<void> {
      ASSIGN_OR_RETURN(auto client, NodeClient::make(address));
      ASSIGN_OR_RETURN(const auto leases, client->list(who, o.timeout_ms));
      for (const LeasedRegion& lease : leases) {
        RETURN_IF_ERROR(client->release(who, lease.id, o.timeout_ms));
        ++report.released_regions;
      }
      return success();
    };
    const auto released = release();
    if (!released.ok()) {
      report.warnings.push_back("the old file system's memory on " + address +
                                " could not be given back: " + released.error().message());
    }
  }
}

Result<void> remove_old(const FormatOptions& o, const Survey& found, FormatReport& report) {
  const std::string superblock = o.directory + "/superblock";
  if (found.holds_file_system && ::rename(superblock.c_str(), (superblock + ".old").c_str()) != 0) {
    return local(superblock, errno);
  }
  RETURN_IF_ERROR(sync_directory(o.directory));
  if (found.old) release_old(o, found.old->superblock, report);
  return remove_parts(o.directory);
}

Result<void> make_journal(const FormatOptions& o, const Superblock& superblock) {
  const std::string path = journal_path_of(o.directory, superblock);
  PmemOptions mapping;
  struct stat st;
  const bool exists = ::stat(path.c_str(), &st) == 0;
  if (exists && S_ISREG(st.st_mode) && ::unlink(path.c_str()) != 0) return local(path, errno);
  if (!exists || S_ISREG(st.st_mode)) {
    mapping.create = true;
    mapping.size = Journal::bytes_needed(superblock.journal);
  }
  ASSIGN_OR_RETURN(auto memory, map_persistent(path, mapping));
  return Journal::format(*memory, superblock.uuid, superblock.journal);
}

Result<void> make_store(const FormatOptions& o, const Superblock& superblock) {
  ASSIGN_OR_RETURN(auto store, Metastore::open(o.directory + "/db", Metastore::Mode::kCreate, superblock.uuid, {}));
  return Manager::format(*store, superblock);
}

Superblock new_superblock(const FormatOptions& o) {
  Superblock sb;
  sb.uuid = Uuid::random();
  sb.key = AccessKey::random();
  fill_random(reinterpret_cast<std::byte*>(&sb.name_hash_seed), sizeof sb.name_hash_seed);
  sb.chunk_bytes = o.chunk_bytes;
  sb.journal = o.journal;
  sb.journal_path = o.journal_path;
  sb.local_bytes = o.local_bytes;
  sb.local_pool = o.local_pool;
  sb.created = std::time(nullptr);
  sb.label = o.label;
  for (std::size_t i = 0; i < o.nodes.size(); ++i) {
    sb.nodes.push_back({NodeId(static_cast<std::uint32_t>(i)), o.nodes[i]});
  }
  return sb;
}

}  // namespace

Result<void> check_place(const FormatOptions& options) {
  const auto found = survey(options);
  if (!found.ok()) return found.error();
  return success();
}

Result<Uuid> format_file_system(const FormatOptions& given, FormatReport* report_out) {
  FormatOptions options = given;
  // The superblock's relative path would be one in the metadata directory.
  if (!options.journal_path.empty())
    options.journal_path = fs::absolute(options.journal_path).lexically_normal().string();
  FormatReport discarded;
  FormatReport& report = report_out != nullptr ? *report_out : discarded;
  report = {};
  RETURN_IF_ERROR(check_options(options));
  ASSIGN_OR_RETURN(Survey found, survey(options));
  RETURN_IF_ERROR(check_journal_place(options, found));
  const Superblock superblock = new_superblock(options);
  report.uuid = superblock.uuid;
  ASSIGN_OR_RETURN(const Nodes nodes, ask_nodes(options, superblock.nodes, report));
  if (options.dry_run) return superblock.uuid;
  UniqueFd lock;
  const auto take_lock = [&]() -> Result<void> {
    ASSIGN_OR_RETURN(lock, lock_directory(options.directory, LockMode::kExclusive, "made by mkfs.rmemfs"));
    ASSIGN_OR_RETURN(found, survey(options));  // somebody else may have made one before the lock was ours
    return success();
  };
  // Before a node keeps the new file system's identity, for one that is refused because the directory is in use.
  if (!options.locked && ::access((options.directory + "/lock").c_str(), F_OK) == 0) RETURN_IF_ERROR(take_lock());
  RETURN_IF_ERROR(introduce(options, nodes, superblock));

  if (found.missing && ::mkdir(options.directory.c_str(), 0700) != 0) return local(options.directory, errno);
  if (!options.locked && !lock.valid()) RETURN_IF_ERROR(take_lock());
  RETURN_IF_ERROR(remove_old(options, found, report));
  RETURN_IF_ERROR(make_journal(options, superblock));
  RETURN_IF_ERROR(make_store(options, superblock));
  RETURN_IF_ERROR(store_superblock(options.directory, superblock));
  if (::unlink((options.directory + "/superblock.old").c_str()) != 0 && errno != ENOENT) {
    return local(options.directory + "/superblock.old", errno);
  }
  RETURN_IF_ERROR(sync_directory(options.directory));
  return superblock.uuid;
}

Result<void> remove_file_system(const std::string& directory) {
  const std::string superblock = directory + "/superblock";
  if (::unlink(superblock.c_str()) != 0 && errno != ENOENT) return local(superblock, errno);
  RETURN_IF_ERROR(sync_directory(directory));
  return remove_parts(directory);
}

}  // namespace rmemfs
