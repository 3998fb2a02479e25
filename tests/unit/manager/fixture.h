// What the manager's tests stand on: a metadata directory in /tmp, memory nodes in this process, and a mount made of
// the real journal, the real store and the real manager. A crash is a child process that is killed.
#pragma once

#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>

#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "manager/manager.h"
#include "recovery/recover.h"

namespace rmemfs {

// A memory node without memory: regions are leased, listed and released, epochs fenced, contents lost at will.
class FakeNode {
 public:
  explicit FakeNode(std::uint64_t pool_bytes) : pool_bytes_(pool_bytes) {}

  void restart_empty() {
    std::lock_guard lock(mutex_);
    regions_.clear();
    generation_ = new_generation();
    pool_ = Uuid::random();
  }
  // Started with another pool, an empty one that never met the file system; the old one is put aside.
  void swap_pool() {
    std::lock_guard lock(mutex_);
    aside_ = {generation_, next_region_, epoch_, pool_, std::exchange(regions_, {})};
    generation_ = new_generation(), next_region_ = 1, epoch_ = 0, pool_ = Uuid::random();
  }
  // Started with the old pool again.
  void swap_back() {
    std::lock_guard lock(mutex_);
    generation_ = aside_.generation, next_region_ = aside_.next_region, epoch_ = aside_.epoch;
    pool_ = aside_.pool;
    regions_ = aside_.regions;
  }
  // The region is no longer leased, behind the file system's back.
  void drop_region(RegionId region) {
    std::lock_guard lock(mutex_);
    regions_.erase(region.value());
  }
  // Says another pool's name.
  void set_pool(const Uuid& pool) {
    std::lock_guard lock(mutex_);
    pool_ = pool;
  }
  Uuid pool() {
    std::lock_guard lock(mutex_);
    return pool_;
  }
  // Says another name each time: nobody can tell that two addresses lead here.
  void hide_pool() {
    std::lock_guard lock(mutex_);
    hides_pool_ = true;
  }
  // Of the regions that are leased from now on.
  void set_durability(DurabilityDescriptor durability) {
    std::lock_guard lock(mutex_);
    durability_ = durability;
  }
  void set_silent(bool silent) {
    std::lock_guard lock(mutex_);
    silent_ = silent;
  }
  std::size_t regions() {
    std::lock_guard lock(mutex_);
    return regions_.size();
  }
  std::uint64_t epoch() {
    std::lock_guard lock(mutex_);
    return epoch_;
  }
  std::uint64_t generation() {
    std::lock_guard lock(mutex_);
    return generation_;
  }
  std::uint64_t used() {
    std::lock_guard lock(mutex_);
    return used_locked();
  }
  // A lease as a crash between lease and commit leaves it.
  void leak(std::uint64_t bytes) {
    std::lock_guard lock(mutex_);
    add_region(bytes, 999);
  }

 private:
  friend class FakeClient;
  LeasedRegion add_region(std::uint64_t bytes, std::uint64_t tag) {
    LeasedRegion region;
    region.id = RegionId(next_region_++);
    region.generation = Generation(generation_);
    region.key = AccessKey::random();
    region.length_bytes = bytes;
    region.tag = tag;
    region.durability = static_cast<decltype(region.durability)>(durability_.durability);
    region.persist_method = static_cast<decltype(region.persist_method)>(durability_.method);
    regions_[region.id.value()] = region;
    return region;
  }
  std::uint64_t used_locked() const {
    std::uint64_t total = 0;
    for (const auto& [id, region] : regions_) total += region.length_bytes;
    return total;
  }

  struct Aside {
    std::uint64_t generation = 0, next_region = 0, epoch = 0;
    Uuid pool;
    std::map<std::uint64_t, LeasedRegion> regions;
  };

  std::mutex mutex_;
  const std::uint64_t pool_bytes_;
  // No two pools of a cluster have the same one.
  static std::uint64_t new_generation() {
    static std::atomic<std::uint64_t> last{0};
    return ++last;
  }
  std::uint64_t generation_ = new_generation();
  Uuid pool_ = Uuid::random();
  bool hides_pool_ = false;
  DurabilityDescriptor durability_;
  std::uint64_t next_region_ = 1;
  std::uint64_t epoch_ = 0;
  bool silent_ = false;
  std::map<std::uint64_t, LeasedRegion> regions_;
  Aside aside_;
};

class FakeClient final : public NodeClient {
 public:
  explicit FakeClient(std::shared_ptr<FakeNode> node) : node_(std::move(node)) {}

