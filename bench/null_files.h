// NullFiles: a file system that answers at once, the floor that rmemfs is measured against (bench/nullfs.cc mounts it).
//
// It knows names, types, sizes and permissions, because real programs need them to be true, and nothing else: no data,
// no journal, no store, no remote memory; times are constants unless set. A name is known by the 64-bit hash of its
// directory and itself. Bytes that are read are whatever the request's buffer held, unless `copy_bytes` gives one area
// of memory that data is copied to and from, by its offset in the file: then one large file reads back what was
// written, and what remains beside the kernel's work is one memcpy, as with a memory node on this host.
//
// Not supported: hard links, exchanging renames, extended attributes, O_TMPFILE. Inode numbers are never reused.
// Threads: any. One Mutex, held for some ten memory accesses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fs/file_operations.h"
#include "util/mutex.h"

namespace rmemfs {

class NullFiles final : public FileOperations {
 public:
  // `copy_bytes` 0: no data at all.
  explicit NullFiles(std::size_t copy_bytes);
  ~NullFiles() override;
  NullFiles(const NullFiles&) = delete;
  NullFiles& operator=(const NullFiles&) = delete;

  Result<Attributes> lookup(InodeNumber parent, std::string_view name) override;
  void forget(InodeNumber, std::uint64_t) override {}

  Result<Attributes> getattr(InodeNumber ino) override;
  Task<Result<Attributes>> setattr(RequestContext context, InodeNumber ino, SetAttributes change) override;
  Result<std::string> readlink(InodeNumber ino) override;

  Result<std::string> get_extended(InodeNumber ino, std::string_view name) override;
  Result<std::string> list_extended(RequestContext context, InodeNumber ino) override;
  Task<Result<void>> set_extended(RequestContext context, InodeNumber ino, ExtendedChange change) override;
  SpaceStatistics statfs() override;

  Task<Result<Attributes>> make_node(RequestContext context, InodeNumber parent, std::string_view name,
                                     NewNode node) override;
  Task<Result<Attributes>> make_temporary(RequestContext context, InodeNumber directory, NewNode node) override;
  Task<Result<Attributes>> link(RequestContext context, InodeNumber ino, InodeNumber parent,
                                std::string_view name) override;
  Task<Result<void>> unlink(RequestContext context, InodeNumber parent, std::string_view name) override;
  Task<Result<void>> rmdir(RequestContext context, InodeNumber parent, std::string_view name) override;
  Task<Result<void>> rename(RequestContext context, InodeNumber parent, std::string_view name, InodeNumber new_parent,
                            std::string_view new_name, RenameMode mode) override;

  Task<Result<std::size_t>> read(RequestContext context, InodeNumber ino, std::uint64_t offset,
                                 std::span<std::byte> to) override;
  Task<Result<std::size_t>> write(RequestContext context, InodeNumber ino, std::uint64_t offset,
                                  std::span<const std::byte> from) override;
  Task<Result<void>> fallocate(RequestContext context, InodeNumber ino, Fallocate mode, std::uint64_t offset,
                               std::uint64_t length) override;
  Task<Result<std::uint64_t>> copy_range(RequestContext context, InodeNumber from, std::uint64_t from_offset,
                                         InodeNumber to, std::uint64_t to_offset, std::uint64_t length,
                                         std::span<std::byte> buffer) override;
  Result<std::uint64_t> seek(InodeNumber ino, std::uint64_t offset, bool hole) override;
  Task<Result<void>> fsync(InodeNumber ino) override;

  Result<void> read_directory(InodeNumber ino, std::uint64_t offset, bool plus, std::size_t limit,
                              const Sink& sink) override;

  std::size_t purging() const override { return 0; }

 private:
  using Index = std::uint32_t;  // of a node; its inode number. 0: none

  struct Child {
    std::string name;
    Index node = 0;  // 0: removed; the place stays, because a cookie is a place
  };
  struct Directory {
    std::vector<Child> children;
    std::size_t live = 0;
  };
  struct Node {
    std::uint64_t key = 0;   // hash of directory and name
    Index next = 0;          // with the same hash bucket
    Index parent = 0;        // the directory of its one name
    std::size_t place = 0;   // in the directory's children
    std::uint64_t size = 0;  // bytes
    std::uint32_t mode = 0, uid = 0, gid = 0, rdev = 0, nlink = 0;
    Timestamp atime, mtime;
    std::unique_ptr<Directory> directory;
  };

  // All of these: mutex_ is held.
  Node* find(InodeNumber ino);
  Result<Node*> find_directory(InodeNumber ino);
  Index& bucket(std::uint64_t key) { return buckets_[key & (kBuckets - 1)]; }
  Index child(std::uint64_t key);
  Attributes attributes(Index index) const;
  void add_name(Index index, Index parent, std::string_view name);
  void remove_name(Index index);
  Result<void> remove(InodeNumber parent, std::string_view name, bool directory);

  static constexpr std::size_t kBuckets = std::size_t{1} << 20;

  std::byte* area_ = nullptr;  // constant after construction; its bytes are the callers'
  const std::size_t area_bytes_;
  Mutex mutex_{LockRank::kLeaf};
  std::deque<Node> nodes_;                          // by inode number; guarded by mutex_
  std::vector<Index> buckets_;                      // guarded by mutex_
  std::unordered_map<Index, std::string> targets_;  // of symbolic links; guarded by mutex_
};

}  // namespace rmemfs
