// Extended attributes.
#include <sys/xattr.h>

#include "fs/fuse_reply.h"

namespace rmemfs::fuse_detail {
namespace {

// `size` 0 asks how long it is.
void reply_text(const Call& call, const Result<std::string>& text, std::size_t size) {
  if (!text.ok()) return reply_error(call, text.error());
  if (size == 0) {
    fuse_reply_xattr(call.request, text->size());
  } else if (text->size() > size) {
    reply_error(call, Error(Errc::kRange, "attribute"));
  } else {
    fuse_reply_buf(call.request, text->data(), text->size());
  }
}

// With -o noxattr. Told once of each request, the kernel does not send it again, and itself answers EOPNOTSUPP.
bool refused(const Call& call) {
  if (call.adapter.options.extended) return false;
  fuse_reply_err(call.request, ENOSYS);
  return true;
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char* name, std::size_t size) noexcept {
  const Call call(req, Counter::kGetAttribute);
  if (refused(call)) return;
  reply_text(call, call.files().get_extended(InodeNumber(ino), name), size);
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, std::size_t size) noexcept {
  const Call call(req, Counter::kListAttributes);
  if (refused(call)) return;
  reply_text(call, call.files().list_extended(call.context, InodeNumber(ino)), size);
}

// The name and the value lie in the request's buffer, which the call holds.
Task<void> do_set(Call call, InodeNumber ino, ExtendedChange change) {
  const auto result = co_await call.files().set_extended(call.context, ino, change);
  reply_status(call, result);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char* name, const char* value, std::size_t size,
                 int flags) noexcept {
  Call call(req, Counter::kSetAttribute);
  if (refused(call)) return;
  ExtendedChange change;
  change.name = name;
  change.value = std::string_view(value, size);
  if ((flags & XATTR_CREATE) != 0) change.mode = ExtendedChange::Mode::kCreate;
  if ((flags & XATTR_REPLACE) != 0) change.mode = ExtendedChange::Mode::kReplace;
  spawn(do_set(std::move(call), InodeNumber(ino), change));
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char* name) noexcept {
  Call call(req, Counter::kSetAttribute);
  if (refused(call)) return;
  ExtendedChange change;
  change.name = name;
  spawn(do_set(std::move(call), InodeNumber(ino), change));
}

}  // namespace

void set_extended_operations(fuse_lowlevel_ops& table) {
  table.getxattr = op_getxattr;
  table.listxattr = op_listxattr;
  table.setxattr = op_setxattr;
  table.removexattr = op_removexattr;
}

}  // namespace rmemfs::fuse_detail
