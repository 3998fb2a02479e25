// Makes a file system: the one function behind mkfs.rmemfs and `rmemfs --local`.
//
// Order of its steps, so that an interruption at any point leaves either what was there or something that is plainly
// not a file system: ask every node (nothing in the directory has changed yet), lock the directory (before the nodes
// keep anything, where it has a lock file), take the old superblock away, write journal and metadata store, write the
// new superblock last. Blocks. Any thread; the directory's lock serializes processes. Never prints.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "journal/journal.h"
#include "manager/superblock.h"
#include "util/ids.h"
#include "util/result.h"

namespace rmemfs {

inline constexpr std::size_t kMaxLabelBytes = 64;
inline constexpr std::size_t kMaxNodes = 1024;

struct FormatOptions {
  std::string directory;           // made when missing (its parent must exist)
  std::vector<std::string> nodes;  // NodeAddress texts, 1..kMaxNodes; a relative shm path is relative to `directory`
  std::string label;
  std::uint64_t chunk_bytes = kDefaultChunkBytes;  // a power of two, kMinChunkBytes..kMaxChunkBytes
  JournalGeometry journal;
  std::string journal_path;       // empty: DIR/journal; a relative one is relative to the working directory
  std::uint64_t local_bytes = 0;  // for `rmemfs --local`
  std::string local_pool;
  bool locked = false;              // the caller holds the directory's exclusive lock
  bool force = false;               // make it again over an rmemfs file system that is there
  bool dry_run = false;             // all checks, nothing is changed
  std::uint32_t timeout_ms = 5000;  // for each call of a node
};

struct FormatReport {
  Uuid uuid;
  std::uint64_t pool_bytes = 0, free_bytes = 0;  // of all nodes together
  std::uint64_t released_regions = 0;            // of the file system that --force replaced
  std::vector<std::string> warnings;             // e.g. a node of the old file system that could not be told
};

// Whether a file system may be made in the directory, which need not exist; looks and changes nothing. Errors as below.
Result<void> check_place(const FormatOptions& options);

// Errors, each with a detail that is a whole sentence's subject: kInvalid (an option out of range), kExists (a file
// system is there and !force), kNotEmpty (foreign files), kLocked (with who), kUnreachable, kDeadline, kVersion,
// kRefused (a node), kLocalIo, kNoSpace, kAccess, kStore.
Result<Uuid> format_file_system(const FormatOptions& options, FormatReport* report = nullptr);

// Takes away again what format_file_system() made in the directory, superblock first. The caller holds the directory's
// lock, whose file stays; no node is told. kLocalIo, kAccess.
Result<void> remove_file_system(const std::string& directory);

}  // namespace rmemfs
