// Opening: nothing here is proportional to the number of files, only to the number of chunks.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "manager/manager_impl.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::size_t kMaxExtentsPerStep = 64;

std::size_t step_extents(const Journal& journal) {
  const std::size_t room = journal.max_payload_bytes();
  if (room < kStepOverheadBytes + kExtentStepBytes) return 1;
  return std::min(kMaxExtentsPerStep, (room - kStepOverheadBytes) / kExtentStepBytes);
}

Result<std::uint64_t> counter(Metastore& store, std::string_view name) {
  ASSIGN_OR_RETURN(const auto value, store.get(singleton_key(name)));
  if (!value) return Error(Errc::kCorrupt, "metadata store", "the counter " + std::string(name) + " is missing");
  return decode_number(*value);
}

}  // namespace

ManagerImpl::ManagerImpl(const Superblock& superblock, Metastore& metastore, Journal& journal, BlockingPool& pool,
                         const ManagerOptions& options)
    : superblock_(superblock),
      metastore_(metastore),
      journal_(journal),
      pool_(pool),
      options_(options),
      extents_per_step_(step_extents(journal)),
      cache_(options.inode_cache_entries,
             [this](InodeNumber ino) -> Result<Attributes> {
               const std::string key = inode_key(ino);
               ASSIGN_OR_RETURN(const auto value, metastore_.get(key));
               if (!value) return Error(Errc::kNotFound, "inode");
               return decode_inode(key, *value);
             }),
      dirents_(options.inode_cache_entries / 2),
      access_times_(options.access_times) {}

ManagerImpl::~ManagerImpl() { close(); }

Result<void> ManagerImpl::load_counters() {
  ASSIGN_OR_RETURN(const auto next_inode, counter(metastore_, "next_inode"));
  ASSIGN_OR_RETURN(const auto next_chunk, counter(metastore_, "next_chunk"));
  ASSIGN_OR_RETURN(const auto inodes, counter(metastore_, "inodes"));
  if (next_inode <= kRootInode.value() || next_chunk == 0) return Error(Errc::kCorrupt, "metadata store", "a counter");
  next_inode_ = next_inode;
  inode_limit_ = next_inode;
  next_chunk_ = next_chunk;
  inodes_ = inodes;
  return success();
}

Result<void> ManagerImpl::load_chunks() {
  std::vector<ChunkId> dead;
  const auto records = metastore_.iterate("C");
  for (; records->valid(); records->next()) {
    ASSIGN_OR_RETURN(const ChunkId id, decode_chunk_key(records->key()));
    ASSIGN_OR_RETURN(const ChunkRecord record, decode_chunk(records->value()));
    if (id.value() >= next_chunk_.load() || nodes_->find(record.node) == nullptr) {
      return Error(Errc::kCorrupt, "chunk map", "chunk " + std::to_string(id.value()));
    }
    ASSIGN_OR_RETURN(const auto bitmap, metastore_.get(bitmap_key(id)));
    // Lost, and no file has a block in it any more: forgotten.
    if (record.state == ChunkState::kLost && (!bitmap || bitmap->find_first_not_of('\0') == std::string::npos)) {
      dead.push_back(id);
      continue;
    }
    RETURN_IF_ERROR(chunks_.add(id, record));
    const auto blocks = static_cast<std::uint32_t>(record.region.length_bytes / kBlockBytes);
    RETURN_IF_ERROR(allocator_->add_chunk(id, blocks, bitmap ? std::string_view(*bitmap) : std::string_view()));
    if (record.state == ChunkState::kLost) allocator_->drop_chunk(id);
  }
  RETURN_IF_ERROR(records->status());
  if (dead.empty()) return success();
  in_background([this, dead = std::move(dead)] {
    for (const ChunkId id : dead) {
      TransactionBuilder builder;
      builder.erase(chunk_key(id));
      builder.erase(bitmap_key(id));
      const auto committed = commit_blocking(builder);
      if (!committed.ok()) log::warn("a lost chunk is forgotten by a later mount: {}", committed.error().message());
    }
  });
  return success();
}