  Result<NodeDescription> describe(std::uint32_t) override {
    std::lock_guard lock(node_->mutex_);
    if (node_->silent_) return Error(Errc::kUnreachable);
    NodeDescription d;
    d.generation = Generation(node_->generation_);
    d.pool = node_->hides_pool_ ? Uuid::random() : node_->pool_;
    d.pool_bytes = node_->pool_bytes_;
    d.free_bytes = node_->pool_bytes_ - node_->used_locked();
    d.regions = node_->regions_.size();
    return d;
  }
  Result<LeasedRegion> lease(const FileSystemIdentity& who, std::uint64_t length, std::uint64_t minimum,
                             std::uint64_t tag, std::uint32_t) override {
    std::lock_guard lock(node_->mutex_);
    if (auto bad = check(who); !bad.ok()) return std::move(bad).error();
    const std::uint64_t free = node_->pool_bytes_ - node_->used_locked();
    if (free < minimum) return Error(Errc::kNoSpace);
    return node_->add_region(std::min(length, free / kBlockBytes * kBlockBytes), tag);
  }
  Result<void> release(const FileSystemIdentity& who, RegionId region, std::uint32_t) override {
    std::lock_guard lock(node_->mutex_);
    RETURN_IF_ERROR(check(who));
    return node_->regions_.erase(region.value()) == 1 ? success() : Result<void>(Errc::kNotFound);
  }
  Result<std::vector<LeasedRegion>> list(const FileSystemIdentity& who, std::uint32_t) override {
    std::lock_guard lock(node_->mutex_);
    if (auto bad = check(who); !bad.ok()) return std::move(bad).error();
    std::vector<LeasedRegion> out;
    for (const auto& [id, region] : node_->regions_) out.push_back(region);
    return out;
  }
  Result<void> fence(const FileSystemIdentity& who, std::uint32_t) override {
    std::lock_guard lock(node_->mutex_);
    RETURN_IF_ERROR(check(who));
    node_->epoch_ = who.epoch.value();
    return success();
  }
  Result<void> forget(const FileSystemIdentity& who, std::uint32_t) override {
    std::lock_guard lock(node_->mutex_);
    RETURN_IF_ERROR(check(who));
    return node_->regions_.empty() ? success() : Result<void>(Errc::kBusy);
  }
  Result<Generation> heartbeat(std::uint32_t) override {
    std::lock_guard lock(node_->mutex_);
    if (node_->silent_) return Error(Errc::kUnreachable);
    return Generation(node_->generation_);
  }

 private:
  Result<void> check(const FileSystemIdentity& who) {
    if (node_->silent_) return Error(Errc::kUnreachable);
    if (who.epoch.value() < node_->epoch_) return Error(Errc::kFenced);
    return success();
  }
  std::shared_ptr<FakeNode> node_;
};

using FakeNodes = std::map<std::string, std::shared_ptr<FakeNode>>;

// For messages of checks, which are evaluated whether or not they fail.
template <typename T>
std::string why(const Result<T>& result) {
  return result.ok() ? std::string() : result.error().message();
}

// An empty directory, removed at the end.
class TempDir {
 public:
  TempDir() {
    char name[] = "/tmp/rmemfs-manager-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Setup {
  std::uint64_t chunk_bytes = 1u << 20;
  std::uint64_t pool_bytes = 8u << 20;
  unsigned nodes = 1;
  JournalGeometry journal{1024, 4096};
};

inline FakeNodes make_nodes(const Setup& setup) {
  FakeNodes nodes;
  for (unsigned i = 0; i < setup.nodes; ++i) {
    nodes["shm:/node" + std::to_string(i)] = std::make_shared<FakeNode>(setup.pool_bytes);
  }
  return nodes;
}

// What mkfs does.
inline void format_directory(const std::string& directory, const Setup& setup) {
  Superblock sb;
  sb.uuid = Uuid::random();
  sb.key = AccessKey::random();
  sb.chunk_bytes = setup.chunk_bytes;
  sb.journal = setup.journal;
  sb.name_hash_seed = 12345;
  for (unsigned i = 0; i < setup.nodes; ++i) sb.nodes.push_back({NodeId(i), "shm:/node" + std::to_string(i)});
  auto memory = map_persistent(directory + "/journal", {.create = true, .size = Journal::bytes_needed(sb.journal)});
  BOOST_REQUIRE_MESSAGE(memory.ok(), why(memory));
  BOOST_REQUIRE(Journal::format(**memory, sb.uuid, sb.journal).ok());
  auto store = Metastore::open(directory + "/db", Metastore::Mode::kCreate, sb.uuid, {});
  BOOST_REQUIRE_MESSAGE(store.ok(), why(store));
  BOOST_REQUIRE(Manager::format(**store, sb).ok());
  BOOST_REQUIRE(store_superblock(directory, sb).ok());
}

struct MountOptions {
  RecoverOptions recover;
  ManagerOptions manager;
};

// A mount without FUSE.
class Mount {
 public:
  Mount(const std::string& directory, FakeNodes nodes, MountOptions options = {}) {
    auto opened = open(directory, std::move(nodes), std::move(options));
    BOOST_REQUIRE_MESSAGE(opened.ok(), why(opened));
  }
  Mount() = default;
  ~Mount() { close(); }

