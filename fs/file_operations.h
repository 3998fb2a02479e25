// What FuseAdapter asks of a file system: POSIX operations as methods, without FUSE types, so that tests call them
// directly. FileSystem is what rmemfs mounts; the benchmarks mount one that answers at once (bench/null_files.h), so
// that what the kernel and the lanes cost is measured with the same requests.
//
// References: lookup(), make_node(), link() and read_directory() with attributes each count one reference of the inode
// they return; forget() gives them back.
// Threads: any lane (the context's connections are its own). Methods that return Result never suspend. Arguments passed
// by view or span must stay alive until the Task is done.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "fs/data_path.h"
#include "manager/manager.h"
#include "util/result.h"
#include "util/task.h"

namespace rmemfs {

struct SetAttributes {
  AttributeChange change;
  bool set_id_only = false;  // nothing is changed but set-ID bits cleared: a chown(2) that names nobody
  std::optional<std::uint64_t> size;
};

class FileOperations {
 public:
  virtual ~FileOperations() = default;

  // References. The name "." is asked of any inode, by its number alone: how a file handle is opened that the kernel
  // has no inode for. One without links is then kNotFound.
  virtual Result<Attributes> lookup(InodeNumber parent, std::string_view name) = 0;
  virtual void forget(InodeNumber ino, std::uint64_t count) = 0;

  // Attributes.
  virtual Result<Attributes> getattr(InodeNumber ino) = 0;
  virtual Task<Result<Attributes>> setattr(RequestContext context, InodeNumber ino, SetAttributes change) = 0;
  virtual Result<std::string> readlink(InodeNumber ino) = 0;

  // Extended attributes: of the namespaces user, trusted and security, and the two access lists. kNotSupported for
  // others, and for lists with -o noacl. list_extended: each name with a NUL behind it; those of trusted for root only.
  virtual Result<std::string> get_extended(InodeNumber ino, std::string_view name) = 0;
  virtual Result<std::string> list_extended(RequestContext context, InodeNumber ino) = 0;
  virtual Task<Result<void>> set_extended(RequestContext context, InodeNumber ino, ExtendedChange change) = 0;
  virtual SpaceStatistics statfs() = 0;

  // Names.
  virtual Task<Result<Attributes>> make_node(RequestContext context, InodeNumber parent, std::string_view name,
                                             NewNode node) = 0;
  // O_TMPFILE: a regular file that has no name and goes with its last reference unless link() gives it one.
  virtual Task<Result<Attributes>> make_temporary(RequestContext context, InodeNumber directory, NewNode node) = 0;
  virtual Task<Result<Attributes>> link(RequestContext context, InodeNumber ino, InodeNumber parent,
                                        std::string_view name) = 0;
  virtual Task<Result<void>> unlink(RequestContext context, InodeNumber parent, std::string_view name) = 0;
  virtual Task<Result<void>> rmdir(RequestContext context, InodeNumber parent, std::string_view name) = 0;
  virtual Task<Result<void>> rename(RequestContext context, InodeNumber parent, std::string_view name,
                                    InodeNumber new_parent, std::string_view new_name, RenameMode mode) = 0;

  // Data of regular files: kIsDirectory and kInvalid for others.
  virtual Task<Result<std::size_t>> read(RequestContext context, InodeNumber ino, std::uint64_t offset,
                                         std::span<std::byte> to) = 0;
  // How much of `from` is part of the file now: at least a byte, and nearly always all of it.
  virtual Task<Result<std::size_t>> write(RequestContext context, InodeNumber ino, std::uint64_t offset,
                                          std::span<const std::byte> from) = 0;
  enum class Fallocate { kExtend, kKeepSize, kPunchHole, kZeroRange, kZeroKeepSize };
  virtual Task<Result<void>> fallocate(RequestContext context, InodeNumber ino, Fallocate mode, std::uint64_t offset,
                                       std::uint64_t length) = 0;
  // Copies at most kMaxCopyBytes through `buffer` and returns how many bytes; 0 at the end of `from`.
  static constexpr std::uint64_t kMaxCopyBytes = std::uint64_t{16} << 20;
  virtual Task<Result<std::uint64_t>> copy_range(RequestContext context, InodeNumber from, std::uint64_t from_offset,
                                                 InodeNumber to, std::uint64_t to_offset, std::uint64_t length,
                                                 std::span<std::byte> buffer) = 0;
  virtual Result<std::uint64_t> seek(InodeNumber ino, std::uint64_t offset, bool hole) = 0;
  // fsync, fdatasync and fsyncdir: what the mount promises holds for everything acknowledged on this inode.
  virtual Task<Result<void>> fsync(InodeNumber ino) = 0;

  // Gives the entries behind the cookie `after` (0: from the start) to `sink`, about `limit` of them, until it returns
  // false (no room) or the end. With `plus` the entry's attributes come along and a reference is counted, except for .
  // and .. (and the entry refused). The next call goes on behind all entries with the last cookie: a sink that refuses
  // one takes none with the same cookie.
  using Sink = std::function<bool(const DirectoryEntry& entry, const Attributes* attributes)>;
  virtual Result<void> read_directory(InodeNumber ino, std::uint64_t after, bool plus, std::size_t limit,
                                      const Sink& sink) = 0;

  // Work that goes on after its request was answered; an unmount waits until there is none.
  virtual std::size_t purging() const = 0;
};

}  // namespace rmemfs