Result<void> ManagerImpl::start() {
  ASSIGN_OR_RETURN(nodes_, NodeSet::make(superblock_, options_));
  RETURN_IF_ERROR(load_counters());

  // The journal may call these after the manager is gone: they hold what they need.
  journal_.on_applied = [&store = metastore_](CommitId applied) { store.overlay_drop(applied); };
  journal_.on_persisted = [allocator = allocator_](CommitId persisted) { allocator->persisted(persisted); };
  journal_.on_failure = [failure = failure_](const Error& error) {
    log::error("the metadata store failed ({}): the mount is read-only from now on", error.message());
    failure->set(error.message());
  };

  RETURN_IF_ERROR(nodes_->fence_all());
  RETURN_IF_ERROR(load_chunks());
  const std::uint64_t chunks = next_chunk_.load();
  for (const auto& node : nodes_->nodes()) {
    if (node->health.load() != NodeHealth::kAlive) continue;
    compare_generation(*node, Generation(node->generation.load()), chunks);
    find_again(*node, Generation(node->generation.load()));
    in_background([this, &node = *node] { reconcile_leases(node); });
  }
  NodeSet::Hooks hooks;
  hooks.before = [this] { return next_chunk_.load(std::memory_order_acquire); };
  hooks.answered = [this](Node& node, Generation generation, std::uint64_t mark) {
    compare_generation(node, generation, mark);
    find_again(node, generation);
  };
  hooks.suspend = [this](const Node& node, bool suspended) { suspend_chunks(node, suspended); };
  hooks.joined = [this](Node& node) { in_background([this, &node] { reconcile_leases(node); }); };
  hooks.fenced = [this] { fenced(); };
  nodes_->start(std::move(hooks));
  lease_ahead();
  return success();
}

void ManagerImpl::close() {
  write_access_times();
  if (nodes_) nodes_->stop();
  std::unique_lock lock(background_mutex_);
  closing_ = true;
  background_done_.wait(lock, [this] { return background_ == 0; });
}

Result<std::unique_ptr<Manager>> Manager::open(const Superblock& superblock, Metastore& metastore, Journal& journal,
                                               BlockingPool& pool, const ManagerOptions& options) {
  auto manager = std::make_unique<ManagerImpl>(superblock, metastore, journal, pool, options);
  RETURN_IF_ERROR(manager->start());
  return manager;
}

// Extended attributes are not in this: set_extended() refuses those that would not fit, and default access lists whose
// heirs would not.
std::size_t Manager::largest_transaction_bytes() {
  return std::max({rename_bytes(kMaxNameBytes, kMaxNameBytes), make_bytes(kMaxNameBytes, kMaxSymlinkBytes),
                   kStepOverheadBytes + kExtentStepBytes});
}

Result<void> Manager::format(Home& home, const Superblock&) {
  Attributes root;
  root.ino = kRootInode;
  root.mode = S_IFDIR | 0755;
  root.nlink = 2;
  root.uid = ::geteuid();
  root.gid = ::getegid();
  root.size = kDirectorySize;
  root.parent = kRootInode;
  root.atime = root.mtime = root.ctime = root.btime = now_timestamp();
  const std::pair<std::string, std::string> records[] = {
      {inode_key(kRootInode), encode(root)},
      {singleton_key("next_inode"), encode_number(kRootInode.value() + 1)},
      {singleton_key("next_chunk"), encode_number(1)},
      {singleton_key("inodes"), encode_number(1)},
  };
  std::vector<Modification> modifications;
  for (const auto& [key, value] : records) modifications.push_back({ModificationKind::kPut, key, value});
  RETURN_IF_ERROR(home.apply(modifications, home.durable_watermark()));
  RETURN_IF_ERROR(home.make_durable());
  return success();
}

}  // namespace rmemfs
