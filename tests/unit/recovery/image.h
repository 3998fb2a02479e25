// What the checker's tests stand on: a small file system in /tmp, made by the real manager, journal and store, with
// real memory nodes in this process; and the means to damage its records one by one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "manager/manager.h"
#include "memnode/memory_node.h"
#include "recovery/checker.h"
#include "recovery/recover.h"

namespace rmemfs {

// A memory node in this process: the real pool and the real service; only the wire is left out.
class TestNode {
 public:
  explicit TestNode(std::uint64_t pool_bytes);
  void restart_empty();
  // Started with another pool, an empty one; and with its own again.
  void swap_pool();
  void swap_back();
  bool silent = false;
  MemoryNode& service() { return *node_; }
  std::unique_ptr<NodeClient> client();

 private:
  const std::uint64_t pool_bytes_;
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<MemoryNode> node_;
  std::unique_ptr<Pool> aside_;
};

class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Inodes of the image's tree:
//   /a        regular, two extents with a hole between them; also /d/link
//   /d/e/f    regular, one extent        /big   regular, larger than a chunk
//   /kept     regular, an unwritten extent behind its end
//   /s        symbolic link to "a"       /pipe  fifo       /d, /d/e  directories
//   gone      regular, one extent, unlinked while open: an orphan
struct Tree {
  InodeNumber a, d, e, f, big, kept, s, pipe, gone;
};

class Image {
 public:
  Image();

  const std::string& path() const { return dir_.path(); }
  const Superblock& superblock() const { return superblock_; }
  const Tree& tree() const { return tree_; }
  TestNode& node(std::size_t index = 0) { return *nodes_[index]; }
  FileSystemIdentity identity() const;

  CheckOptions options(Answers answers);
  Result<CheckReport> try_check(Answers answers) { return check_file_system(options(answers)); }
  CheckReport check(Answers answers);

  // Mounts without FUSE, runs `work`, unmounts; or goes on with what a crash right after `work` would leave.
  void mounted(const std::function<void(Manager&, LoopExecutor&)>& work, bool crash = false);

  // The directory's files with their contents.
  std::map<std::string, std::string> contents() const;

 private:
  std::function<Result<std::unique_ptr<NodeClient>>(const std::string&)> connector();
  void format();
  void fill();

  TempDir dir_;
  std::vector<std::shared_ptr<TestNode>> nodes_;
  Superblock superblock_;
  Tree tree_;
};

// The store of an image that nobody has mounted, open to be damaged.
class Editor {
 public:
  explicit Editor(Image& image);
  ~Editor();  // makes it durable

  void put(const std::string& key, const std::string& value);
  void erase(const std::string& key);
  std::optional<std::string> get(const std::string& key);
  std::vector<std::pair<std::string, std::string>> all(const std::string& prefix);

  Attributes inode(InodeNumber ino);
  void put(const Attributes& attributes);
  // Changes one inode's record.
  template <typename Change>
  void change(InodeNumber ino, Change change) {
    Attributes attributes = inode(ino);
    change(attributes);
    put(attributes);
  }
  std::string name_key(InodeNumber parent, const std::string& name);
  std::vector<std::pair<InodeNumber, Extent>> extents(InodeNumber ino);

  Image& image;

 private:
  std::unique_ptr<Metastore> store_;
};

}  // namespace rmemfs
