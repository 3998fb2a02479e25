// Data of regular files: checks the kind of inode, then hands over to the data path.
#include <sys/stat.h>

#include "fs/file_system.h"

namespace rmemfs {

Result<InodeRef> FileSystem::regular(InodeNumber ino) {
  ASSIGN_OR_RETURN(InodeRef inode, manager_.get(ino));
  const std::uint32_t mode = manager_.attributes(*inode).mode;
  if (S_ISDIR(mode)) return Error(Errc::kIsDirectory, "file data");
  if (!S_ISREG(mode)) return Error(Errc::kInvalid, "file data");
  return inode;
}

Task<Result<std::size_t>> FileSystem::read(RequestContext context, InodeNumber ino, std::uint64_t offset,
                                           std::span<std::byte> to) {
  CO_ASSIGN_OR_RETURN(InodeRef inode, regular(ino));
  co_return co_await data_.read(context, std::move(inode), offset, to);
}

Task<Result<void>> FileSystem::write(RequestContext context, InodeNumber ino, std::uint64_t offset,
                                     std::span<const std::byte> from, bool append) {
  CO_RETURN_IF_ERROR(writable());
  CO_ASSIGN_OR_RETURN(InodeRef inode, regular(ino));
  co_return co_await data_.write(context, std::move(inode), offset, from, append);
}

Task<Result<void>> FileSystem::fallocate(RequestContext context, InodeNumber ino, Fallocate mode, std::uint64_t offset,
                                         std::uint64_t length) {
  CO_RETURN_IF_ERROR(writable());
  CO_ASSIGN_OR_RETURN(InodeRef inode, regular(ino));
  if (mode == Fallocate::kPunchHole) co_return co_await data_.punch(context, std::move(inode), offset, length);
  co_return co_await data_.allocate(context, std::move(inode), offset, length, mode == Fallocate::kKeepSize);
}

Result<std::uint64_t> FileSystem::seek(InodeNumber ino, std::uint64_t offset, bool hole) {
  ASSIGN_OR_RETURN(const InodeRef inode, regular(ino));
  return manager_.seek(*inode, offset, hole);
}

Task<Result<void>> FileSystem::fsync(InodeNumber ino) {
  CO_ASSIGN_OR_RETURN(InodeRef inode, manager_.get(ino));
  co_return co_await data_.persist(std::move(inode));
}

}  // namespace rmemfs
