// The checker: what fsck.rmemfs does, without a word printed. Finds problems pass by pass, asks what to do about each,
// repairs, and reports.
//
// Guarantees:
//   - read only (Answers::kNone) changes no byte of the metadata directory and nothing on the nodes;
//   - a repair is one atomic batch, and each batch leaves something that the next check understands: a crash or a
//     cancellation anywhere in between loses no more than the rest of the work;
//   - after a check that repaired everything the next one finds nothing;
//   - a sound file system is not changed (a journal that was not applied is: that is recovery, not repair).
// Memory: 32 bytes per inode, 48 per directory, a bit per block of the chunks, and the problems found (bounded).
// Blocks. One thread calls it; `cancelled` may be set from a signal handler.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "control/node_client.h"
#include "manager/metastore.h"
#include "recovery/problem.h"
#include "util/ids.h"
#include "util/result.h"

namespace rmemfs {

enum class Answers : std::uint8_t {
  kNone,  // -n: read only, every answer is no
  kSafe,  // -p: yes to safe repairs; after the first problem that needs a decision nothing more is changed
  kAll,   // -y
  kAsk,   // CheckOptions::ask decides
};

struct CheckOptions {
  std::string directory;
  Answers answers = Answers::kNone;
  std::function<bool(const Problem&)> ask;
  // `done` of 1000, in a pass. Called a few hundred times per pass at most.
  std::function<void(CheckPass pass, unsigned done)> progress;
  const std::atomic<bool>* cancelled = nullptr;
  std::uint32_t node_timeout_ms = 5000;
  std::size_t max_problems = 100000;       // kept in the report; the others are only counted
  std::size_t batch_modifications = 4096;  // written together
  MetastoreOptions metastore;
  // How to reach a node; NodeClient::make unless given (tests run their nodes in the same process).
  std::function<Result<std::unique_ptr<NodeClient>>(const std::string& address)> connect;
  // Called before the n-th batch is written; an error ends the check there, as a crash would.
  std::function<Result<void>(std::uint64_t batch)> before_batch;
};

// A file with data in a chunk whose contents are gone: reading there is an error. Not a problem: fsck cannot mend it.
struct LostFile {
  InodeNumber ino;
  std::string path;
  std::uint64_t bytes = 0;
};

struct CheckReport {
  Uuid uuid;
  std::string label;
  std::vector<Problem> problems;
  std::uint64_t found = 0, repaired = 0;  // of all problems, also those not kept above
  std::vector<LostFile> lost_files;
  std::vector<std::string> notices;  // sentences: a node that could not be asked, a journal that was replayed
  std::uint64_t inodes = 0, directories = 0, orphans = 0, extents = 0, chunks = 0;
  std::uint64_t used_bytes = 0;  // blocks that files hold
  std::uint64_t replayed = 0;    // transactions that the journal still held
  bool changed = false;          // a repair was written (or a region given back)
  bool cancelled = false;
  std::uint64_t uncorrected() const { return found - repaired; }
};

// Errors: those of load_superblock, lock_directory (kLocked: somebody has it mounted), recover, the store. With an
// error nothing, or whole repairs only, were changed.
Result<CheckReport> check_file_system(const CheckOptions& options);

}  // namespace rmemfs
