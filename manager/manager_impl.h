// The manager's inside. Its methods are spread over manager_*.cc by family; this is what they share.
//
// How each operation runs:
//   1  slots for its transaction are reserved before any lock (journal J6)
//   2  inodes are locked, lower number first; what it depends on is read or read again
//   3  the change is made in memory and in a TransactionBuilder
//   4  commit(): journal, overlay, last_commit, hand-over; nothing after the journal's commit can fail
//   5  locks are dropped; with sync_commit, the transaction's persistence is awaited
// Invariants:
//   N1  In-memory inodes, layouts and counters are what the committed transactions say, whenever their lock is free;
//   but
//       an access time may be newer, and is then noted (manager_access.cc).
//   N2  An inode number or chunk number is used only after a counter above it is in the same or an earlier transaction.
//   N3  Space is freed in the allocator under the id of the transaction that freed it, after its commit.
//   N4  A chunk is in the chunk map before any extent names it, and its record has a lower commit id.
//   N5  Background work holds a count in background_; close() waits until it is zero, and none starts after it.
//   N6  A chunk's state is written to its record under state_mutex_, as it is then, after it was lost, or before it is
//       found again: so the record with the highest commit id says what the chunk is. A crash before a loss is recorded
//       leaves it to the next mount, which compares generations.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <span>
#include <unordered_set>

#include "manager/chunk_map.h"
#include "manager/dirent_cache.h"
#include "manager/extent_allocator.h"
#include "manager/inode_cache.h"
#include "manager/layout.h"
#include "manager/manager.h"
#include "manager/node_set.h"

namespace rmemfs {

// That the metadata store failed, and with what: the first error stays. Any thread.
class StoreFailure {
 public:
  void set(std::string reason);
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  std::string reason() const;  // empty: it did not fail

 private:
  std::atomic<bool> failed_{false};
  mutable std::mutex mutex_;
  std::string reason_;  // guarded by mutex_
};

class ManagerImpl final : public Manager {
 public:
  ManagerImpl(const Superblock& superblock, Metastore& metastore, Journal& journal, BlockingPool& pool,
              const ManagerOptions& options);
  ~ManagerImpl() override;
  Result<void> start();

  Result<InodeRef> get(InodeNumber ino) override;
  Attributes attributes(Inode& inode) override;
  std::uint32_t mode(Inode& inode) override;
  std::uint64_t size(Inode& inode) override;
  std::uint32_t extended_bytes(Inode& inode) override;
  Task<Result<Attributes>> set_attributes(InodeRef inode, AttributeChange change, std::uint64_t request) override;
  void accessed(const InodeRef& inode) override;
  void set_access_times(AccessTimes how) override { access_times_.store(how, std::memory_order_relaxed); }

  Result<std::string> get_extended(Inode& inode, std::string_view name) override;
  Result<std::vector<std::string>> list_extended(Inode& inode) override;
  Task<Result<void>> set_extended(InodeRef inode, ExtendedChange change, std::uint64_t request) override;

  Result<InodeRef> lookup(Inode& parent, std::string_view name) override;
  Task<Result<InodeRef>> make_node(InodeRef parent, std::string_view name, NewNode node,
                                   std::uint64_t request) override;
  Task<Result<InodeRef>> make_temporary(InodeRef directory, NewNode node, std::uint64_t request) override;
  Task<Result<void>> link(InodeRef inode, InodeRef parent, std::string_view name, std::uint64_t request) override;
  Task<Result<InodeRef>> unlink(InodeRef parent, std::string_view name, std::uint64_t request) override;
  Task<Result<InodeRef>> rmdir(InodeRef parent, std::string_view name, std::uint64_t request) override;
  Task<Result<InodeRef>> rename(InodeRef parent, std::string_view name, InodeRef new_parent, std::string_view new_name,
                                RenameMode mode, std::uint64_t request) override;
  Result<std::string> readlink(Inode& inode) override;
  Result<std::vector<DirectoryEntry>> read_directory(Inode& directory, std::uint64_t after, std::size_t limit) override;

  Task<Result<void>> purge(InodeNumber ino) override;
  Task<Result<void>> purge_orphans() override;

