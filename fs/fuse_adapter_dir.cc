// Directories. They are not opened: a READDIR says where it goes on, which is all there is to know.
#include <algorithm>
#include <vector>

#include "fs/fuse_reply.h"

namespace rmemfs::fuse_detail {
namespace {

void op_opendir(fuse_req_t req, fuse_ino_t, fuse_file_info* file) noexcept {
  const Call call(req, Counter::kOpendir);
  if (call.adapter.stateless_opendir) {
    fuse_reply_err(req, ENOSYS);  // "never ask again": the kernel keeps listings, and drops one at each change it makes
    return;
  }
  file->fh = 0;
  file->cache_readdir = 1;
  file->keep_cache = 1;
  fuse_reply_open(req, file);
}

// One reply to READDIR. What has the same position goes in together or not at all, because the kernel asks for what
// is behind a position.
class Listing {
 public:
  Listing(const Call& call, std::size_t size, bool plus)
      : call_(call),
        out_(reinterpret_cast<char*>(call.buffer.data().data())),
        size_(std::min(size, kMaxRequestData)),
        plus_(plus) {}

  bool add(const DirectoryEntry& entry, const Attributes* attributes) {
    if (used_ == 0 || entry.cookie != position_) {
      position_ = entry.cookie;
      whole_bytes_ = used_;
      whole_counted_ = counted_.size();
    }
    const std::size_t need = put(entry, attributes);
    if (need > size_ - used_) {
      refused_ = true;
      used_ = whole_bytes_;
      give_back(whole_counted_);
      return false;
    }
    used_ += need;
    if (attributes != nullptr) counted_.push_back(attributes->ino);
    return true;
  }

  void reply(const Result<void>& result) {
    // An error behind the first entries is met again by the next call.
    if (used_ == 0 && !result.ok()) return reply_error(call_, result.error());
    if (used_ == 0 && refused_) return reply_error(call_, Error(Errc::kInvalid, "readdir"));
    if (fuse_reply_buf(call_.request, out_, used_) != 0) give_back(0);
  }

 private:
  std::size_t put(const DirectoryEntry& entry, const Attributes* attributes) {
    fuse_entry_param param{};
    const auto next = static_cast<off_t>(entry.cookie);
    if (plus_ && attributes != nullptr) {
      param = to_entry(call_, *attributes);
    } else {
      param.attr.st_ino = entry.ino.value();  // inode 0 in the entry: the name only
      param.attr.st_mode = static_cast<mode_t>(entry.type) << 12;
    }
    char* const at = out_ + used_;
    const std::size_t room = size_ - used_;
    return plus_ ? fuse_add_direntry_plus(call_.request, at, room, entry.name.c_str(), &param, next)
                 : fuse_add_direntry(call_.request, at, room, entry.name.c_str(), &param.attr, next);
  }
  void give_back(std::size_t from) {
    for (std::size_t i = from; i < counted_.size(); ++i) call_.files().forget(counted_[i], 1);
    counted_.resize(from);
  }

  const Call& call_;
  char* const out_;
  const std::size_t size_;
  const bool plus_;
  std::size_t used_ = 0;
  bool refused_ = false;
  std::vector<InodeNumber> counted_;
  // Of the entries that have the last position: it, and what was there before them.
  std::uint64_t position_ = 0;
  std::size_t whole_bytes_ = 0, whole_counted_ = 0;
};

void read_entries(const Call& call, fuse_ino_t ino, std::size_t size, off_t offset, bool plus) {
  Listing listing(call, size, plus);
  const std::size_t smallest = plus ? 160 : 32;
  listing.reply(call.files().read_directory(
      InodeNumber(ino), static_cast<std::uint64_t>(offset), plus,
      std::clamp<std::size_t>(size / smallest, 2, kMaxRequestData / smallest),
      [&](const DirectoryEntry& entry, const Attributes* attributes) { return listing.add(entry, attributes); }));
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset, fuse_file_info*) noexcept {
  read_entries(Call(req, Counter::kReaddir), ino, size, offset, false);
}
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset, fuse_file_info*) noexcept {
  read_entries(Call(req, Counter::kReaddir), ino, size, offset, true);
}

}  // namespace

void set_directory_operations(fuse_lowlevel_ops& table) {
  table.opendir = op_opendir;
  table.readdir = op_readdir;
  table.readdirplus = op_readdirplus;
}

}  // namespace rmemfs::fuse_detail
