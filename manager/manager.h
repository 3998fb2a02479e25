// The manager: the authority on names, attributes, extents and the chunk map. Each operation is one transaction (large
// ones: bounded sub-transactions behind an orphan record). A library inside the mount daemon.
//
// Threads: any lane. Methods that return Task may suspend (journal slots, space); the others never wait but may read
// the local disk. Lock order: kRename, then kInode (lower number first), then the rest as in util/mutex.h. Arguments
// passed by view or reference must stay alive until the Task is done. A directory's size is 4096, whatever it holds,
// and it has no blocks; a symlink's size is its target's length. Errors: those that POSIX names for each call, plus
// kJournalFull, kStore, kCorrupt, kReadOnly (after a home failure). Permission checks are the kernel's
// (default_permissions).
#pragma once

#include <atomic>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "control/node_client.h"
#include "journal/journal.h"
#include "manager/inode.h"
#include "manager/meta_format.h"
#include "manager/metastore.h"
#include "manager/small_vector.h"
#include "manager/superblock.h"
#include "util/executor.h"
#include "util/result.h"
#include "util/task.h"

namespace rmemfs {

// One chunk, as the data path sees it. The object lives as long as the manager; `region` and `node` are constant.
struct Chunk {
  ChunkId id;
  NodeId node;
  RemoteRegion region;
  std::atomic<ChunkState> state{ChunkState::kActive};
  mutable std::atomic<bool> used{false};  // by a lane: since then all lanes are prepared for it
};

// A run of file bytes and where they are. chunk == nullptr: a hole (or unwritten): zeros.
struct Piece {
  std::uint64_t file_offset = 0;
  std::uint64_t length = 0;
  const Chunk* chunk = nullptr;
  std::uint64_t chunk_offset = 0;
};
using Pieces = boost::container::small_vector<Piece, 4>;

// What a write must do before it can be committed: data to `pieces` (they cover the range exactly), zeros to `zeros`.
struct WritePlan {
  std::uint64_t offset = 0, length = 0;
  Pieces pieces;
  Pieces zeros;                                         // rests of freshly allocated blocks; the gap after an old end
  boost::container::small_vector<Extent, 2> fresh;      // reserved by this plan, not yet in the layout
  boost::container::small_vector<Extent, 2> converted;  // unwritten parts that become written
};

struct NewNode {
  std::uint32_t mode = 0;          // type and permission bits
  std::uint32_t umask = 0;         // counts unless the directory has a default access list
  std::uint32_t uid = 0, gid = 0;  // of the caller; a setgid parent overrides gid
  std::uint32_t rdev = 0;
  std::string_view symlink_target;  // S_IFLNK
};

// What a change does to a file's set-user-ID and set-group-ID bits. kClear keeps S_ISGID without S_IXGRP, which once
// meant mandatory locking; kClearAll does not.
enum class SetId : std::uint8_t { kKeep, kClear, kClearAll };

void clear_set_id(Attributes& attributes, SetId set_id);

struct AttributeChange {
  std::optional<std::uint32_t> mode, uid, gid;
  SetId set_id = SetId::kKeep;
  std::optional<Timestamp> atime, mtime, ctime;  // ctime: now unless given
};

// A change of one extended attribute; `value` none: it is removed.
struct ExtendedChange {
  enum class Mode : std::uint8_t { kAny, kCreate, kReplace };
  std::string_view name;
  std::optional<std::string_view> value;
  Mode mode = Mode::kAny;
  bool clear_group_id = false;  // of an access list: the caller may not keep S_ISGID
};

struct DirectoryEntry {
  std::string name;
  InodeNumber ino;
  std::uint8_t type = 0;
  std::uint64_t cookie = 0;  // pass it to go on after this entry and any others with the same cookie
};

struct AllocateMode {
  bool keep_size = false;
  bool zero = false;
  SetId set_id = SetId::kKeep;
};

enum class RenameMode : std::uint8_t { kReplace, kNoReplace, kExchange };

struct SpaceStatistics {
  std::uint64_t total_bytes = 0;  // leased and not lost, plus what the reachable nodes could still lend
  std::uint64_t free_bytes = 0;   // on the reachable nodes
  std::uint64_t inodes = 0;
  std::uint64_t lost_bytes = 0;
};

enum class NodeHealth : std::uint8_t { kUnknown, kAlive, kUnreachable, kRestartedEmpty };
struct NodeStatus {
  NodeId id;
  std::string address;
  NodeHealth health = NodeHealth::kUnknown;
  Generation generation;
  std::uint64_t pool_bytes = 0, free_bytes = 0, leased_bytes = 0, used_bytes = 0, lost_bytes = 0;
  std::uint64_t chunks = 0;
  DurabilityDescriptor durability;
  bool pool_in_file = false;        // its pool outlives its process; false while nothing is known (no generation)
  double seconds_since_answer = 0;  // infinity: it has not answered since the mount
};

// What reading does to access times; the words are those of mount(8).
struct AccessTimes {
  enum class Rule : std::uint8_t { kNever, kRelative, kAlways };  // noatime, relatime, strictatime
  Rule rule = Rule::kRelative;
  bool directories = true;  // false: nodiratime
};

struct ManagerOptions {
  std::string directory;
  std::uint32_t deadline_ms = 10000;
  std::uint32_t heartbeat_ms = 1000;
  bool sync_commit = false;  // -o commit=sync: every operation awaits persist() before it returns
  bool degraded = false;     // mount although a node does not answer
  AccessTimes access_times;
  std::size_t inode_cache_entries = 262144;
  // How a node's control client is made; NodeClient::make unless given (tests give nodes in memory).
  std::function<Result<std::unique_ptr<NodeClient>>(const std::string& address)> make_node_client;
};

class Manager {
 public:
  // `metastore` is recovered, `journal` open on it; both outlive the manager. Loads the chunk map and the bitmaps,
  // fences this epoch on all nodes, starts the heartbeat thread. Blocks. The superblock's epoch is already this
  // mount's. Errors: kUnreachable (names the node; unless degraded), kRefused, kVersion, kCorrupt.
  static Result<std::unique_ptr<Manager>> open(const Superblock& superblock, Metastore& metastore, Journal& journal,
                                               BlockingPool& pool, const ManagerOptions& options);
  // Writes the first records (root directory) of a new file system through `home`. For mkfs.
  static Result<void> format(Home& home, const Superblock& superblock);
  // The most that one transaction of any operation may need, in bytes of its payload: what grows without bound is cut
  // into several, and extended attributes are refused where a journal has no room for them. A journal that cannot hold
  // it (transaction_capacity) refuses some ordinary calls for ever.
  static std::size_t largest_transaction_bytes();
  virtual ~Manager() = default;