  Result<void> open(const std::string& directory, FakeNodes nodes, MountOptions options) {
    pool = std::make_unique<BlockingPool>(3);
    ASSIGN_OR_RETURN(store, recover(directory, options.recover));
    options.manager.directory = directory;
    options.manager.make_node_client = [nodes](const std::string& address) -> Result<std::unique_ptr<NodeClient>> {
      const auto it = nodes.find(address);
      if (it == nodes.end()) return Error(Errc::kUnreachable);
      return std::make_unique<FakeClient>(it->second);
    };
    ASSIGN_OR_RETURN(manager,
                     Manager::open(store.superblock, *store.metastore, *store.journal, *pool, options.manager));
    return success();
  }
  void close() {
    if (manager) manager->close();
    if (store.journal) BOOST_CHECK(store.journal->close().ok());
    manager.reset();
    store.journal.reset();
    store.metastore.reset();
    pool.reset();
  }

  // Runs one operation to its end.
  template <typename T>
  T run(Task<T> task) {
    return loop.run(std::move(task));
  }
  template <typename T>
  T must(Task<Result<T>> task) {
    Result<T> result = loop.run(std::move(task));
    BOOST_REQUIRE_MESSAGE(result.ok(), why(result));
    if constexpr (!std::is_void_v<T>) return std::move(*result);
  }
  template <typename T>
  Errc error(Task<Result<T>> task) {
    Result<T> result = loop.run(std::move(task));
    BOOST_REQUIRE_MESSAGE(!result.ok(), "it should have failed");
    return result.error().code;
  }

  InodeRef root() { return *manager->get(kRootInode); }
  InodeRef file(const InodeRef& parent, std::string_view name) {
    return must(manager->make_node(parent, name, NewNode{.mode = S_IFREG | 0644}, 0));
  }
  InodeRef directory(const InodeRef& parent, std::string_view name) {
    return must(manager->make_node(parent, name, NewNode{.mode = S_IFDIR | 0755}, 0));
  }
  InodeRef find(const InodeRef& parent, std::string_view name) {
    auto found = manager->lookup(*parent, name);
    BOOST_REQUIRE_MESSAGE(found.ok(), "lookup of " << name);
    return *found;
  }
  Errc lookup_error(const InodeRef& parent, std::string_view name) {
    auto found = manager->lookup(*parent, name);
    BOOST_REQUIRE(!found.ok());
    return found.error().code;
  }
  Attributes attributes(const InodeRef& inode) { return manager->attributes(*inode); }
  Result<void> try_write(const InodeRef& inode, std::uint64_t offset, std::uint64_t length) {
    while (length > 0) {
      auto plan = run(manager->plan_write(inode, offset, length, deadline_after_ms(10000)));
      if (!plan.ok()) return std::move(plan).error();
      RETURN_IF_ERROR(run(manager->commit_write(inode, *plan, SetId::kKeep, 0)));
      offset += plan->length;
      length -= plan->length;
    }
    return success();
  }
  void write(const InodeRef& inode, std::uint64_t offset, std::uint64_t length) {
    const auto written = try_write(inode, offset, length);
    BOOST_REQUIRE_MESSAGE(written.ok(), why(written));
  }
  std::vector<DirectoryEntry> list(const InodeRef& directory, std::size_t step = 1000) {
    std::vector<DirectoryEntry> all;
    for (;;) {
      auto some = manager->read_directory(*directory, all.empty() ? 0 : all.back().cookie, step);
      BOOST_REQUIRE(some.ok());
      if (some->empty()) return all;
      for (auto& entry : *some) all.push_back(std::move(entry));
    }
  }

  LoopExecutor loop;
  std::unique_ptr<BlockingPool> pool;
  RecoveredStore store;
  std::unique_ptr<Manager> manager;
};

struct Fixture {
  explicit Fixture(Setup s = {}) : setup(s), nodes(make_nodes(s)) { format_directory(dir.path(), s); }
  std::unique_ptr<Mount> mount(MountOptions options = {}) {
    return std::make_unique<Mount>(dir.path(), nodes, std::move(options));
  }
  const Setup setup;
  TempDir dir;
  FakeNodes nodes;
};

}  // namespace rmemfs