  Result<Pieces> map(Inode& inode, std::uint64_t offset, std::uint64_t length) override;
  Task<Result<WritePlan>> plan_write(InodeRef inode, std::uint64_t offset, std::uint64_t length,
                                     TimePoint limit) override;
  Task<Result<void>> commit_write(InodeRef inode, const WritePlan& plan, SetId set_id, std::uint64_t request) override;
  void abandon_write(const WritePlan& plan, bool ambiguous) override;
  void quarantine(const Pieces& pieces) override;

  Result<Pieces> plan_truncate(Inode& inode, std::uint64_t size) override;
  Task<Result<Attributes>> truncate(InodeRef inode, std::uint64_t size, AttributeChange change,
                                    std::uint64_t request) override;
  Task<Result<void>> allocate(InodeRef inode, std::uint64_t offset, std::uint64_t length, AllocateMode mode,
                              TimePoint limit, std::uint64_t request) override;
  Result<Pieces> plan_punch(Inode& inode, std::uint64_t offset, std::uint64_t length) override;
  Task<Result<void>> punch(InodeRef inode, std::uint64_t offset, std::uint64_t length, SetId set_id,
                           std::uint64_t request) override;
  Result<std::uint64_t> seek(Inode& inode, std::uint64_t offset, bool hole) override;

  Task<Result<void>> persist(InodeRef inode) override;
  Task<Result<void>> persist_all() override;
  Task<Result<void>> settled(InodeRef inode) override { return settle(CommitId(inode->last_commit.load())); }

  SpaceStatistics space() override;
  std::vector<NodeStatus> nodes() override;
  std::string address(NodeId node) const override;
  NodeHealth health(NodeId node) const override;
  TimePoint operation_deadline(NodeId node, TimePoint limit) const override;
  void node_unreachable(NodeId node) override { nodes_->ask_soon(node); }
  void chunk_lost(const Chunk& chunk) override;
  void fenced() override;
  bool is_fenced() const override { return fenced_.load(std::memory_order_acquire); }
  std::string store_failure() const override { return failure_->reason(); }

  void close() override;

 private:
  // manager_open.cc
  Result<void> load_counters();
  Result<void> load_chunks();

  // manager_commit.cc
  Result<void> readable() const;  // kFenced
  Result<void> writable() const;  // kFenced, kReadOnly
  Task<Result<SlotReservation>> room(std::size_t bytes);
  CommitId commit(SlotReservation slots, TransactionBuilder& builder, std::uint64_t request,
                  std::span<Inode* const> inodes);
  CommitId commit(SlotReservation slots, TransactionBuilder& builder, std::uint64_t request,
                  std::initializer_list<Inode*> inodes) {
    return commit(std::move(slots), builder, request, std::span(inodes.begin(), inodes.size()));
  }
  // The same, when the transaction uses the new number `ino` (N2).
  CommitId commit_with_number(SlotReservation slots, TransactionBuilder& builder, std::uint64_t request,
                              std::initializer_list<Inode*> inodes, InodeNumber ino);
  Task<Result<void>> settle(CommitId id);   // awaits persistence with sync_commit
  Result<Layout*> layout_of(Inode& inode);  // under the inode's mutex

  // manager_access.cc
  void write_access_times();  // blocks
  Result<void> write_access_times(std::span<const InodeRef> inodes);
  Task<void> write_access_time(InodeRef inode);

  // manager_extended.cc
  Result<ExtendedAttributes> load_extended(const Attributes& a);
  static void put_extended(Attributes& a, const std::string& record, TransactionBuilder& builder);
  Result<bool> change_extended(const ExtendedChange& change, Attributes& a, ExtendedAttributes& all) const;
  Result<std::string> inherit(Inode& directory, NewNode& node);
  Result<void> change_list_mode(Attributes& a, TransactionBuilder& builder);

  // manager_names.cc
  DirentCache::Name name_in(InodeNumber parent, std::string_view name) const {
    return {parent, hash_name(name, superblock_.name_hash_seed), name};
  }
  Result<std::optional<Dirent>> find_dirent(InodeNumber parent, std::string_view name);
  static void start_inode(Inode& child, const NewNode& node, const Attributes& above);
  void drop_name(Inode& child, Timestamp now, TransactionBuilder& builder);
  Result<void> try_make(const InodeRef& parent, std::string_view name, const NewNode& node, const std::string& extended,
                        const InodeRef& child, SlotReservation slots, std::uint64_t request, CommitId& id);
  Result<bool> try_remove(const InodeRef& parent, std::string_view name, bool directory, SlotReservation& slots,
                          std::uint64_t request, InodeRef& child, CommitId& id);
  Task<Result<InodeRef>> remove_name(InodeRef parent, std::string_view name, bool directory, std::uint64_t request);
  Result<CommitId> try_link(const InodeRef& inode, const InodeRef& parent, std::string_view name, SlotReservation slots,
                            std::uint64_t request);