  // Inodes.
  virtual Result<InodeRef> get(InodeNumber ino) = 0;  // kNotFound
  virtual Attributes attributes(Inode& inode) = 0;    // for somebody to see: a write after it has a later time
  virtual std::uint32_t mode(Inode& inode) = 0;
  virtual std::uint64_t size(Inode& inode) = 0;
  virtual std::uint32_t extended_bytes(Inode& inode) = 0;
  virtual Task<Result<Attributes>> set_attributes(InodeRef inode, AttributeChange change, std::uint64_t request) = 0;

  // The file has been read: its access time becomes now if the rule says so. It is written with the inode's next
  // change, by persist() or close(), or with those of many others; a crash may lose it. Never waits.
  virtual void accessed(const InodeRef& inode) = 0;
  virtual void set_access_times(AccessTimes how) = 0;  // from now on; any thread

  // Extended attributes, and as such access lists (manager/posix_acl.h): they follow chmod and creation, and setting
  // one changes the permission bits. kNoAttribute; kExists and kNoAttribute as the mode says; kNoSpace above
  // kMaxExtendedBytes for all of an inode, or above what the journal takes at once with what may go along with it (for
  // a default list: a new file that inherits it); kInvalid and kAccess for lists.
  virtual Result<std::string> get_extended(Inode& inode, std::string_view name) = 0;
  virtual Result<std::vector<std::string>> list_extended(Inode& inode) = 0;
  virtual Task<Result<void>> set_extended(InodeRef inode, ExtendedChange change, std::uint64_t request) = 0;

