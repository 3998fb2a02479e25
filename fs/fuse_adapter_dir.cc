// Directory streams.
#include <algorithm>
#include <vector>

#include "fs/fuse_reply.h"

namespace rmemfs::fuse_detail {
namespace {

void op_opendir(fuse_req_t req, fuse_ino_t ino, fuse_file_info* file) noexcept {
  const Call call(req, Counter::kOpen);
  const auto handle = call.files().open_directory(InodeNumber(ino));
  if (!handle.ok()) return reply_error(call, handle.error());
  file->fh = *handle;
  // The kernel drops its cached listing at every change that it makes, and nobody else makes any.
  file->cache_readdir = 1;
  file->keep_cache = 1;
  if (fuse_reply_open(req, file) != 0) static_cast<void>(call.files().close_directory(*handle));
}

void op_releasedir(fuse_req_t req, fuse_ino_t, fuse_file_info* file) noexcept {
  const Call call(req, Counter::kOpen);
  reply_status(call, call.files().close_directory(file->fh));
}

void read_entries(const Call& call, std::size_t size, off_t offset, std::uint64_t handle, bool plus) {
  size = std::min(size, kMaxRequestData);
  char* const out = reinterpret_cast<char*>(call.buffer.data().data());
  std::size_t used = 0;
  std::vector<InodeNumber> counted;
  const auto sink = [&](const DirectoryEntry& entry, const Attributes* attributes) {
    fuse_entry_param param{};
    const auto next = static_cast<off_t>(entry.cookie);
    std::size_t need;
    if (plus) {
      if (attributes != nullptr) {
        param.ino = attributes->ino.value();
        param.attr = to_stat(*attributes);
        param.attr_timeout = call.adapter.options.attribute_timeout_s;
        param.entry_timeout = call.adapter.options.entry_timeout_s;
      } else {
        param.attr.st_ino = entry.ino.value();  // inode 0 in the entry: the name only
        param.attr.st_mode = static_cast<mode_t>(entry.type) << 12;
      }
      need = fuse_add_direntry_plus(call.request, out + used, size - used, entry.name.c_str(), &param, next);
    } else {
      param.attr.st_ino = entry.ino.value();
      param.attr.st_mode = static_cast<mode_t>(entry.type) << 12;
      need = fuse_add_direntry(call.request, out + used, size - used, entry.name.c_str(), &param.attr, next);
    }
    if (need > size - used) return false;
    used += need;
    if (attributes != nullptr) counted.push_back(attributes->ino);
    return true;
  };
  const std::size_t smallest = plus ? 160 : 32;
  const auto result = call.files().read_directory(handle, static_cast<std::uint64_t>(offset), plus,
                                                  std::max<std::size_t>(size / smallest, 2), sink);
  // An error behind the first entries is met again by the next call.
  const bool failed = !result.ok() && used == 0;
  if (failed) return reply_error(call, result.error());
  if (fuse_reply_buf(call.request, out, used) != 0) {
    for (InodeNumber ino : counted) call.files().forget(ino, 1);
  }
}

void op_readdir(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* file) noexcept {
  read_entries(Call(req, Counter::kReaddir), size, offset, file->fh, false);
}
void op_readdirplus(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* file) noexcept {
  read_entries(Call(req, Counter::kReaddir), size, offset, file->fh, true);
}

}  // namespace

void set_directory_operations(fuse_lowlevel_ops& table) {
  table.opendir = op_opendir;
  table.releasedir = op_releasedir;
  table.readdir = op_readdir;
  table.readdirplus = op_readdirplus;
}

}  // namespace rmemfs::fuse_detail
