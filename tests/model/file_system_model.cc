// Random operations on FileSystem, without FUSE, against the reference, compared after every step, with remounts
// between.
//
//   model_file_system [--steps N] [--seed S] [--segment N]       (RMEMFS_LONG: ten times the steps)
//
// The memory node is a real rmemd over shm. Each segment of steps runs in a child process that mounts, compares the
// whole tree, works, and ends either cleanly or by _exit() in the middle of everything, as after kill -9. The parent
// then takes the same steps on its copy of the reference: steps depend on the seed and the reference only. After each
// segment the checker looks at everything that the reference does not know (blocks, counters, orphans), read only.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>

#include "fs/file_system.h"
#include "recovery/checker.h"
#include "recovery/recover.h"
#include "reference.h"
#include "tools/format_file_system.h"
#include "tools/local_node.h"
#include "util/bytes.h"
#include "util/log.h"

namespace rmemfs::model {
namespace {

constexpr std::uint64_t kMaxSize = 600000;
constexpr std::size_t kNames = 7, kMaxDepth = 4, kMaxOpen = 6;

std::uint64_t seed_in_use = 0, step_in_use = 0;

#define EXPECT(condition, ...)                                                                       \
  do {                                                                                               \
    if (!(condition)) {                                                                              \
      std::fprintf(stderr, "FAILED: seed %lu step %lu: %s: ", seed_in_use, step_in_use, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                                             \
      std::fprintf(stderr, "\n");                                                                    \
      std::_Exit(1);                                                                                 \
    }                                                                                                \
  } while (0)

// A mounted file system without FUSE.
class Mounted {
 public:
  explicit Mounted(const std::string& directory) {
    RecoverOptions recovery;
    recovery.journal.commit_interval_ms = 50;
    recovery.journal.durable_interval_ms = 300;
    recovery.metastore.write_buffer_bytes = 1u << 20;
    auto recovered = recover(directory, recovery);
    EXPECT(recovered.ok(), "%s", recovered.error().message().c_str());
    store_.emplace(std::move(*recovered));
    pool_ = std::make_unique<BlockingPool>(2);
    ManagerOptions options;
    options.directory = directory;
    options.inode_cache_entries = 64;  // small: inodes are loaded again and again
    auto manager = Manager::open(store_->superblock, *store_->metastore, *store_->journal, *pool_, options);
    EXPECT(manager.ok(), "%s", manager.error().message().c_str());
    manager_ = std::move(*manager);
    connections_ = std::make_unique<ConnectionSet>(
        0, loop_, [this](NodeId node, std::uint32_t lane) -> Result<std::unique_ptr<Connection>> {
          ConnectOptions connect;
          connect.session = {store_->superblock.uuid, store_->superblock.epoch, lane};
          connect.file_system_key = store_->superblock.key;
          ASSIGN_OR_RETURN(const NodeAddress address, NodeAddress::parse(manager_->address(node)));
          return make_connection(address, connect);
        });
    files_ = std::make_unique<FileSystem>(*manager_, FileSystemOptions{},
                                          [this](std::uint32_t) { return connections_.get(); });
    loop_.on_idle = [this] {
      connections_->submit();
      if (!connections_->poll()) std::this_thread::sleep_for(std::chrono::microseconds(20));
    };
    auto purged = loop_.run(manager_->purge_orphans());
    EXPECT(purged.ok(), "%s", purged.error().message().c_str());
  }

  void close() {
    loop_.run(drain());
    loop_.run(files_->purge_pending());
    EXPECT(files_->referenced_inodes() == 0, "%zu inodes are still referenced", files_->referenced_inodes());
    manager_->close();
    auto closed = store_->journal->close();
    EXPECT(closed.ok(), "%s", closed.error().message().c_str());
  }

  FileSystem& files() { return *files_; }
  RequestContext context() { return {connections_.get(), 0, 0, 0}; }
  template <typename T>
  T run(Task<T> task) {
    return loop_.run(std::move(task));
  }

 private:
  Task<void> drain() {
    while (files_->purging() > 0) co_await Yield{};
    co_await Yield{};  // the queue's own coroutine sees that it is empty, and ends
  }
  LoopExecutor loop_;
  std::optional<RecoveredStore> store_;
  std::unique_ptr<BlockingPool> pool_;
  std::unique_ptr<Manager> manager_;
  std::unique_ptr<ConnectionSet> connections_;
  std::unique_ptr<FileSystem> files_;
};

struct Open {
  NodePtr node;
  InodeNumber ino;
};

// One walk of random steps. With `mounted` null only the reference moves.
class Walk {
 public:
  Walk(Reference& reference, std::mt19937_64& random, Mounted* mounted)
      : reference_(reference), random_(random), mounted_(mounted) {}

  void step();
  void close_all() {
    while (!open_.empty()) close(0);
  }
  void compare_tree() { compare_directory(reference_.root(), kRootInode); }

 private:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  std::string name() { return "n" + std::to_string(below(kNames)); }
  std::uint64_t offset() {
    switch (below(4)) {
      case 0:
        return below(4) * 4096 * (1 + below(30));
      case 1:
        return below(9000);
      default:
        return below(kMaxSize);
    }
  }

  template <typename T>
  void check(const Result<T>& got, const Errors& expected, const char* what) {
    if (expected.empty()) {
      EXPECT(got.ok(), "%s: %s", what, got.error().message().c_str());
    } else {
      EXPECT(!got.ok(), "%s should have failed with %s", what, std::string(rmemfs::name(*expected.begin())).c_str());
      EXPECT(expected.contains(got.error().code), "%s: %s instead of %s", what, got.error().message().c_str(),
             std::string(rmemfs::name(*expected.begin())).c_str());
    }
  }
  FileSystem& files() { return mounted_->files(); }

  // The inode at a path, referenced; release() gives it back.
  InodeNumber resolve(const std::vector<std::string>& path) {
    InodeNumber at = kRootInode;
    for (const std::string& part : path) {
      auto found = files().lookup(at, part);
      EXPECT(found.ok(), "lookup %s: %s", part.c_str(), found.error().message().c_str());
      release(at);
      at = found->ino;
    }
    return at;
  }
  void release(InodeNumber ino) {
    if (ino != kRootInode) files().forget(ino, 1);
  }

  void close(std::size_t index) {
    if (mounted_ != nullptr) release(open_[index].ino);
    open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(index));
  }

  void compare_attributes(const Node& node, InodeNumber ino) {
    auto got = files().getattr(ino);
    EXPECT(got.ok(), "getattr: %s", got.error().message().c_str());
    EXPECT(got->nlink == node.links, "nlink %u instead of %u", got->nlink, node.links);
    EXPECT((got->mode & 07777) == node.permissions, "mode %o instead of %o", got->mode & 07777, node.permissions);
    if (node.kind == Kind::kFile) {
      EXPECT(got->size == node.data.size(), "size %lu instead of %zu", got->size, node.data.size());
    }
    if (node.kind == Kind::kDirectory) {
      EXPECT(got->entries == node.entries.size(), "%lu entries instead of %zu", got->entries, node.entries.size());
    }
  }
  void compare_data(const Node& node, InodeNumber ino, std::uint64_t at, std::uint64_t length) {
    std::vector<std::byte> buffer(length, std::byte{0xEE});
    auto got = mounted_->run(files().read(mounted_->context(), ino, at, buffer));
    EXPECT(got.ok(), "read: %s", got.error().message().c_str());
    const std::uint64_t expected = at >= node.data.size() ? 0 : std::min<std::uint64_t>(length, node.data.size() - at);
    EXPECT(*got == expected, "read gave %zu bytes instead of %lu", *got, expected);
    for (std::uint64_t i = 0; i < expected; ++i) {
      EXPECT(static_cast<char>(buffer[i]) == node.data[at + i], "byte %lu is %02x instead of %02x", at + i,
             static_cast<unsigned>(buffer[i]), static_cast<unsigned char>(node.data[at + i]));
    }
  }
  void compare_seek(const Node& node, InodeNumber ino, std::uint64_t at) {
    const std::uint64_t size = node.data.size();
    const auto data = files().seek(ino, at, false);
    const auto hole = files().seek(ino, at, true);
    if (at >= size) {
      EXPECT(!data.ok() && data.error().code == Errc::kNoSuchOffset, "SEEK_DATA behind the end");
      EXPECT(!hole.ok() && hole.error().code == Errc::kNoSuchOffset, "SEEK_HOLE behind the end");
      return;
    }
    EXPECT(data.ok() || data.error().code == Errc::kNoSuchOffset, "%s", data.error().message().c_str());
    const std::uint64_t first = node.data.find_first_not_of('\0', at);
    if (first < size) EXPECT(data.ok() && *data >= at && *data <= first, "SEEK_DATA skips data at %lu", first);
    EXPECT(hole.ok() && *hole >= at && *hole <= size, "SEEK_HOLE from %lu", at);
    if (*hole < size) EXPECT(node.data[*hole] == '\0', "SEEK_HOLE finds data at %lu", *hole);
  }
  void compare_directory(const NodePtr& directory, InodeNumber ino);

  void make(const NodePtr& parent, InodeNumber parent_ino);
  void remove(const NodePtr& parent, InodeNumber parent_ino);
  void rename(const NodePtr& parent, InodeNumber parent_ino);
  void data(const NodePtr& node, InodeNumber ino);

  Reference& reference_;
  std::mt19937_64& random_;
  Mounted* const mounted_;
  std::vector<Open> open_;
};

void Walk::compare_directory(const NodePtr& directory, InodeNumber ino) {
  compare_attributes(*directory, ino);
  std::map<std::string, InodeNumber> found;
  std::uint64_t cookie = 0;
  for (bool more = true; more;) {
    more = false;
    std::size_t room = 3;  // few at a time, so that the stream goes on in the middle
    auto read = files().read_directory(ino, cookie, true, 5, [&](const DirectoryEntry& entry, const Attributes* a) {
      if (room-- == 0) return false;
      more = true;
      cookie = entry.cookie;
      if (entry.name == "." || entry.name == "..") return true;
      EXPECT(a != nullptr, "%s has no inode", entry.name.c_str());
      EXPECT(found.emplace(entry.name, a->ino).second, "%s is listed twice", entry.name.c_str());
      return true;
    });
    EXPECT(read.ok(), "readdir: %s", read.error().message().c_str());
  }
  EXPECT(found.size() == directory->entries.size(), "%zu names instead of %zu", found.size(),
         directory->entries.size());
  for (const auto& [name, child] : directory->entries) {
    auto it = found.find(name);
    EXPECT(it != found.end(), "%s is missing", name.c_str());
    if (child->kind == Kind::kDirectory) {
      compare_directory(child, it->second);
    } else {
      compare_attributes(*child, it->second);
      if (child->kind == Kind::kFile) compare_data(*child, it->second, 0, child->data.size() + 100);
      if (child->kind == Kind::kSymlink) {
        auto target = files().readlink(it->second);
        EXPECT(target.ok() && *target == child->data, "readlink %s", name.c_str());
      }
    }
    release(it->second);
  }
}

void Walk::make(const NodePtr& parent, InodeNumber parent_ino) {
  const std::string what = below(200) == 0 ? std::string(256, 'x') : name();
  const std::uint64_t die = below(10);
  const Kind kind = die < 6 ? Kind::kFile : die < 8 ? Kind::kDirectory : die < 9 ? Kind::kSymlink : Kind::kFifo;
  const std::uint32_t permissions = kind == Kind::kSymlink ? 0777 : static_cast<std::uint32_t>(below(01000));
  const std::string target = kind == Kind::kSymlink ? "to/" + std::string(1 + below(100), 't') : "";
  const Errors expected = reference_.make(parent, what, kind, permissions, target);
  if (mounted_ == nullptr) return;
  static constexpr std::uint32_t kTypes[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO};
  NewNode node;
  node.mode = kTypes[static_cast<int>(kind)] | permissions;
  node.symlink_target = target;
  auto made = mounted_->run(files().make_node(mounted_->context(), parent_ino, what, node));
  check(made, expected, "make");
  if (made.ok()) release(made->ino);
}

void Walk::remove(const NodePtr& parent, InodeNumber parent_ino) {
  const std::string what = name();
  const bool directory = below(3) == 0;
  const Errors expected = directory ? reference_.rmdir(parent, what) : reference_.unlink(parent, what);
  if (mounted_ == nullptr) return;
  check(directory ? mounted_->run(files().rmdir(mounted_->context(), parent_ino, what))
                  : mounted_->run(files().unlink(mounted_->context(), parent_ino, what)),
        expected, directory ? "rmdir" : "unlink");
}

void Walk::rename(const NodePtr& parent, InodeNumber parent_ino) {
  const auto directories = reference_.directories();
  const auto& path = directories[below(directories.size())];
  const NodePtr to = reference_.find(path);
  const std::string from_name = name(), to_name = name();
  const auto mode = static_cast<RenameMode>(below(3));
  const bool link = below(3) == 0;
  const InodeNumber to_ino = mounted_ != nullptr ? resolve(path) : kRootInode;
  if (link) {
    auto it = parent->entries.find(from_name);
    if (it != parent->entries.end() && it->second->kind != Kind::kDirectory) {
      const NodePtr node = it->second;
      const Errors expected = reference_.link(node, to, to_name);
      if (mounted_ != nullptr) {
        auto source = files().lookup(parent_ino, from_name);
        EXPECT(source.ok(), "lookup before link");
        auto linked = mounted_->run(files().link(mounted_->context(), source->ino, to_ino, to_name));
        check(linked, expected, "link");
        if (linked.ok()) release(linked->ino);
        compare_attributes(*node, source->ino);
        release(source->ino);
      }
    }
  } else {
    const Errors expected = reference_.rename(parent, from_name, to, to_name, mode);
    if (mounted_ != nullptr) {
      check(mounted_->run(files().rename(mounted_->context(), parent_ino, from_name, to_ino, to_name, mode)), expected,
            "rename");
      compare_attributes(*to, to_ino);
    }
  }
  if (mounted_ != nullptr) release(to_ino);
}

void Walk::data(const NodePtr& node, InodeNumber ino) {
  const std::uint64_t at = offset();
  const std::uint64_t length = below(3) == 0 ? 1 + below(100) : 1 + below(40000);
  const std::uint64_t die = below(12);
  Result<void> done;
  if (die < 5) {
    std::string bytes(length, '\0');
    const auto first = static_cast<char>(1 + below(255));
    for (std::uint64_t i = 0; i < length; ++i) bytes[i] = static_cast<char>(first + i % 251);
    const bool append = die == 0 && node->data.size() + length < kMaxSize;
    const std::uint64_t there = append ? node->data.size() : at;
    Reference::write(*node, there, bytes);
    if (mounted_ != nullptr) {
      const auto wrote =
          mounted_->run(files().write(mounted_->context(), ino, there, as_bytes(std::string_view(bytes))));
      if (!wrote.ok()) done = wrote.error();
      EXPECT(!wrote.ok() || *wrote == bytes.size(), "%zu bytes written instead of %zu", *wrote, bytes.size());
    }
  } else if (die < 7) {
    const std::uint64_t size = below(2) == 0 ? at : below(node->data.size() + 1);
    Reference::truncate(*node, size);
    if (mounted_ != nullptr) {
      SetAttributes set;
      set.size = size;
      const auto changed = mounted_->run(files().setattr(mounted_->context(), ino, set));
      check(changed, {}, "truncate");
    }
  } else if (die < 9) {
    Reference::punch(*node, at, length);
    if (mounted_ != nullptr) {
      done = mounted_->run(files().fallocate(mounted_->context(), ino, FileSystem::Fallocate::kPunchHole, at, length));
    }
  } else if (die < 11) {
    const bool keep = below(2) == 0, zero = below(3) == 0;
    if (zero) Reference::punch(*node, at, length);
    if (!keep && at + length > node->data.size()) Reference::truncate(*node, at + length);
    if (mounted_ != nullptr) {
      using Mode = FileSystem::Fallocate;
      const Mode mode = zero ? (keep ? Mode::kZeroKeepSize : Mode::kZeroRange) : keep ? Mode::kKeepSize : Mode::kExtend;
      done = mounted_->run(files().fallocate(mounted_->context(), ino, mode, at, length));
    }
  } else if (mounted_ != nullptr) {
    done = mounted_->run(files().fsync(ino));
  }
  const std::uint64_t seek_at = offset();
  if (mounted_ == nullptr) return;
  check(done, {}, "data operation");
  compare_attributes(*node, ino);
  compare_data(*node, ino, at < 5000 ? 0 : at - 5000, length + 10000);
  compare_data(*node, ino, seek_at, 4096);
  compare_seek(*node, ino, seek_at);
}

void Walk::step() {
  const auto directories = reference_.directories();
  const auto& path = directories[below(directories.size())];
  const NodePtr parent = reference_.find(path);
  const InodeNumber parent_ino = mounted_ != nullptr ? resolve(path) : kRootInode;
  const std::uint64_t die = below(20);
  if (die < 3) {
    if (path.size() < kMaxDepth) make(parent, parent_ino);
  } else if (die < 5) {
    remove(parent, parent_ino);
  } else if (die < 8) {
    rename(parent, parent_ino);
  } else if (die < 10 && !open_.empty()) {  // an open file, perhaps without a name
    const std::size_t index = below(open_.size());
    if (below(4) == 0)
      close(index);
    else if (open_[index].node->kind == Kind::kFile)
      data(open_[index].node, open_[index].ino);
  } else {
    auto it = parent->entries.find(name());
    if (it != parent->entries.end()) {
      const NodePtr node = it->second;
      InodeNumber ino = kRootInode;
      if (mounted_ != nullptr)
        ino = resolve([&] {
          auto full = path;
          full.push_back(it->first);
          return full;
        }());
      if (die == 10) {
        node->permissions = static_cast<std::uint32_t>(below(010000));
        if (mounted_ != nullptr) {
          SetAttributes set;
          set.change.mode = node->permissions;
          check(mounted_->run(files().setattr(mounted_->context(), ino, set)), {}, "chmod");
        }
      } else if (node->kind == Kind::kFile) {
        data(node, ino);
      }
      if (mounted_ != nullptr) compare_attributes(*node, ino);
      const bool keep = below(12) == 0 && open_.size() < kMaxOpen && node->kind != Kind::kDirectory;
      if (keep)
        open_.push_back({node, ino});
      else if (mounted_ != nullptr)
        release(ino);
    }
  }
  if (mounted_ == nullptr) return;
  compare_attributes(*parent, parent_ino);
  release(parent_ino);
}

// What the child of a segment does.
int run_segment(const std::string& directory, Reference& reference, std::mt19937_64& random, std::uint64_t steps,
                bool clean) {
  Mounted mounted(directory);
  Walk walk(reference, random, &mounted);
  walk.compare_tree();
  for (std::uint64_t i = 0; i < steps; ++i, ++step_in_use) walk.step();
  if (!clean) std::_Exit(0);
  walk.compare_tree();
  walk.close_all();
  mounted.close();
  std::_Exit(0);
}

// As `fsck -n`: a sound image, after a clean end and after a crash.
int check_image(const std::string& directory) {
  CheckOptions options;
  options.directory = directory;
  auto report = check_file_system(options);
  EXPECT(report.ok(), "%s", report.error().message().c_str());
  EXPECT(report->found == 0, "the checker found %lu problems, the first is %s", report->found,
         report->problems.empty() ? "not told" : report->problems.front().message().c_str());
  return 0;
}

// Runs `work` in a process of its own, so that this one never has threads and can go on forking.
template <typename Work>
bool in_child(Work work) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) std::_Exit(work());
  int status = 0;
  return child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int run(std::uint64_t steps, std::uint64_t seed, std::uint64_t segment) {
  seed_in_use = seed;
  std::printf("%lu steps, seed %lu\n", steps, seed);
  char name[] = "/tmp/rmemfs-model-XXXXXX";
  const std::string directory = ::mkdtemp(name);
  const LocalNode node{directory, new_local_pool(), 256u << 20};
  bool good = in_child([&] {
    auto started = start_local_node(node);
    EXPECT(started.ok(), "%s", started.error().message().c_str());
    FormatOptions format;
    format.directory = directory;
    format.nodes = {kLocalNodeAddress};
    format.chunk_bytes = 4u << 20;
    format.journal = {1024, 256};
    auto formatted = format_file_system(format);
    EXPECT(formatted.ok(), "%s", formatted.error().message().c_str());
    return 0;
  });
  Reference reference;
  std::mt19937_64 random(seed), plan(seed ^ 0x5eed);
  for (std::uint64_t done = 0; good && done < steps;) {
    const std::uint64_t count = std::min(steps - done, 1 + plan() % (2 * segment));
    const bool clean = plan() % 3 == 0;
    step_in_use = done;
    good = in_child([&] { return run_segment(directory, reference, random, count, clean); }) &&
           in_child([&] { return check_image(directory); });
    Walk walk(reference, random, nullptr);
    for (std::uint64_t i = 0; i < count; ++i) walk.step();
    done += count;
  }
  good = good && in_child([&] { return run_segment(directory, reference, random, 0, true); }) &&
         in_child([&] { return check_image(directory); });
  in_child([&] {
    stop_local_node(node);
    return 0;
  });
  std::filesystem::remove_all(directory);
  ::unlink(node.pool.c_str());
  std::printf("%s\n", good ? "passed" : "failed");
  return good ? 0 : 1;
}

}  // namespace
}  // namespace rmemfs::model

int main(int argc, char** argv) {
  const char* const long_run = std::getenv("RMEMFS_LONG");
  std::uint64_t steps = long_run != nullptr && *long_run != 0 ? 1000000 : 100000, seed = std::random_device{}(),
                segment = 2500;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::uint64_t value = std::strtoull(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--steps") == 0)
      steps = value;
    else if (std::strcmp(argv[i], "--seed") == 0)
      seed = value;
    else if (std::strcmp(argv[i], "--segment") == 0)
      segment = value;
  }
  if (!rmemfs::log_setup("model", rmemfs::LogTarget::kStderr, false).ok()) return 1;
  rmemfs::log::set_level(rmemfs::log::Level::kWarn);
  return rmemfs::model::run(steps, seed, segment);
}
