#include "image.h"

#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>

#include <dirent.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace rmemfs {
namespace {

constexpr std::uint64_t kPoolBytes = 16u << 20;
constexpr std::uint64_t kChunkBytes = 1u << 20;

class DirectClient final : public NodeClient {
 public:
  explicit DirectClient(TestNode& node) : node_(node) {}
  Result<NodeDescription> describe(std::uint32_t) override {
    return ask([&] { return service().describe(); });
  }
  Result<LeasedRegion> lease(const FileSystemIdentity& who, std::uint64_t length, std::uint64_t minimum,
                             std::uint64_t tag, std::uint32_t) override {
    return ask([&] { return service().lease(who, length, minimum, tag, "test"); });
  }
  Result<void> release(const FileSystemIdentity& who, RegionId region, std::uint32_t) override {
    return ask([&] { return service().release(who, region, "test"); });
  }
  Result<std::vector<LeasedRegion>> list(const FileSystemIdentity& who, std::uint32_t) override {
    return ask([&] { return service().list(who, "test"); });
  }
  Result<void> fence(const FileSystemIdentity& who, std::uint32_t) override {
    return ask([&] { return service().fence(who, "test"); });
  }
  Result<void> forget(const FileSystemIdentity& who, std::uint32_t) override {
    return ask([&] { return service().forget(who, "test"); });
  }
  Result<Generation> heartbeat(std::uint32_t) override {
    return ask([&] { return service().heartbeat(); });
  }

 private:
  MemoryNode& service() { return node_.service(); }
  template <typename Call>
  auto ask(Call call) -> decltype(call()) {
    if (node_.silent) return Error(Errc::kUnreachable, "test node");
    return call();
  }
  TestNode& node_;
};

template <typename T>
T must(Result<T> result) {
  BOOST_REQUIRE_MESSAGE(result.ok(), (result.ok() ? std::string() : result.error().message()));
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace

TestNode::TestNode(std::uint64_t pool_bytes) : pool_bytes_(pool_bytes) { restart_empty(); }

void TestNode::restart_empty() {
  node_.reset();
  pool_.reset();
  PoolOptions options;
  options.data_bytes = pool_bytes_;
  pool_ = must(Pool::open(options));
  node_ = std::make_unique<MemoryNode>(*pool_);
}

void TestNode::swap_pool() {
  node_.reset();
  aside_ = std::move(pool_);
  restart_empty();
}

void TestNode::swap_back() {
  node_.reset();
  pool_ = std::move(aside_);
  node_ = std::make_unique<MemoryNode>(*pool_);
}

std::unique_ptr<NodeClient> TestNode::client() { return std::make_unique<DirectClient>(*this); }

TempDir::TempDir() {
  char name[] = "/tmp/rmemfs-recovery-XXXXXX";
  BOOST_REQUIRE(::mkdtemp(name) != nullptr);
  path_ = name;
}
TempDir::~TempDir() { std::filesystem::remove_all(path_); }

Image::Image() {
  nodes_.push_back(std::make_shared<TestNode>(kPoolBytes));
  format();
  fill();
}

FileSystemIdentity Image::identity() const {
  const auto now = load_superblock(path());
  return {now->uuid, now->key, now->epoch};
}

std::function<Result<std::unique_ptr<NodeClient>>(const std::string&)> Image::connector() {
  return [nodes = nodes_](const std::string& address) -> Result<std::unique_ptr<NodeClient>> {
    const std::size_t index = static_cast<std::size_t>(std::stoul(address.substr(address.rfind('/') + 1)));
    return nodes.at(index)->client();
  };
}

void Image::format() {
  superblock_.uuid = Uuid::random();
  superblock_.key = AccessKey::random();
  superblock_.chunk_bytes = kChunkBytes;
  superblock_.journal = {1024, 256};
  superblock_.name_hash_seed = 4711;
  superblock_.nodes.push_back({NodeId(0), "shm:/0"});
  PmemOptions mapping;
  mapping.create = true;
  mapping.size = Journal::bytes_needed(superblock_.journal);
  auto memory = must(map_persistent(path() + "/journal", mapping));
  must(Journal::format(*memory, superblock_.uuid, superblock_.journal));
  auto store = must(Metastore::open(path() + "/db", Metastore::Mode::kCreate, superblock_.uuid, {}));
  must(Manager::format(*store, superblock_));
  must(store_superblock(path(), superblock_));
}

void Image::mounted(const std::function<void(Manager&, LoopExecutor&)>& work, bool crash) {
  RecoverOptions recovery;
  recovery.journal.commit_interval_ms = 3600000;
  if (crash) recovery.journal.apply_interval_ms = recovery.journal.durable_interval_ms = 3600000;
  LoopExecutor loop;
  BlockingPool pool(2);
  const std::string aside = path() + ".crashed";
  {
    const UniqueFd lock = must(lock_directory(path(), LockMode::kExclusive, "mounted by a test"));
    RecoveredStore store = must(recover(path(), recovery));
    ManagerOptions manager_options;
    manager_options.directory = path();
    manager_options.heartbeat_ms = 3600000;
    manager_options.make_node_client = connector();
    {
      auto manager = must(Manager::open(store.superblock, *store.metastore, *store.journal, pool, manager_options));
      work(*manager, loop);
      if (crash) std::filesystem::copy(path(), aside, std::filesystem::copy_options::recursive);
      manager->close();
      must(store.journal->close());
    }
    store.journal.reset();
    superblock_ = store.superblock;
  }
  if (!crash) return;
  std::filesystem::remove_all(path());
  std::filesystem::rename(aside, path());
}

void Image::fill() {
  mounted([&](Manager& manager, LoopExecutor& loop) {
    const auto make = [&](const InodeRef& parent, std::string_view name, std::uint32_t mode) {
      NewNode node;
      node.mode = mode;
      if (S_ISLNK(mode)) node.symlink_target = "a";
      return must(loop.run(manager.make_node(parent, name, node, 0)));
    };
    const auto write = [&](const InodeRef& inode, std::uint64_t offset, std::uint64_t length) {
      const WritePlan plan = must(loop.run(manager.plan_write(inode, offset, length, deadline_after_ms(10000))));
      must(loop.run(manager.commit_write(inode, plan, SetId::kKeep, 0)));
    };
    const InodeRef root = must(manager.get(kRootInode));
    const InodeRef a = make(root, "a", S_IFREG | 0644);
    const InodeRef d = make(root, "d", S_IFDIR | 0755);
    const InodeRef e = make(d, "e", S_IFDIR | 0755);
    const InodeRef f = make(e, "f", S_IFREG | 0600);
    const InodeRef big = make(root, "big", S_IFREG | 0644);
    const InodeRef kept = make(root, "kept", S_IFREG | 0644);
    const InodeRef s = make(root, "s", S_IFLNK | 0777);
    const InodeRef pipe = make(root, "pipe", S_IFIFO | 0644);
    const InodeRef gone = make(root, "gone", S_IFREG | 0644);
    write(a, 0, 8192);
    write(f, 0, 5000);
    write(a, 65536, 4096);
    write(big, 0, kChunkBytes + 300000);
    write(gone, 0, 4096);
    must(loop.run(manager.allocate(kept, 0, 16384, {.keep_size = true}, deadline_after_ms(10000), 0)));
    must(loop.run(manager.link(a, d, "link", 0)));
    must(loop.run(manager.unlink(root, "gone", 0)));
    tree_ = {a->ino, d->ino, e->ino, f->ino, big->ino, kept->ino, s->ino, pipe->ino, gone->ino};
  });
}

CheckOptions Image::options(Answers answers) {
  CheckOptions o;
  o.directory = path();
  o.answers = answers;
  o.connect = connector();
  return o;
}

CheckReport Image::check(Answers answers) { return must(try_check(answers)); }

std::map<std::string, std::string> Image::contents() const {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path())) {
    std::ostringstream text;
    if (entry.is_regular_file()) text << std::ifstream(entry.path(), std::ios::binary).rdbuf();
    files[entry.path().string()] = text.str();
  }
  return files;
}

