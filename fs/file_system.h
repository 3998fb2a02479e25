// The file system over a manager and memory nodes. What its operations mean is said in fs/file_operations.h.
//
// An inode without a name lives while it is referenced.
// There are no open files here: the caller of an inode's operations holds a reference, which is all that POSIX's
// "open but unlinked" needs, and permissions are checked by the kernel. A directory stream is nothing but the cookie
// where it stands.
//
// Threads: any lane (the context's connections are its own). Methods that return Result never suspend; they may read
// the local disk. Tasks suspend on remote memory, journal slots and range locks, each for at most its deadline.
// Arguments passed by view or span must stay alive until the Task is done.
// Errors: those POSIX names for each call, and those of Manager and Connection.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "fs/data_path.h"
#include "fs/file_operations.h"
#include "fs/inode_table.h"
#include "manager/manager.h"
#include "util/result.h"
#include "util/task.h"

namespace rmemfs {

struct FileSystemOptions {
  std::uint32_t deadline_ms = 10000;
  bool read_only = false;
  bool extended = true;      // false: the kernel does not ask for extended attributes
  bool access_lists = true;  // false: it does not look at access lists, so none can be set or seen
};

class FileSystem final : public FileOperations {
 public:
  // `lanes` finds a lane's connections by the lane's number. All outlive this object.
  FileSystem(Manager& manager, const FileSystemOptions& options,
             std::function<ConnectionSet*(std::uint32_t lane)> lanes);

  Result<Attributes> lookup(InodeNumber parent, std::string_view name) override;
  void forget(InodeNumber ino, std::uint64_t count) override;

  Result<Attributes> getattr(InodeNumber ino) override;
  Task<Result<Attributes>> setattr(RequestContext context, InodeNumber ino, SetAttributes change) override;
  Result<std::string> readlink(InodeNumber ino) override;

  Result<std::string> get_extended(InodeNumber ino, std::string_view name) override;
  Result<std::string> list_extended(RequestContext context, InodeNumber ino) override;
  Task<Result<void>> set_extended(RequestContext context, InodeNumber ino, ExtendedChange change) override;
  SpaceStatistics statfs() override { return manager_.space(); }

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

  Result<void> read_directory(InodeNumber ino, std::uint64_t after, bool plus, std::size_t limit,
                              const Sink& sink) override;

  // Whether changes are refused from now on (kReadOnly); those that are under way go on.
  void set_read_only(bool read_only) { read_only_.store(read_only, std::memory_order_relaxed); }
  bool read_only() const { return read_only_.load(std::memory_order_relaxed); }

  // Unmounting: forgets every reference and purges what no name holds any more.
  Task<void> purge_pending();
  std::size_t purging() const override { return purging_.load(); }
  std::size_t referenced_inodes() const { return inodes_.size(); }

 private:
  Result<Attributes> lookup_by_number(InodeNumber ino);
  Result<InodeRef> regular(InodeNumber ino);
  Result<void> writable() const;
  // Whether S_ISGID may stay when the caller changes the permissions.
  static bool keeps_group_id(const RequestContext& context, const Attributes& attributes);
  // What becomes of the set-ID bits when the caller changes the file's bytes or owner.
  SetId set_id_of(const RequestContext& context, Inode& inode, bool clears) const;
  // When the kernel cannot see capabilities it does not remove them either: so what takes them away does it here.
  Task<Result<void>> drop_capabilities(RequestContext context, InodeRef inode);
  // The inode may have lost its last name.
  void after_unlink(const InodeRef& gone);
  // Queues a purge; runs after the present request, on this lane.
  void start_purge(InodeNumber ino);
  Task<void> purge_queue();
  Task<void> purge_one(InodeNumber ino);

  Manager& manager_;
  const FileSystemOptions options_;
  std::atomic<bool> read_only_;
  DataPath data_;
  InodeTable inodes_;

  // Inodes waiting to be purged, at most one per inode that was ever referenced; one coroutine works on them, so a
  // removed tree does not fill the journal with purges ahead of new requests.
  Mutex purge_mutex_{LockRank::kLeaf};
  std::deque<InodeNumber> purge_queue_;  // guarded by purge_mutex_
  bool purge_running_ = false;           // guarded by purge_mutex_
  std::atomic<std::size_t> purging_{0};  // queued and under way
};

}  // namespace rmemfs