  // Names. Every change updates times, link counts and entry counts of all involved in the same transaction.
  virtual Result<InodeRef> lookup(Inode& parent, std::string_view name) = 0;
  virtual Task<Result<InodeRef>> make_node(InodeRef parent, std::string_view name, NewNode node,
                                           std::uint64_t request) = 0;
  // A regular file without a name, as O_TMPFILE asks for: an orphan until link() gives it one.
  virtual Task<Result<InodeRef>> make_temporary(InodeRef directory, NewNode node, std::uint64_t request) = 0;
  virtual Task<Result<void>> link(InodeRef inode, InodeRef parent, std::string_view name, std::uint64_t request) = 0;
  // The inode that lost a name; with nlink 0 it is an orphan: the caller calls purge() when nobody uses it any more.
  virtual Task<Result<InodeRef>> unlink(InodeRef parent, std::string_view name, std::uint64_t request) = 0;
  virtual Task<Result<InodeRef>> rmdir(InodeRef parent, std::string_view name, std::uint64_t request) = 0;
  // The replaced inode (as for unlink), or null.
  virtual Task<Result<InodeRef>> rename(InodeRef parent, std::string_view name, InodeRef new_parent,
                                        std::string_view new_name, RenameMode mode, std::uint64_t request) = 0;
  virtual Result<std::string> readlink(Inode& inode) = 0;
  // About `limit` entries after those with the cookie `after` (0: from the start, which is . and ..). Empty: the end.
  // Names whose hashes are equal have one cookie; they are given together, even if that is more than `limit`.
  virtual Result<std::vector<DirectoryEntry>> read_directory(Inode& directory, std::uint64_t after,
                                                             std::size_t limit) = 0;

  // Frees an orphan's space and forgets it, in bounded transactions. Idempotent. Takes the inode's whole range lock.
  virtual Task<Result<void>> purge(InodeNumber ino) = 0;
  // Orphans left by a crash: purges them all, in the background of a fresh mount.
  virtual Task<Result<void>> purge_orphans() = 0;

  // Data. The caller holds the inode's range lock over the block-rounded range: shared for map(), exclusive for the
  // others; from the old end (rounded down) to UINT64_MAX when the size changes or space is freed.
  // Where [offset, offset+length) is: pieces in order, covering it exactly. Does not look at the size.
  virtual Result<Pieces> map(Inode& inode, std::uint64_t offset, std::uint64_t length) = 0;
  // kNoSpace before anything is changed; may lease chunks and force freed space out of its quarantine. New blocks are
  // on nodes that answer. When those have no room while some node is unreachable, the error is kUnreachable, not
  // kNoSpace: nobody can say that the file system is full. It comes once the node has been silent for the deadline;
  // until then, but not beyond `limit`, the call waits for it, so that a node may be restarted under a writer.
  // In very fragmented space the plan is for a beginning of the range only (plan.length), as much as one transaction
  // can hold; the caller commits it and plans the rest.
  virtual Task<Result<WritePlan>> plan_write(InodeRef inode, std::uint64_t offset, std::uint64_t length,
                                             TimePoint limit) = 0;
  // After the data is in place: extents, size (grows to offset+length), times in one transaction.
  // The plan is used up, whatever the result: what could not be committed is given back here. An error after the commit
  // (it could not be made persistent, with sync_commit) leaves the file as written.
  virtual Task<Result<void>> commit_write(InodeRef inode, const WritePlan& plan, SetId set_id,
                                          std::uint64_t request) = 0;
  // Gives back what a plan reserved that is not going to be committed. `ambiguous`: a write may still land there
  // (deadline): quarantined instead.
  virtual void abandon_write(const WritePlan& plan, bool ambiguous) = 0;
  // Blocks of `pieces` may still be written by an operation that was given up; once freed they are not given to anybody
  // while this mount lives.
  virtual void quarantine(const Pieces& pieces) = 0;

