// CheckContext: what the passes of one check share: the store with the repairs made so far, the answers, the tables.
//
// Each record family is read through once, by one pass, in key order; what later passes need of it is in flat tables.
// Repairs are gathered and written in atomic batches; settle() may write between two problems, never inside one. get()
// sees gathered repairs. Read only, the repairs are gathered too and never written, so that each pass sees what it
// would see after the repairs of the passes before, and finds the same problems as -y.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "manager/meta_format.h"
#include "manager/metastore.h"
#include "manager/superblock.h"
#include "recovery/checker.h"

namespace rmemfs {

inline constexpr std::uint64_t kDirectoryBytes = 4096;  // st_size that directories are made with
inline constexpr std::uint64_t kInodeNumberEnd = std::uint64_t{1} << 62;
inline constexpr std::uint64_t kChunkNumberEnd = 1u << 24;  // the manager's chunk map ends before it

// One inode that exists, by number (ascending in the table).
struct InodeEntry {
  std::uint64_t ino = 0;
  std::uint64_t blocks = 0;     // as stored
  std::uint32_t nlink = 0;      // as stored
  std::uint32_t names = 0;      // found
  std::uint32_t directory = 0;  // index in directories + 1; 0: not a directory
  std::uint8_t type = 0;        // DT_*
  bool recorded = false;        // has an orphan record
  bool orphan = false;          // no name and none expected: the next mount removes it
};
static_assert(sizeof(InodeEntry) == 32);

struct DirectoryInfo {
  std::uint64_t ino = 0;
  std::uint64_t stored_parent = 0;
  std::uint64_t found_parent = 0;  // where its name is; 0: nowhere
  std::uint64_t stored_entries = 0;
  std::uint32_t found_entries = 0;
  std::uint32_t subdirectories = 0;
  std::uint64_t mark = 0;  // the walk towards the root that saw it
};
static_assert(sizeof(DirectoryInfo) == 48);

struct ChunkInfo {
  ChunkId id;
  ChunkRecord record;
  std::vector<bool> claimed;  // a bit per block: some extent has it
  bool uncertain = false;     // its record is unreadable, and a node that may know it did not answer
  bool back = false;          // lost, and its node has it again: the next mount uses it
};

// What a node said when it was asked.
struct NodeState {
  NodeRecord record;
  std::string address;
  std::unique_ptr<NodeClient> client;
  bool answered = false;
  bool doubled = false;  // its address leads to the pool of a node before it, whose leases these are
  Uuid pool;
  Generation generation;
  std::vector<LeasedRegion> leases;
};

class CheckContext {
 public:
  CheckContext(const CheckOptions& check_options, CheckReport& check_report)
      : options(check_options), report(check_report) {}

  const CheckOptions& options;
  CheckReport& report;
  Superblock superblock;
  std::unique_ptr<Metastore> store;
  bool incomplete = false;  // a problem that was not repaired lets the later passes see nothing right
  CommitId watermark;       // of the store: what the repairs carry

  std::vector<InodeEntry> inodes;
  std::vector<DirectoryInfo> directories;
  std::vector<ChunkInfo> chunks;  // by id
  std::vector<NodeState> nodes;
  ChunkId lost_chunk;  // made by this check for ranges that are lost (check_chunks.h); 0: none yet

  InodeEntry* find(InodeNumber ino);
  DirectoryInfo* find_directory(InodeNumber ino);  // null: no directory
  ChunkInfo* find_chunk(ChunkId id);
  NodeState* find_node(NodeId id);
  bool read_only() const { return options.answers == Answers::kNone; }

  // Records a problem that cannot be repaired now; nothing is asked.
  void found_unrepairable(ProblemCode code, InodeNumber ino, std::string detail);
  // The repair of the last problem did not work; the sentence says why.
  void repair_failed(std::string sentence);
  // Records a problem and decides. True: the caller repairs it now (its tables, and put/erase). Read only it is true
  // too.
  bool found(ProblemCode code, InodeNumber ino, std::string detail);

  void put(std::string key, std::string value) { pending_[std::move(key)] = std::move(value); }
  void erase(std::string key) { pending_[std::move(key)] = std::nullopt; }
  Result<std::optional<std::string>> get(const std::string& key) const;
  // Walks the records of a family with the gathered repairs merged in. `visit` must not call put, erase or settle.
  Result<void> walk(std::string_view prefix,
                    const std::function<Result<void>(std::string_view key, std::string_view value)>& visit) const;
  // The inode's attributes as stored, for read-modify-write.
  Result<Attributes> attributes(InodeNumber ino) const;

  // Between problems: writes a batch when enough is gathered; kCancelled when the user asked to stop.
  Result<void> settle();
  // Writes what is gathered and makes it durable.
  Result<void> write_all();
  void progress(CheckPass pass, std::uint64_t done, std::uint64_t total);
  void notice(std::string sentence) { report.notices.push_back(std::move(sentence)); }

 private:
  Result<void> write_batch();
  bool decide(const Problem& problem);

  std::map<std::string, std::optional<std::string>, std::less<>> pending_;
  std::uint64_t batches_ = 0;
  bool stopped_ = false;  // kSafe: a decision was needed
  std::uint32_t settles_ = 0;
  unsigned last_progress_ = 0;
};

// Passes 2 to 8 on an open store, with the repairs written at the end.
Result<void> run_passes(CheckContext& context);

// The passes, in this order. Each file opens with what the pass checks and what it leaves to others.
Result<void> check_superblock(CheckContext& context);
Result<void> check_inodes(CheckContext& context);
Result<void> check_names(CheckContext& context);  // directory entries
Result<void> check_links(CheckContext& context);  // connectivity, counts, lost+found
Result<void> check_extents(CheckContext& context);
Result<void> check_space(CheckContext& context);
Result<void> check_orphans(CheckContext& context);
Result<void> check_nodes(CheckContext& context);
// The key of the entry of directory `parent` that leads to `ino`; reads the whole directory: for damaged ones only.
Result<std::optional<std::string>> name_key(const CheckContext& context, InodeNumber parent, InodeNumber ino);
// Fills in the paths of the report's problems and lost files.
Result<void> resolve_paths(CheckContext& context);

// The journal's pass, before the store is open for writing. False: it cannot be gone on from (declined).
struct JournalVerdict {
  bool usable = true;  // false: a problem was found and not repaired; the check ends here
  bool accept_gap = false;
};
Result<JournalVerdict> check_journal(CheckContext& context);

}  // namespace rmemfs