Editor::Editor(Image& target)
    : image(target),
      store_(must(Metastore::open(target.path() + "/db", Metastore::Mode::kReadWrite, target.superblock().uuid, {}))) {}

Editor::~Editor() { BOOST_CHECK(store_->make_durable().ok()); }

void Editor::put(const std::string& key, const std::string& value) {
  const Modification change{ModificationKind::kPut, key, value};
  must(store_->apply(std::span(&change, 1), store_->durable_watermark()));
}

void Editor::erase(const std::string& key) {
  const Modification change{ModificationKind::kErase, key, {}};
  must(store_->apply(std::span(&change, 1), store_->durable_watermark()));
}

std::optional<std::string> Editor::get(const std::string& key) { return must(store_->get(key)); }

std::vector<std::pair<std::string, std::string>> Editor::all(const std::string& prefix) {
  std::vector<std::pair<std::string, std::string>> records;
  auto it = store_->iterate(prefix);
  for (; it->valid(); it->next()) records.emplace_back(it->key(), it->value());
  must(it->status());
  return records;
}

Attributes Editor::inode(InodeNumber ino) {
  const std::string key = inode_key(ino);
  const auto value = get(key);
  BOOST_REQUIRE(value.has_value());
  return must(decode_inode(key, *value));
}

void Editor::put(const Attributes& attributes) { put(inode_key(attributes.ino), encode(attributes)); }

std::string Editor::name_key(InodeNumber parent, const std::string& name) {
  return dirent_key(parent, hash_name(name, image.superblock().name_hash_seed), name);
}

std::vector<std::pair<InodeNumber, Extent>> Editor::extents(InodeNumber ino) {
  std::vector<std::pair<InodeNumber, Extent>> found;
  for (const auto& [key, value] : all("E" + inode_key(ino).substr(1))) {
    found.emplace_back(ino, must(decode_extent(key, value)));
  }
  return found;
}

}  // namespace rmemfs
