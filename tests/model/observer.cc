#include "observer.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "system_call.h"

namespace rmemfs::difference {
namespace {

constexpr std::uint64_t kWholeBytes = std::uint64_t{1} << 20;  // up to here a file is compared byte by byte
constexpr std::size_t kMaxSegments = 64;                       // of a longer, sparse one
constexpr std::int64_t kNear = 100000;                         // seconds

bool same_time(const statx_timestamp& a, const statx_timestamp& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}
std::string text(const statx_timestamp& time) {
  return std::to_string(time.tv_sec) + "." + std::to_string(time.tv_nsec);
}

std::string octal(unsigned mode) {
  char out[16];
  std::snprintf(out, sizeof out, "%o", mode);
  return out;
}

Difference differ(const std::string& what, const Watched& file, const std::string& tested,
                  const std::string& reference) {
  return {what, what + " of " + file.path[kTested] + ": " + tested + " instead of " + reference};
}

// Segments of data, [first, second), as SEEK_DATA and SEEK_HOLE tell them.
using Segments = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
Segments segments(int file) {
  Segments found;
  for (off_t at = 0; found.size() < kMaxSegments;) {
    const off_t data = ::lseek(file, at, SEEK_DATA);
    if (data < 0) break;
    const off_t end = ::lseek(file, data, SEEK_HOLE);
    if (end <= data) break;
    found.emplace_back(data, end);
    at = end;
  }
  return found;
}

std::vector<char> read_range(int file, std::uint64_t at, std::uint64_t length) {
  std::vector<char> out(length);
  std::size_t have = 0;
  while (have < length) {
    const ssize_t got = ::pread(file, out.data() + have, length - have, static_cast<off_t>(at + have));
    if (got <= 0) break;
    have += static_cast<std::size_t>(got);
  }
  out.resize(have);
  return out;
}

struct File {
  explicit File(int descriptor) : fd(descriptor) {}
  ~File() {
    if (fd >= 0) ::close(fd);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  const int fd;
};

std::optional<std::set<std::string>> names_in(int directory) {
  const int copy = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const stream = copy < 0 ? nullptr : ::fdopendir(copy);
  if (stream == nullptr) return std::nullopt;
  std::set<std::string> names;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.insert(name);
  }
  ::closedir(stream);
  return names;
}

// Names and values of a file's extended attributes.
std::map<std::string, std::string> attributes_of(const std::string& path) {
  std::vector<char> names(65536), value(65536);
  std::map<std::string, std::string> out;
  const ssize_t length = ::llistxattr(path.c_str(), names.data(), names.size());
  for (ssize_t at = 0; at < length;) {
    const std::string name = names.data() + at;
    at += static_cast<ssize_t>(name.size()) + 1;
    const ssize_t size = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    out[name] = size < 0 ? "error " + std::to_string(errno)
                         : "value " + std::string(value.data(), static_cast<std::size_t>(size));
  }
  if (length < 0 && errno != EOPNOTSUPP) out["error"] = std::to_string(errno);
  return out;
}

}  // namespace

Observer::Observer(int tested, int reference, const ObserverOptions& options)
    : roots_{tested, reference}, options_(options) {}

Look Observer::look(int side, const Watched& file, bool fresh) const {
  Look out;
  const int flags = (file.follow ? 0 : AT_SYMLINK_NOFOLLOW) |
                    (side == kTested && fresh ? AT_STATX_FORCE_SYNC : AT_STATX_SYNC_AS_STAT);
  if (::statx(roots_[side], file.path[side].c_str(), flags, STATX_BASIC_STATS, &out.status) != 0) out.error = errno;
  return out;
}

std::optional<Difference> Observer::compare(const Watched& file, const Look& tested, const Look& reference) const {
  if (tested.error != reference.error) {
    return differ("stat", file, std::strerror(tested.error), std::strerror(reference.error));
  }
  if (tested.error != 0) return std::nullopt;
  const struct statx& t = tested.status;
  const struct statx& r = reference.status;
  const auto number = [&](const char* what, std::uint64_t a, std::uint64_t b) -> std::optional<Difference> {
    if (a == b) return std::nullopt;
    return differ(what, file, std::to_string(a), std::to_string(b));
  };
  if (t.stx_mode != r.stx_mode) return differ("mode", file, octal(t.stx_mode), octal(r.stx_mode));
  if (auto d = number("link count", t.stx_nlink, r.stx_nlink)) return d;
  if (auto d = number("owner", t.stx_uid, r.stx_uid)) return d;
  if (auto d = number("group", t.stx_gid, r.stx_gid)) return d;
  if (S_ISCHR(t.stx_mode) || S_ISBLK(t.stx_mode)) {
    if (auto d = number("device", t.stx_rdev_major, r.stx_rdev_major)) return d;
    if (auto d = number("device", t.stx_rdev_minor, r.stx_rdev_minor)) return d;
  }
  if (!S_ISDIR(t.stx_mode)) {  // kDirectorySize
    if (auto d = number("size", t.stx_size, r.stx_size)) return d;
  }
  // kBlocks: the reference may count more, for what it keeps besides the bytes or does not give back.
  if (S_ISREG(t.stx_mode) && t.stx_blocks > r.stx_blocks) {
    if (auto d = number("blocks", t.stx_blocks, r.stx_blocks)) return d;
  }
  const auto explicit_time = [&](const statx_timestamp& time) {
    return time.tv_sec < options_.started - kNear || time.tv_sec > options_.started + kNear;
  };
  for (const auto& [what, a, b] :
       {std::tuple{"atime", &t.stx_atime, &r.stx_atime}, {"mtime", &t.stx_mtime, &r.stx_mtime}}) {
    if (S_ISFIFO(t.stx_mode)) break;  // kSpecialTimes
    if ((explicit_time(*a) || explicit_time(*b)) && !same_time(*a, *b)) return differ(what, file, text(*a), text(*b));
  }
  return std::nullopt;
}

std::optional<Difference> Observer::compare_changes(const Watched& file, const Look before[2],
                                                    const Look after[2]) const {
  std::string changed[2];
  for (const int side : {kTested, kReference}) {
    if (before[side].error != 0 || after[side].error != 0) return std::nullopt;
    const struct statx& b = before[side].status;
    const struct statx& a = after[side].status;
    if (a.stx_ino != b.stx_ino) return std::nullopt;
    if (S_ISFIFO(a.stx_mode)) return std::nullopt;  // kSpecialTimes
    if (!same_time(a.stx_atime, b.stx_atime)) changed[side] += " atime";
    if (!same_time(a.stx_mtime, b.stx_mtime)) changed[side] += " mtime";
    if (!same_time(a.stx_ctime, b.stx_ctime)) changed[side] += " ctime";
  }
  if (changed[kTested] == changed[kReference]) return std::nullopt;
  const std::string kind = S_ISDIR(after[kReference].status.stx_mode) ? "a directory" : "a file";
  Difference d = differ("times changed", file, "{" + changed[kTested] + " }", "{" + changed[kReference] + " }");
  d.signature += " of " + kind + changed[kTested] + " instead of" + changed[kReference];
  return d;
}

std::optional<Difference> Observer::compare_bytes(const Watched& file, bool evict) const {
  const File tested(::openat(roots_[kTested], file.path[kTested].c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  const File reference(::openat(roots_[kReference], file.path[kReference].c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (tested.fd < 0 || reference.fd < 0) return std::nullopt;
  if (evict) ::posix_fadvise(tested.fd, 0, 0, POSIX_FADV_DONTNEED);
  struct stat status;
  if (::fstat(reference.fd, &status) != 0) return std::nullopt;
  const auto size = static_cast<std::uint64_t>(status.st_size);
  Segments ranges;
  const Segments data = segments(tested.fd);
  if (size <= kWholeBytes) {
    ranges.emplace_back(0, size + 1);
  } else {
    ranges = data;
    const Segments more = segments(reference.fd);
    ranges.insert(ranges.end(), more.begin(), more.end());
  }
  for (const auto& [begin, end] : ranges) {
    for (std::uint64_t at = begin; at < end; at += kWholeBytes) {
      const std::uint64_t length = std::min(end - at, kWholeBytes + 1);
      const std::vector<char> a = read_range(tested.fd, at, length);
      const std::vector<char> b = read_range(reference.fd, at, length);
      if (a == b) continue;
      const auto where = static_cast<std::uint64_t>(
          std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(std::min(a.size(), b.size())), b.begin())
              .first -
          a.begin());
      const auto byte = [&](const std::vector<char>& bytes) {
        return where < bytes.size() ? std::to_string(static_cast<unsigned char>(bytes[where])) : std::string("the end");
      };
      return differ("bytes", file, "byte " + std::to_string(at + where) + " is " + byte(a), byte(b));
    }
  }
  // What SEEK_DATA passes over is zeros.
  if (size <= kWholeBytes && data.size() < kMaxSegments) {
    const std::vector<char> bytes = read_range(reference.fd, 0, size);
    for (std::size_t i = 0, next = 0; i < bytes.size(); ++i) {
      while (next < data.size() && data[next].second <= i) ++next;
      if (bytes[i] != 0 && (next == data.size() || i < data[next].first)) {
        return differ("SEEK_DATA", file, "byte " + std::to_string(i) + " in a hole", "data");
      }
    }
  }
  return std::nullopt;
}

std::optional<Difference> Observer::compare_trees() const {
  Inodes inodes;
  return compare_directory(".", inodes);
}

// What the kernel has in its cache is what the file system says.
std::optional<Difference> Observer::compare_kernel_cache(const Watched& file) const {
  const Look cached = look(kTested, file, false), fresh = look(kTested, file, true);
  if (cached.error != fresh.error) {
    return differ("stale error", file, std::strerror(cached.error), std::strerror(fresh.error));
  }
  const struct statx& c = cached.status;
  const struct statx& f = fresh.status;
  if (c.stx_mode != f.stx_mode) return differ("stale mode", file, octal(c.stx_mode), octal(f.stx_mode));
  if (c.stx_uid != f.stx_uid || c.stx_gid != f.stx_gid) return differ("stale owner", file, "cached", "true");
  if (c.stx_nlink != f.stx_nlink)
    return differ("stale link count", file, std::to_string(c.stx_nlink), std::to_string(f.stx_nlink));
  if (c.stx_size != f.stx_size)
    return differ("stale size", file, std::to_string(c.stx_size), std::to_string(f.stx_size));
  if (c.stx_blocks != f.stx_blocks)
    return differ("stale blocks", file, std::to_string(c.stx_blocks), std::to_string(f.stx_blocks));
  if (!same_time(c.stx_atime, f.stx_atime)) return differ("stale atime", file, text(c.stx_atime), text(f.stx_atime));
  if (!same_time(c.stx_mtime, f.stx_mtime)) return differ("stale mtime", file, text(c.stx_mtime), text(f.stx_mtime));
  if (!same_time(c.stx_ctime, f.stx_ctime)) return differ("stale ctime", file, text(c.stx_ctime), text(f.stx_ctime));
  return std::nullopt;
}

std::optional<Difference> Observer::compare_attributes(const std::string& path) const {
  std::map<std::string, std::string> found[2];
  for (const int side : {kTested, kReference}) {
    // A path through /proc/self/fd, because there are no *at calls for attributes.
    found[side] = attributes_of("/proc/self/fd/" + std::to_string(roots_[side]) + "/" + path);
  }
  if (found[kTested] == found[kReference]) return std::nullopt;
  const Watched file{{path, path}, false};
  for (const int side : {kTested, kReference}) {
    for (const auto& [name, value] : found[side]) {
      const auto other = found[1 - side].find(name);
      if (other != found[1 - side].end() && other->second == value) continue;
      return differ("extended attribute", file,
                    name + (side == kTested ? " is there or has another value" : " is missing"),
                    "what the reference has");
    }
  }
  return std::nullopt;
}

std::optional<Difference> Observer::compare_directory(const std::string& path, Inodes& inodes) const {
  const Watched self{{path, path}, false};
  if (auto d = compare_kernel_cache(self)) return d;
  if (auto d = compare(self, look(kTested, self, true), look(kReference, self, false))) return d;
  if (options_.attributes) {
    if (auto d = compare_attributes(path)) return d;
  }
  std::optional<std::set<std::string>> names[2];
  for (const int side : {kTested, kReference}) {
    const File directory(::openat(roots_[side], path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    names[side] = names_in(directory.fd);
    if (!names[side]) return differ("directory", self, "one of them cannot be read", "both");
  }
  if (names[kTested] != names[kReference]) {
    std::string text[2];
    for (const int side : {kTested, kReference}) {
      for (const std::string& name : *names[side]) text[side].append(" ").append(name, 0, 20);
    }
    return differ("names", self, text[kTested], text[kReference]);
  }
  for (const std::string& name : *names[kTested]) {
    std::string below = path;
    below.append("/").append(name);
    const Watched file{{below, below}, false};
    if (auto d = compare_kernel_cache(file)) return d;
    const Look tested = look(kTested, file, true), reference = look(kReference, file, false);
    if (auto d = compare(file, tested, reference)) return d;
    const auto [known, fresh] = inodes.emplace(tested.status.stx_ino, reference.status.stx_ino);
    if (known->second != reference.status.stx_ino) return differ("identity", file, "another inode", "the same");
    if (S_ISDIR(tested.status.stx_mode)) {
      if (auto d = compare_directory(below, inodes)) return d;
      continue;
    }
    if (options_.attributes) {
      if (auto d = compare_attributes(below)) return d;
    }
    if (S_ISREG(tested.status.stx_mode) && fresh) {
      if (auto d = compare_bytes(file, true)) return d;
    }
    if (S_ISLNK(tested.status.stx_mode)) {
      char target[2][4096];
      ssize_t length[2];
      for (const int side : {kTested, kReference}) {
        length[side] = ::readlinkat(roots_[side], below.c_str(), target[side], sizeof target[side]);
      }
      if (length[0] != length[1] ||
          (length[0] > 0 && std::memcmp(target[0], target[1], static_cast<std::size_t>(length[0])) != 0)) {
        return differ("target", file, "another", "this");
      }
    }
  }
  return std::nullopt;
}

}  // namespace rmemfs::difference
