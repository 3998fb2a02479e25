// The superblock file of a metadata directory: identity, features, geometry, nodes, the mount epoch.
//
// The metadata directory DIR:
//   superblock   this file; replaced atomically (write, fsync, rename, fsync of DIR)
//   journal      the journal pool (unless the superblock names another place)
//   db/          RocksDB
//   lock         flock(2)ed exclusively by whoever has the file system open for writing; shared by readers (fsck -n,
//                dump)
//   admin.sock   the running mount's control socket (rmemctl)
//   node.sock, node.pid, node.log   the private rmemd of `rmemfs --local`
//   node.pool    the pool that a first `rmemfs --local` is making, until the superblock names it
// Thread-safety: plain functions; the lock serializes processes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "journal/journal.h"
#include "util/ids.h"
#include "util/result.h"
#include "util/unique_fd.h"

namespace rmemfs {

inline constexpr std::uint32_t kBlockBytes = 4096;
inline constexpr std::uint64_t kDefaultChunkBytes = 64u << 20;
inline constexpr std::uint64_t kMinChunkBytes = 64u << 10;
inline constexpr std::uint64_t kMaxChunkBytes = std::uint64_t{4} << 30;
inline constexpr std::uint32_t kMaxChunkBlocks = kMaxChunkBytes / kBlockBytes;

// ext4's rule. Unknown incompat: refuse. Unknown ro_compat: refuse to write. Unknown compat: ignore.
inline constexpr std::uint64_t kKnownCompat = 0;
inline constexpr std::uint64_t kKnownRoCompat = 0;
inline constexpr std::uint64_t kIncompatExtended = 1;  // inodes may have extended attributes
inline constexpr std::uint64_t kKnownIncompat = kIncompatExtended;

struct NodeRecord {
  NodeId id;
  std::string address;  // NodeAddress text; a relative shm path is relative to DIR
};

struct Superblock {
  Uuid uuid;
  std::uint64_t compat = 0, ro_compat = 0, incompat = 0;
  std::uint64_t chunk_bytes = kDefaultChunkBytes;
  std::uint64_t name_hash_seed = 0;  // random: directory order cannot be chosen by whoever picks names
  AccessKey key;                     // the file system's secret towards nodes
  MountEpoch epoch;                  // of the last mount
  JournalGeometry journal;
  std::string journal_path;       // empty: DIR/journal
  std::uint64_t local_bytes = 0;  // not 0: `rmemfs --local` starts a private rmemd with this pool size
  std::string local_pool;         // its pool file
  std::int64_t created = 0;       // seconds since the epoch
  std::string label;              // at most 64 bytes
  std::vector<NodeRecord> nodes;  // 1..1024
};

// Errors: kNotFormatted (no superblock), kCorrupt, kChecksum, kUnsupportedFeature, kVersion; detail names the
// file/bits.
Result<Superblock> load_superblock(const std::string& directory);
Result<void> store_superblock(const std::string& directory, const Superblock& superblock);
// The parser itself, for the fuzzer; never trusts a byte.
Result<Superblock> parse_superblock(std::span<const std::byte> bytes);
std::string encode_superblock(const Superblock& superblock);

enum class LockMode : std::uint8_t { kShared, kExclusive };
// kLocked with the holder's pid and what it does ("mounted on /mnt by rmemfs, pid 7") when somebody else has it.
Result<UniqueFd> lock_directory(const std::string& directory, LockMode mode, const std::string& purpose);
// The holder of the exclusive lock says something else of itself.
Result<void> say_lock_purpose(const UniqueFd& lock, const std::string& purpose);

struct LockHolder {
  int pid = 0;
  std::string purpose;  // what it says of itself, with its pid
};
// The process that has the directory locked exclusively. Nothing: none, or one that this process cannot see. Without
// touching the lock: who tries to take it meanwhile is not disturbed.
std::optional<LockHolder> lock_holder(const std::string& directory);

std::string journal_path_of(const std::string& directory, const Superblock& superblock);
// The node's address with a relative shm path made absolute.
std::string node_address_of(const std::string& directory, const NodeRecord& node);

}  // namespace rmemfs
