// Data of regular files: checks the kind of inode, then hands over to the data path.
#include <sys/stat.h>

#include <algorithm>

#include "fs/file_system.h"

namespace rmemfs {

Result<InodeRef> FileSystem::regular(InodeNumber ino) {
  ASSIGN_OR_RETURN(InodeRef inode, manager_.get(ino));
  const std::uint32_t mode = manager_.mode(*inode);
  if (S_ISDIR(mode)) return Error(Errc::kIsDirectory, "file data");
  if (!S_ISREG(mode)) return Error(Errc::kInvalid, "file data");
  return inode;
}

Task<Result<std::size_t>> FileSystem::read(RequestContext context, InodeNumber ino, std::uint64_t offset,
                                           std::span<std::byte> to) {
  CO_ASSIGN_OR_RETURN(InodeRef inode, regular(ino));
  auto got = co_await data_.read(context, inode, offset, to);
  if (got.ok()) manager_.accessed(inode);
  co_return got;
}

Task<Result<std::size_t>> FileSystem::write(RequestContext context, InodeNumber ino, std::uint64_t offset,
                                            std::span<const std::byte> from) {
  CO_RETURN_IF_ERROR(writable());
  CO_ASSIGN_OR_RETURN(InodeRef inode, regular(ino));
  if (!options_.extended) CO_RETURN_IF_ERROR(co_await drop_capabilities(context, inode));
  co_return co_await data_.write(context, inode, offset, from, set_id_of(context, *inode, context.clears_set_id));
}

Task<Result<void>> FileSystem::fallocate(RequestContext context, InodeNumber ino, Fallocate mode, std::uint64_t offset,
                                         std::uint64_t length) {
  CO_RETURN_IF_ERROR(writable());
  CO_ASSIGN_OR_RETURN(InodeRef inode, regular(ino));
  CO_RETURN_IF_ERROR(co_await drop_capabilities(context, inode));
  // The kernel does not say here whether the caller may keep set-ID bits.
  const SetId set_id = set_id_of(context, *inode, context.uid != 0);
  if (mode == Fallocate::kPunchHole) co_return co_await data_.punch(context, inode, offset, length, set_id);
  AllocateMode how;
  how.keep_size = mode == Fallocate::kKeepSize || mode == Fallocate::kZeroKeepSize;
  how.zero = mode == Fallocate::kZeroRange || mode == Fallocate::kZeroKeepSize;
  how.set_id = set_id;
  co_return co_await data_.allocate(context, inode, offset, length, how);
}

Task<Result<std::uint64_t>> FileSystem::copy_range(RequestContext context, InodeNumber from, std::uint64_t from_offset,
                                                   InodeNumber to, std::uint64_t to_offset, std::uint64_t length,
                                                   std::span<std::byte> buffer) {
  CO_RETURN_IF_ERROR(writable());
  CO_ASSIGN_OR_RETURN(InodeRef source, regular(from));
  CO_ASSIGN_OR_RETURN(InodeRef target, regular(to));
  CO_RETURN_IF_ERROR(co_await drop_capabilities(context, target));
  length = std::min(length, kMaxCopyBytes);
  const SetId set_id = set_id_of(context, *target, context.uid != 0);
  std::uint64_t done = 0;
  while (done < length) {
    const std::span<std::byte> part = buffer.first(std::min<std::uint64_t>(buffer.size(), length - done));
    const auto got = co_await data_.read(context, source, from_offset + done, part);
    if (got.ok()) manager_.accessed(source);
    // What has been copied counts; the next call meets the error again.
    if (!got.ok() && done == 0) co_return got.error();
    if (!got.ok() || *got == 0) break;
    const auto written = co_await data_.write(context, target, to_offset + done, part.first(*got), set_id);
    if (!written.ok() && done == 0) co_return written.error();
    if (!written.ok()) break;
    done += *written;
    if (*written < *got) break;
  }
  co_return done;
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
