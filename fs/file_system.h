// The file system: POSIX operations as methods, without FUSE types, so that tests call it directly.
//
// References: lookup(), make_node(), link() and read_directory() with attributes each count one reference of the inode
// they return; forget() gives them back. An inode without a name lives while it is referenced.
// There are no open files here: the caller of an inode's operations holds a reference, which is all that POSIX's
// "open but unlinked" needs, and permissions are checked by the kernel. Directory streams have handles, because a
// stream knows more than the cookie where it stands.
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
#include "fs/handle_table.h"
#include "fs/inode_table.h"
#include "manager/manager.h"
#include "util/result.h"
#include "util/task.h"

namespace rmemfs {

struct FileSystemOptions {
  std::uint32_t deadline_ms = 10000;
  std::uint32_t max_directory_streams = 65536;
  bool read_only = false;
};

struct SetAttributes {
  AttributeChange change;
  bool set_id_only = false;  // nothing is changed but set-ID bits cleared: a chown(2) that names nobody
  std::optional<std::uint64_t> size;
};

class FileSystem {
 public:
  // `lanes` finds a lane's connections by the lane's number. All outlive this object.
  FileSystem(Manager& manager, const FileSystemOptions& options,
             std::function<ConnectionSet*(std::uint32_t lane)> lanes);

  // References.
  Result<Attributes> lookup(InodeNumber parent, std::string_view name);
  void forget(InodeNumber ino, std::uint64_t count);

  // Attributes.
  Result<Attributes> getattr(InodeNumber ino);
  Task<Result<Attributes>> setattr(RequestContext context, InodeNumber ino, SetAttributes change);
  Result<std::string> readlink(InodeNumber ino);

  // Extended attributes: of the namespaces user, trusted and security, and the two access lists. kNotSupported for
  // others. list_extended: each name with a NUL behind it; those of trusted for root only.
  Result<std::string> get_extended(InodeNumber ino, std::string_view name);
  Result<std::string> list_extended(RequestContext context, InodeNumber ino);
  Task<Result<void>> set_extended(RequestContext context, InodeNumber ino, ExtendedChange change);
  SpaceStatistics statfs() { return manager_.space(); }

  // Names.
  Task<Result<Attributes>> make_node(RequestContext context, InodeNumber parent, std::string_view name, NewNode node);
  // O_TMPFILE: a regular file that has no name and goes with its last reference unless link() gives it one.
  Task<Result<Attributes>> make_temporary(RequestContext context, InodeNumber directory, NewNode node);
  Task<Result<Attributes>> link(RequestContext context, InodeNumber ino, InodeNumber parent, std::string_view name);
  Task<Result<void>> unlink(RequestContext context, InodeNumber parent, std::string_view name);
  Task<Result<void>> rmdir(RequestContext context, InodeNumber parent, std::string_view name);
  Task<Result<void>> rename(RequestContext context, InodeNumber parent, std::string_view name, InodeNumber new_parent,
                            std::string_view new_name, RenameMode mode);

  // Data of regular files: kIsDirectory and kInvalid for others.
  Task<Result<std::size_t>> read(RequestContext context, InodeNumber ino, std::uint64_t offset,
                                 std::span<std::byte> to);
  Task<Result<void>> write(RequestContext context, InodeNumber ino, std::uint64_t offset,
                           std::span<const std::byte> from, bool append);
  enum class Fallocate { kExtend, kKeepSize, kPunchHole, kZeroRange, kZeroKeepSize };
  Task<Result<void>> fallocate(RequestContext context, InodeNumber ino, Fallocate mode, std::uint64_t offset,
                               std::uint64_t length);
  // Copies at most kMaxCopyBytes through `buffer` and returns how many bytes; 0 at the end of `from`.
  static constexpr std::uint64_t kMaxCopyBytes = std::uint64_t{16} << 20;
  Task<Result<std::uint64_t>> copy_range(RequestContext context, InodeNumber from, std::uint64_t from_offset,
                                         InodeNumber to, std::uint64_t to_offset, std::uint64_t length,
                                         std::span<std::byte> buffer);
  Result<std::uint64_t> seek(InodeNumber ino, std::uint64_t offset, bool hole);
  // fsync, fdatasync and fsyncdir: what the mount promises holds for everything acknowledged on this inode.
  Task<Result<void>> fsync(InodeNumber ino);

  // Directory streams. `offset` 0 reads from the start again, with what the directory holds then.
  Result<std::uint64_t> open_directory(InodeNumber ino);
  Result<void> close_directory(std::uint64_t handle);
  // Gives entries to `sink` until it returns false (no room: that entry is given again next time) or the end. With
  // `plus` the entry's attributes come along and a reference is counted, except for . and .. (and entries refused).
  using Sink = std::function<bool(const DirectoryEntry& entry, const Attributes* attributes)>;
  Result<void> read_directory(std::uint64_t handle, std::uint64_t offset, bool plus, std::size_t limit,
                              const Sink& sink);

  // Unmounting: forgets every reference and purges what no name holds any more.
  Task<void> purge_pending();
  std::size_t purging() const { return purging_.load(); }
  std::size_t referenced_inodes() const { return inodes_.size(); }

 private:
  struct DirectoryStream {
    InodeNumber ino;
    DirectoryCursor cursor;         // after the last entry that the sink took
    std::atomic<bool> busy{false};  // the kernel serializes a stream's reads; a second reader gets kBusy
  };

  Result<InodeRef> regular(InodeNumber ino);
  Result<void> writable() const;
  // Whether S_ISGID may stay when the caller changes the permissions.
  static bool keeps_group_id(const RequestContext& context, const Attributes& attributes);
  // What becomes of the set-ID bits when the caller changes the file's bytes or owner.
  SetId set_id_of(const RequestContext& context, Inode& inode, bool clears) const;
  // The inode may have lost its last name.
  void after_unlink(const InodeRef& gone);
  // Queues a purge; runs after the present request, on this lane.
  void start_purge(InodeNumber ino);
  Task<void> purge_queue();
  Task<void> purge_one(InodeNumber ino);

  Manager& manager_;
  const FileSystemOptions options_;
  DataPath data_;
  InodeTable inodes_;
  HandleTable<DirectoryStream> streams_;

  // Inodes waiting to be purged, at most one per inode that was ever referenced; one coroutine works on them, so a
  // removed tree does not fill the journal with purges ahead of new requests.
  Mutex purge_mutex_{LockRank::kLeaf};
  std::deque<InodeNumber> purge_queue_;  // guarded by purge_mutex_
  bool purge_running_ = false;           // guarded by purge_mutex_
  std::atomic<std::size_t> purging_{0};  // queued and under way
};

}  // namespace rmemfs
