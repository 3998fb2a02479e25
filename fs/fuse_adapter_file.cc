// Data of files.
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "fs/fuse_reply.h"

namespace rmemfs::fuse_detail {
namespace {

void op_open(fuse_req_t req, fuse_ino_t, fuse_file_info* file) noexcept {
  const Call call(req, Counter::kOpen);
  if (call.adapter.stateless_open) {
    fuse_reply_err(req, ENOSYS);  // "never ask again": an open file is nothing but a reference to its inode
    return;
  }
  file->fh = 0;
  file->keep_cache = 1;
  fuse_reply_open(req, file);
}

Task<void> do_read(Call call, InodeNumber ino, std::uint64_t offset, std::size_t size) {
  const std::span<std::byte> to = call.buffer.data().first(size);
  const auto result = co_await call.files().read(call.context, ino, offset, to);
  if (!result.ok()) {
    reply_error(call, result.error());
    co_return;
  }
  call.count(Counter::kReadBytes, *result);
  fuse_reply_buf(call.request, reinterpret_cast<const char*>(to.data()), *result);
}

void op_read(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset, fuse_file_info*) noexcept {
  Call call(req, Counter::kRead);
  // The kernel keeps to max_write for reads too (max_pages); a longer one is answered short, which it handles.
  size = std::min(size, kMaxRequestData);
  spawn(do_read(std::move(call), InodeNumber(ino), static_cast<std::uint64_t>(offset), size));
}

Task<void> do_write(Call call, InodeNumber ino, std::uint64_t offset, std::span<const std::byte> from,
                    bool write_back) {
  std::size_t done = 0;
  do {
    const auto result = co_await call.files().write(call.context, ino, offset + done, from.subspan(done));
    if (!result.ok()) {
      reply_error(call, result.error());
      co_return;
    }
    done += *result;
    // Of pages written back the kernel would take a part for the whole.
  } while (write_back && done < from.size());
  call.count(Counter::kWrittenBytes, done);
  fuse_reply_write(call.request, done);
}

// O_APPEND is the kernel's: it finds the end under the inode's lock, and all changes of the size pass through it. Its
// offset counts, because it sends the pieces of one long direct write at once, and lanes serve them in any order.
void op_write(fuse_req_t req, fuse_ino_t ino, const char* data, std::size_t size, off_t offset,
              fuse_file_info* file) noexcept {
  const std::span<const std::byte> from(reinterpret_cast<const std::byte*>(data), size);
  Call call(req, Counter::kWrite);
  call.context.clears_set_id = (call.raw<fuse_write_in>().write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
  spawn(do_write(std::move(call), InodeNumber(ino), static_cast<std::uint64_t>(offset), from, file->writepage != 0));
}

Task<void> do_fsync(Call call, InodeNumber ino) {
  const auto result = co_await call.files().fsync(ino);
  reply_status(call, result);
}
// fdatasync is fsync: size and extents must be durable either way, and they are in the same journal.
void op_fsync(fuse_req_t req, fuse_ino_t ino, int, fuse_file_info*) noexcept {
  spawn(do_fsync(Call(req, Counter::kFsync), InodeNumber(ino)));
}

Task<void> do_fallocate(Call call, InodeNumber ino, FileOperations::Fallocate mode, std::uint64_t offset,
                        std::uint64_t length) {
  const auto result = co_await call.files().fallocate(call.context, ino, mode, offset, length);
  reply_status(call, result);
}
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int flags, off_t offset, off_t length, fuse_file_info*) noexcept {
  Call call(req, Counter::kFallocate);
  FileOperations::Fallocate mode;
  switch (flags) {
    case 0:
      mode = FileOperations::Fallocate::kExtend;
      break;
    case FALLOC_FL_KEEP_SIZE:
      mode = FileOperations::Fallocate::kKeepSize;
      break;
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
      mode = FileOperations::Fallocate::kPunchHole;
      break;
    case FALLOC_FL_ZERO_RANGE:
      mode = FileOperations::Fallocate::kZeroRange;
      break;
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
      mode = FileOperations::Fallocate::kZeroKeepSize;
      break;
    default:
      return reply_error(call, Error(Errc::kNotSupported, "fallocate"));
  }
  spawn(do_fallocate(std::move(call), InodeNumber(ino), mode, static_cast<std::uint64_t>(offset),
                     static_cast<std::uint64_t>(length)));
}

Task<void> do_copy(Call call, InodeNumber from, std::uint64_t from_offset, InodeNumber to, std::uint64_t to_offset,
                   std::uint64_t length) {
  const auto result =
      co_await call.files().copy_range(call.context, from, from_offset, to, to_offset, length, call.buffer.data());
  if (!result.ok()) {
    reply_error(call, result.error());
    co_return;
  }
  call.count(Counter::kWrittenBytes, *result);
  fuse_reply_write(call.request, *result);
}
void op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, fuse_file_info*, fuse_ino_t to,
                        off_t to_offset, fuse_file_info*, std::size_t length, int flags) noexcept {
  Call call(req, Counter::kCopy);
  if (flags != 0) return reply_error(call, Error(Errc::kInvalid, "copy_file_range"));
  spawn(do_copy(std::move(call), InodeNumber(from), static_cast<std::uint64_t>(from_offset), InodeNumber(to),
                static_cast<std::uint64_t>(to_offset), length));
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, fuse_file_info*) noexcept {
  const Call call(req, Counter::kSeek);
  if ((whence != SEEK_DATA && whence != SEEK_HOLE) || offset < 0) {
    return reply_error(call, Error(Errc::kInvalid, "lseek"));
  }
  const auto found = call.files().seek(InodeNumber(ino), static_cast<std::uint64_t>(offset), whence == SEEK_HOLE);
  if (found.ok())
    fuse_reply_lseek(req, static_cast<off_t>(*found));
  else
    reply_error(call, found.error());
}

}  // namespace

void set_file_operations(fuse_lowlevel_ops& table) {
  table.open = op_open;
  table.read = op_read;
  table.write = op_write;
  table.fsync = op_fsync;
  table.fsyncdir = op_fsync;
  table.fallocate = op_fallocate;
  table.lseek = op_lseek;
  table.copy_file_range = op_copy_file_range;
}

}  // namespace rmemfs::fuse_detail
