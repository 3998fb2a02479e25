// Names: lookup and forget, and everything that makes, moves or removes one.
#include <linux/fs.h>
#include <sys/stat.h>

#include "fs/fuse_reply.h"

namespace rmemfs::fuse_detail {
namespace {

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) noexcept {
  const Call call(req, Counter::kLookup);
  const auto result = call.files().lookup(InodeNumber(parent), name);
  if (!result.ok() && result.error().code == Errc::kNotFound) {
    fuse_entry_param absent{};  // inode 0: the kernel remembers that there is no such name
    absent.entry_timeout = call.adapter.options.entry_timeout_s;
    fuse_reply_entry(req, &absent);
    return;
  }
  reply_entry(call, result);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, std::uint64_t count) noexcept {
  const Call call(req, Counter::kForget);
  call.files().forget(InodeNumber(ino), count);
  fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, std::size_t count, fuse_forget_data* forgets) noexcept {
  const Call call(req, Counter::kForget);
  for (std::size_t i = 0; i < count; ++i) call.files().forget(InodeNumber(forgets[i].ino), forgets[i].nlookup);
  fuse_reply_none(req);
}

void op_readlink(fuse_req_t req, fuse_ino_t ino) noexcept {
  const Call call(req, Counter::kReadlink);
  const auto target = call.files().readlink(InodeNumber(ino));
  if (target.ok())
    fuse_reply_readlink(req, target->c_str());
  else
    reply_error(call, target.error());
}

// `name` and `target` lie in the request's buffer, which the call holds.
Task<void> do_make_node(Call call, InodeNumber parent, const char* name, std::uint32_t mode, std::uint32_t rdev,
                        const char* target) {
  NewNode node;
  node.mode = mode;
  node.umask = call.umask;
  node.rdev = rdev;
  if (target != nullptr) node.symlink_target = target;
  const auto result = co_await call.files().make_node(call.context, parent, name, node);
  reply_entry(call, result);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) noexcept {
  spawn(do_make_node(Call(req, Counter::kMakeNode), InodeNumber(parent), name, mode, static_cast<std::uint32_t>(rdev),
                     nullptr));
}

Task<void> do_make_temporary(Call call, InodeNumber directory, std::uint32_t mode, fuse_file_info file) {
  NewNode node;
  node.mode = mode;
  node.umask = call.umask;
  const auto result = co_await call.files().make_temporary(call.context, directory, node);
  if (!result.ok()) {
    reply_error(call, result.error());
    co_return;
  }
  fuse_entry_param entry = to_entry(call, *result);
  file.keep_cache = 1;
  if (fuse_reply_create(call.request, &entry, &file) != 0) call.files().forget(result->ino, 1);
}
// A TMPFILE request, which the lane passes on as CREATE. Else a file is made by MKNOD and opened without asking.
void op_create(fuse_req_t req, fuse_ino_t parent, const char*, mode_t mode, fuse_file_info* file) noexcept {
  Call call(req, Counter::kMakeNode);
  if (!call.lane.temporary_file_request()) {
    fuse_reply_err(req, ENOSYS);
    return;
  }
  spawn(do_make_temporary(std::move(call), InodeNumber(parent), S_IFREG | (mode & 07777), *file));
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) noexcept {
  spawn(do_make_node(Call(req, Counter::kMakeNode), InodeNumber(parent), name, (mode & 07777) | S_IFDIR, 0, nullptr));
}

void op_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) noexcept {
  spawn(do_make_node(Call(req, Counter::kMakeNode), InodeNumber(parent), name, S_IFLNK | 0777, 0, target));
}

Task<void> do_link(Call call, InodeNumber ino, InodeNumber parent, const char* name) {
  const auto result = co_await call.files().link(call.context, ino, parent, name);
  reply_entry(call, result);
}
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char* name) noexcept {
  spawn(do_link(Call(req, Counter::kLink), InodeNumber(ino), InodeNumber(parent), name));
}

Task<void> do_unlink(Call call, InodeNumber parent, const char* name) {
  const auto result = co_await call.files().unlink(call.context, parent, name);
  reply_status(call, result);
}
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) noexcept {
  spawn(do_unlink(Call(req, Counter::kUnlink), InodeNumber(parent), name));
}

Task<void> do_rmdir(Call call, InodeNumber parent, const char* name) {
  const auto result = co_await call.files().rmdir(call.context, parent, name);
  reply_status(call, result);
}
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) noexcept {
  spawn(do_rmdir(Call(req, Counter::kUnlink), InodeNumber(parent), name));
}

Task<void> do_rename(Call call, InodeNumber parent, const char* name, InodeNumber new_parent, const char* new_name,
                     RenameMode mode) {
  const auto result = co_await call.files().rename(call.context, parent, name, new_parent, new_name, mode);
  reply_status(call, result);
}
void op_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent, const char* new_name,
               unsigned flags) noexcept {
  RenameMode mode = RenameMode::kReplace;
  switch (flags) {
    case 0:
      break;
    case RENAME_NOREPLACE:
      mode = RenameMode::kNoReplace;
      break;
    case RENAME_EXCHANGE:
      mode = RenameMode::kExchange;
      break;
    default:
      return reply_error(Call(req, Counter::kRename), Error(Errc::kInvalid, "rename"));
  }
  spawn(do_rename(Call(req, Counter::kRename), InodeNumber(parent), name, InodeNumber(new_parent), new_name, mode));
}

}  // namespace

void set_name_operations(fuse_lowlevel_ops& table) {
  table.lookup = op_lookup;
  table.forget = op_forget;
  table.forget_multi = op_forget_multi;
  table.readlink = op_readlink;
  table.mknod = op_mknod;
  table.create = op_create;
  table.mkdir = op_mkdir;
  table.symlink = op_symlink;
  table.link = op_link;
  table.unlink = op_unlink;
  table.rmdir = op_rmdir;
  table.rename = op_rename;
}

}  // namespace rmemfs::fuse_detail
