// Session set-up, attributes and replies.
#include "fs/fuse_adapter.h"

#include <sys/stat.h>

#include <algorithm>
#include <limits>

#include "fs/fuse_reply.h"

namespace rmemfs {
namespace fuse_detail {

struct stat to_stat(const Attributes& a) {
  struct stat st {};
  st.st_ino = a.ino.value();
  st.st_mode = a.mode;
  st.st_nlink = a.nlink;
  st.st_uid = a.uid;
  st.st_gid = a.gid;
  st.st_rdev = a.rdev;
  st.st_size = static_cast<off_t>(a.size);
  st.st_blocks = static_cast<blkcnt_t>(a.blocks * (kBlockBytes / 512));
  st.st_blksize = kBlockBytes;
  st.st_atim = {a.atime.seconds, a.atime.nanoseconds};
  st.st_mtim = {a.mtime.seconds, a.mtime.nanoseconds};
  st.st_ctim = {a.ctime.seconds, a.ctime.nanoseconds};
  return st;
}

void reply_attributes(const Call& call, const Result<Attributes>& result) {
  if (!result.ok()) return reply_error(call, result.error());
  const struct stat st = to_stat(*result);
  fuse_reply_attr(call.request, &st, call.adapter.options.attribute_timeout_s);
}

fuse_entry_param to_entry(const Call& call, const Attributes& attributes) {
  fuse_entry_param entry{};
  entry.ino = attributes.ino.value();
  entry.attr = to_stat(attributes);
  entry.attr_timeout = call.adapter.options.attribute_timeout_s;
  entry.entry_timeout = call.adapter.options.entry_timeout_s;
  return entry;
}

void reply_entry(const Call& call, const Result<Attributes>& result) {
  if (!result.ok()) return reply_error(call, result.error());
  const fuse_entry_param entry = to_entry(call, *result);
  if (fuse_reply_entry(call.request, &entry) != 0) call.files().forget(result->ino, 1);
}

namespace {

void op_init(void* userdata, fuse_conn_info* connection) noexcept {
  auto& adapter = *static_cast<FuseAdapter*>(userdata);
  connection->want &= ~(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_ATOMIC_O_TRUNC |
                        FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_WRITEBACK_CACHE);
  const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
                          FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPORT_SUPPORT |
                          FUSE_CAP_DONT_MASK | (adapter.options.access_lists ? FUSE_CAP_POSIX_ACL : 0);
  connection->want |= connection->capable & wanted;
  adapter.stateless_open = (connection->capable & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
  adapter.stateless_opendir = (connection->capable & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
  connection->max_write = kMaxRequestData;
  connection->max_readahead = std::max<unsigned>(connection->max_readahead, kMaxRequestData);
  // Read-ahead and asynchronous direct I/O may take half of one lane's buffers, so that a node that does not answer
  // them leaves room for everything else.
  connection->max_background = 32;
  connection->congestion_threshold = 24;
  connection->time_gran = 1;
  adapter.initialized = true;
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) noexcept {
  const Call call(req, Counter::kGetattr);
  reply_attributes(call, call.files().getattr(InodeNumber(ino)));
}

Timestamp to_timestamp(const timespec& time) { return {time.tv_sec, static_cast<std::uint32_t>(time.tv_nsec)}; }

Task<void> do_setattr(Call call, InodeNumber ino, SetAttributes change) {
  const auto result = co_await call.files().setattr(call.context, ino, change);
  reply_attributes(call, result);
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat* attr, int to_set, fuse_file_info*) noexcept {
  SetAttributes set;
  if ((to_set & FUSE_SET_ATTR_MODE) != 0) set.change.mode = attr->st_mode & 07777;
  if ((to_set & FUSE_SET_ATTR_UID) != 0) set.change.uid = attr->st_uid;
  if ((to_set & FUSE_SET_ATTR_GID) != 0) set.change.gid = attr->st_gid;
  if ((to_set & FUSE_SET_ATTR_SIZE) != 0) set.size = static_cast<std::uint64_t>(attr->st_size);
  if ((to_set & FUSE_SET_ATTR_ATIME) != 0) set.change.atime = to_timestamp(attr->st_atim);
  if ((to_set & FUSE_SET_ATTR_MTIME) != 0) set.change.mtime = to_timestamp(attr->st_mtim);
  if ((to_set & FUSE_SET_ATTR_ATIME_NOW) != 0) set.change.atime = now_timestamp();
  if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0) set.change.mtime = now_timestamp();
  if ((to_set & FUSE_SET_ATTR_CTIME) != 0) set.change.ctime = to_timestamp(attr->st_ctim);
  Call call(req, Counter::kSetattr);
  const std::uint32_t valid = call.raw<fuse_setattr_in>().valid;
  call.context.clears_set_id = (valid & FATTR_KILL_SUIDGID) != 0;
  // Either a chown() that names nobody, or a write is to come that says the same: only for the owner anything is done.
  set.set_id_only = (valid & ~(FATTR_FH | FATTR_LOCKOWNER)) == 0;
  spawn(do_setattr(std::move(call), InodeNumber(ino), set));
}

void op_statfs(fuse_req_t req, fuse_ino_t) noexcept {
  const Call call(req, Counter::kStatfs);
  const SpaceStatistics space = call.files().statfs();
  struct statvfs st {};
  st.f_bsize = kBlockBytes;
  st.f_frsize = kBlockBytes;
  st.f_blocks = space.total_bytes / kBlockBytes;
  st.f_bfree = st.f_bavail = space.free_bytes / kBlockBytes;
  // Inodes are limited by the local disk only; df shows what is used.
  st.f_files = space.inodes + (std::uint64_t{1} << 40);
  st.f_ffree = st.f_favail = std::uint64_t{1} << 40;
  st.f_namemax = kMaxNameBytes;
  fuse_reply_statfs(req, &st);
}

}  // namespace

void set_attribute_operations(fuse_lowlevel_ops& table) {
  table.init = op_init;
  table.getattr = op_getattr;
  table.setattr = op_setattr;
  table.statfs = op_statfs;
}

}  // namespace fuse_detail

const fuse_lowlevel_ops& FuseAdapter::operations() {
  static const fuse_lowlevel_ops table = [] {
    fuse_lowlevel_ops ops{};
    fuse_detail::set_attribute_operations(ops);
    fuse_detail::set_name_operations(ops);
    fuse_detail::set_file_operations(ops);
    fuse_detail::set_directory_operations(ops);
    fuse_detail::set_extended_operations(ops);
    return ops;
  }();
  return table;
}

}  // namespace rmemfs