  // manager_write.cc
  static bool changes_nothing(Inode& inode, const WritePlan& plan, SetId set_id);

  // manager_rename.cc
  struct Renaming;
  Result<bool> inside(InodeNumber directory, const InodeRef& maybe_inside);
  Result<bool> try_rename(Renaming& r);
  Result<void> check_replaced(const Attributes& source, const Attributes& target) const;

  // manager_layout.cc
  Result<std::size_t> count_extents(Inode& inode, std::uint64_t begin, std::uint64_t end);
  std::vector<SpaceRun> remove_range(Inode& inode, std::uint64_t begin, std::uint64_t end, TransactionBuilder& builder);
  void freed(std::span<const SpaceRun> runs, CommitId id);
  Task<Result<bool>> truncate_step(InodeRef inode, std::uint64_t size, bool grows, const AttributeChange& change,
                                   std::uint64_t request);
  Task<Result<bool>> punch_step(InodeRef inode, std::uint64_t begin, std::uint64_t& end, SetId set_id,
                                std::uint64_t request);
  Task<Result<bool>> zero_step(InodeRef inode, std::uint64_t begin, std::uint64_t& end, std::uint64_t request);
  Result<Pieces> written_parts(Inode& inode, std::initializer_list<std::pair<std::uint64_t, std::uint64_t>> ranges);

  // manager_purge.cc
  Task<Result<bool>> purge_step(InodeRef inode);

  // manager_allocate.cc
  Task<Result<void>> fill_holes(InodeRef inode, std::uint64_t begin, std::uint64_t end, TimePoint limit,
                                std::uint64_t request);
  Task<Result<void>> insert_unwritten(InodeRef inode, std::span<const Extent> extents, std::uint64_t request);

  // manager_space.cc
  Task<Result<std::vector<SpaceRun>>> reserve_space(std::uint64_t blocks, SpaceHint hint, TimePoint limit);
  Result<void> lease_until(std::uint64_t free_blocks, TimePoint limit);  // blocks
  Result<bool> lease_somewhere(bool& silent, TimePoint limit);
  Result<void> lease_from(Node& node, TimePoint limit);  // blocks; under lease_mutex_
  std::uint32_t call_timeout_ms(TimePoint limit) const;  // of one call to a node that somebody waits for
  Result<CommitId> commit_blocking(TransactionBuilder& builder);
  void lease_ahead();
  void reconcile_leases(Node& node);  // blocks
  void compare_generation(Node& node, Generation generation, std::uint64_t chunks_before);
  void suspend_chunks(const Node& node, bool suspended);
  void record_lost(std::vector<Chunk*> lost);
  bool lose(Chunk& chunk);                             // true: it was not lost yet
  void find_again(Node& node, Generation generation);  // blocks; by the node's thread, or before there is one
  void in_background(std::function<void()> work);

  // Constant after construction.
  const Superblock superblock_;
  Metastore& metastore_;
  Journal& journal_;
  BlockingPool& pool_;
  const ManagerOptions options_;
  const std::size_t extents_per_step_;  // that one transaction changes
  std::unique_ptr<NodeSet> nodes_;

  // With their own synchronization.
  ChunkMap chunks_;
  // Shared with the journal's callbacks, which may outlive the manager.
  const std::shared_ptr<ExtentAllocator> allocator_ = std::make_shared<ExtentAllocator>();
  const std::shared_ptr<StoreFailure> failure_ = std::make_shared<StoreFailure>();
  InodeCache cache_;
  DirentCache dirents_;
  std::atomic<std::uint64_t> next_inode_{2};
  std::atomic<std::uint64_t> inodes_{1};
  std::atomic<std::uint64_t> next_chunk_{1};  // changed under lease_mutex_
  std::atomic<bool> fenced_{false};
  std::atomic<bool> leasing_ahead_{false};
  Mutex rename_mutex_{LockRank::kRename};  // moves of directories
  std::mutex lease_mutex_;                 // one lease at a time; held over calls to nodes, never on a lane
  std::mutex state_mutex_;                 // chunks' states in records: the last one written is the chunk's (N6)