  // Size change. Growing: `zeros` (from plan_truncate) must have been written first.
  virtual Result<Pieces> plan_truncate(Inode& inode, std::uint64_t size) = 0;
  virtual Task<Result<Attributes>> truncate(InodeRef inode, std::uint64_t size, AttributeChange change,
                                            std::uint64_t request) = 0;
  // fallocate(2), mode 0 or KEEP_SIZE: unwritten extents in the holes of the range. When it makes the file larger, the
  // zeros of plan_truncate(offset + length) must have been written first, as for a growing truncate. Waits for space as
  // plan_write does.
  // `zero` (ZERO_RANGE): whole blocks of the range become unwritten too; the caller writes zeros to the partial edges
  // first (plan_punch).
  virtual Task<Result<void>> allocate(InodeRef inode, std::uint64_t offset, std::uint64_t length, AllocateMode mode,
                                      TimePoint limit, std::uint64_t request) = 0;
  // PUNCH_HOLE: whole blocks are freed; the caller writes zeros to the partial edges first (plan_punch).
  virtual Result<Pieces> plan_punch(Inode& inode, std::uint64_t offset, std::uint64_t length) = 0;
  virtual Task<Result<void>> punch(InodeRef inode, std::uint64_t offset, std::uint64_t length, SetId set_id,
                                   std::uint64_t request) = 0;
  // SEEK_DATA (hole=false) and SEEK_HOLE (hole=true); kNoSuchOffset.
  virtual Result<std::uint64_t> seek(Inode& inode, std::uint64_t offset, bool hole) = 0;

  // Durability of what was acknowledged so far: awaits Journal::persist.
  virtual Task<Result<void>> persist(InodeRef inode) = 0;
  virtual Task<Result<void>> persist_all() = 0;
  // With sync_commit: awaits the persistence of the inode's last change; otherwise returns at once. For what unlink(),
  // rmdir() and rename() did to a directory: they do not wait themselves, so that the caller learns of the inode that
  // lost its name even when the change cannot be made persistent.
  virtual Task<Result<void>> settled(InodeRef inode) = 0;

  // Nodes and space.
  virtual SpaceStatistics space() = 0;
  virtual std::vector<NodeStatus> nodes() = 0;
  virtual std::string address(NodeId node) const = 0;
  virtual NodeHealth health(NodeId node) const = 0;  // an atomic read
  // Until when an operation that starts now may wait for the node: until its request's limit and, for a node that does
  // not answer, for the mount's deadline counted from its last answer; but a moment is always granted. So one system
  // call that takes several requests one after the other does not wait several deadlines. Atomic reads.
  virtual TimePoint operation_deadline(NodeId node, TimePoint limit) const = 0;
  // The data path saw a deadline or a broken link. Any lane; never waits. The node is asked at once, and gives out no
  // space if it does not answer; the heartbeat decides when it is back.
  virtual void node_unreachable(NodeId node) = 0;
  // The data path saw kRegionLost: marks the chunk lost (committed in the background), at once for readers. It is found
  // again when its node is back with the chunk's region and its contents (manager/chunk_map.h).
  virtual void chunk_lost(const Chunk& chunk) = 0;
  // A node fenced us: a newer mount has taken over. Everything fails with kFenced from now on.
  virtual void fenced() = 0;
  virtual bool is_fenced() const = 0;
  // Why changes end with kReadOnly: what the metadata store failed with. Empty: it did not. Any thread.
  virtual std::string store_failure() const = 0;
  std::function<void()> on_fenced;  // called once; set before the first operation

  // Writes access times, stops the heartbeat, waits for background work. The journal is closed by its owner afterwards.
  virtual void close() = 0;
};

// Locks two inodes (which may be the same) in order.
class InodePairLock {
 public:
  InodePairLock(Inode& a, Inode& b);
  ~InodePairLock();
  InodePairLock(const InodePairLock&) = delete;
  InodePairLock& operator=(const InodePairLock&) = delete;

 private:
  Inode* first_;
  Inode* second_;  // null when they are the same
};

}  // namespace rmemfs