  Mutex lost_mutex_{LockRank::kChunkMap};  // held while a chunk's state and the allocator's view of it change together

  Mutex number_mutex_{LockRank::kChunkMap};
  std::atomic<std::uint64_t> inode_limit_{0};  // changed under number_mutex_: committed next_inode

  Mutex orphan_mutex_{LockRank::kLeaf};
  std::unordered_set<std::uint64_t> live_orphans_;  // guarded by orphan_mutex_: lost their name in this mount
  std::unordered_set<std::uint64_t> temporary_;     // guarded by orphan_mutex_: those of them that link() may name

  Mutex access_mutex_{LockRank::kLeaf};
  std::vector<InodeRef> accessed_;    // guarded by access_mutex_: access times to be written
  std::uint64_t accessed_units_ = 0;  // guarded by access_mutex_: what they are charged
  TimePoint accessed_since_{};        // guarded by access_mutex_: of the first of them
  std::atomic<AccessTimes> access_times_;
  std::atomic<bool> writing_access_times_{false};  // one at a time

  std::mutex background_mutex_;
  std::condition_variable background_done_;
  std::size_t background_ = 0;  // guarded by background_mutex_
  bool closing_ = false;        // guarded by background_mutex_
};

inline constexpr std::uint64_t kDirectorySize = 4096;  // st_size of every directory

// Bytes of a transaction's payload, as bounds for reservations.
inline constexpr std::size_t kInodeBytes = 8 + 9 + 128;
inline constexpr std::size_t kExtendedKeyBytes = 8 + 9;
inline constexpr std::size_t kCounterBytes = 8 + 16 + 8;
inline constexpr std::size_t kOrphanBytes = 8 + 9;
inline constexpr std::size_t kExtentStepBytes = 224;  // puts after splits, an erase, a run of the bitmap
constexpr std::size_t dirent_bytes(std::size_t name_bytes) { return 8 + 17 + name_bytes + 16; }
constexpr std::size_t dirent_bytes(std::string_view name) { return dirent_bytes(name.size()); }
// Both directories, the moved and the replaced inode, which may become an orphan, and both names.
constexpr std::size_t rename_bytes(std::size_t name_bytes, std::size_t new_name_bytes) {
  return 4 * kInodeBytes + dirent_bytes(name_bytes) + dirent_bytes(new_name_bytes) + kOrphanBytes;
}
// `target_bytes`: of a symbolic link, else 0.
constexpr std::size_t make_bytes(std::size_t name_bytes, std::size_t target_bytes) {
  const std::size_t symlink_bytes = target_bytes == 0 ? 0 : 8 + 9 + target_bytes;
  return 2 * kInodeBytes + dirent_bytes(name_bytes) + symlink_bytes + 2 * kCounterBytes;
}
// What a step of truncate, punch or purge takes besides its extents; one extent always goes.
constexpr std::size_t kStepOverheadBytes = 2 * kInodeBytes + kCounterBytes + 4 * kOrphanBytes;

// kInvalid: a time that is none.
Result<void> check_change(const AttributeChange& change);
// ctime becomes now unless given.
void apply_change(Attributes& attributes, const AttributeChange& change, Timestamp now);
void put_inode(TransactionBuilder& builder, const Attributes& attributes);
// Merges of the chunks' bitmaps for `runs`.
void merge_bitmaps(TransactionBuilder& builder, std::span<const SpaceRun> runs, bool set);
SpaceRun run_of(const Extent& extent);

// Locks up to four inodes, which may be the same or null, lower number first.
class InodeSetLock {
 public:
  InodeSetLock(std::initializer_list<Inode*> inodes);
  ~InodeSetLock();
  InodeSetLock(const InodeSetLock&) = delete;
  InodeSetLock& operator=(const InodeSetLock&) = delete;

 private:
  std::array<Inode*, 4> held_{};
  std::size_t count_ = 0;
};

}  // namespace rmemfs
