#include "crash_model.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <sstream>

namespace crash {
namespace {

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

int write_all(int fd, const std::string& bytes, off_t offset) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    ssize_t n = offset < 0 ? ::write(fd, bytes.data() + done, bytes.size() - done)
                           : ::pwrite(fd, bytes.data() + done, bytes.size() - done, offset + static_cast<off_t>(done));
    if (n < 0) return errno;
    done += static_cast<std::size_t>(n);
  }
  return 0;
}

int result(int rc) { return rc < 0 ? errno : 0; }

void overwrite(std::string& data, std::size_t offset, const std::string& bytes) {
  if (data.size() < offset + bytes.size()) data.resize(offset + bytes.size(), '\0');
  std::copy(bytes.begin(), bytes.end(), data.begin() + static_cast<std::ptrdiff_t>(offset));
}

void move_path(Tree& tree, const std::string& from, const std::string& to) {
  Tree moved;
  for (auto it = tree.begin(); it != tree.end();) {
    bool below = it->first.size() > from.size() && it->first.compare(0, from.size() + 1, from + "/") == 0;
    if (it->first == from || below) {
      moved[to + it->first.substr(from.size())] = it->second;
      it = tree.erase(it);
    } else {
      ++it;
    }
  }
  for (auto& [path, object] : moved) tree[path] = object;
}

std::string read_all(const std::string& path, std::string& error) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string bytes;
  if (fd.get() < 0) {
    error = std::strerror(errno);
    return bytes;
  }
  char buffer[65536];
  for (;;) {
    ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0) error = std::strerror(errno);
    if (n <= 0) return bytes;
    bytes.append(buffer, static_cast<std::size_t>(n));
  }
}

// The path of `name` in `directory`, which is empty for the top.
std::string path_in(const std::string& directory, const std::string& name) {
  return directory.empty() ? name : directory + "/" + name;
}

void list(const std::string& root, const std::string& prefix, std::set<std::string>& names,
          std::vector<std::string>& problems) {
  DIR* dir = ::opendir((root + "/" + prefix).c_str());
  if (!dir) {
    problems.push_back("cannot open directory " + prefix + ": " + std::strerror(errno));
    return;
  }
  std::vector<std::string> below;
  while (dirent* entry = ::readdir(dir)) {
    std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    std::string path = path_in(prefix, name);
    if (!names.insert(path).second) problems.push_back("listed twice: " + path);
    struct stat st {};
    if (::lstat(path_in(root, path).c_str(), &st) == 0 && S_ISDIR(st.st_mode)) below.push_back(path);
  }
  ::closedir(dir);
  for (const auto& path : below) list(root, path, names, problems);
}

// Where the two differ and what stands there instead, for a person who must find the fault.
std::string first_difference(const std::string& is, const std::string& must) {
  std::size_t size = std::min(is.size(), must.size());
  auto at = static_cast<std::size_t>(
      std::mismatch(is.begin(), is.begin() + static_cast<std::ptrdiff_t>(size), must.begin()).first - is.begin());
  std::ostringstream text;
  text << "size " << is.size() << " must be " << must.size();
  if (at < size) {
    std::size_t bad = 0, zero = 0;
    for (std::size_t i = 0; i < size; ++i) {
      if (is[i] != must[i]) ++bad;
      if (is[i] != must[i] && is[i] == 0) ++zero;
    }
    text << ", first wrong byte at " << at << ", " << bad << " wrong, " << zero << " of them zero";
  }
  return text.str();
}

bool torn_between(const std::string& is, const std::string& one, const std::string& two) {
  if (is.size() < std::min(one.size(), two.size()) || is.size() > std::max(one.size(), two.size())) return false;
  for (std::size_t i = 0; i < is.size(); ++i)
    if (!(i < one.size() && is[i] == one[i]) && !(i < two.size() && is[i] == two[i])) return false;
  return true;
}

constexpr std::uint32_t kNobody = UINT32_MAX;  // where an entry names nobody
constexpr unsigned kNamedUser = 4711, kGroupPermissions = 5, kDefaultPermissions = 0770;

// The list as setxattr(2) and getxattr(2) have it.
std::string access_list(unsigned mode, int user) {
  const posix_acl_xattr_entry entries[] = {{ACL_USER_OBJ, static_cast<std::uint16_t>(mode >> 6 & 7), kNobody},
                                           {ACL_USER, static_cast<std::uint16_t>(user), kNamedUser},
                                           {ACL_GROUP_OBJ, kGroupPermissions, kNobody},
                                           {ACL_MASK, static_cast<std::uint16_t>(mode >> 3 & 7), kNobody},
                                           {ACL_OTHER, static_cast<std::uint16_t>(mode & 7), kNobody}};
  const posix_acl_xattr_header header{POSIX_ACL_XATTR_VERSION};
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
  return bytes.append(reinterpret_cast<const char*>(entries), sizeof entries);
}

std::string attribute_name(const Operation& op) { return "user.n" + std::to_string(op.x); }

// Attributes as listxattr(2) and getxattr(2) have them.
std::map<std::string, std::string> attributes_of(const std::string& path, std::string& error) {
  std::map<std::string, std::string> found;
  std::string names(65536, '\0'), value(65536, '\0');
  const ssize_t length = ::llistxattr(path.c_str(), names.data(), names.size());
  if (length < 0) error = std::strerror(errno);
  for (ssize_t at = 0; at < length;) {
    const std::string name = names.data() + at;
    at += static_cast<ssize_t>(name.size()) + 1;
    const ssize_t got = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    if (got < 0) error = std::strerror(errno);
    found[name] = value.substr(0, got < 0 ? 0 : static_cast<std::size_t>(got));
  }
  return found;
}

std::map<std::string, std::string> attributes_of(const Object& object) {
  std::map<std::string, std::string> expected = object.attributes;
  if (object.access_user >= 0) expected["system.posix_acl_access"] = access_list(object.mode, object.access_user);
  if (object.default_user >= 0) {
    expected["system.posix_acl_default"] = access_list(kDefaultPermissions, object.default_user);
  }
  return expected;
}

// A file without a name gets bytes, and then its name.
int make_through_temporary(const std::string& path, const std::string& bytes, mode_t mode) {
  Fd fd(::open(path.substr(0, path.rfind('/')).c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, mode));
  if (fd.get() < 0) return errno;
  if (const int error = write_all(fd.get(), bytes, 0); error != 0) return error;
  const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
  return result(::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW));
}

}  // namespace

std::string to_line(const Operation& op) {
  std::ostringstream text;
  text << op.number << ' ' << op.verb << ' ' << op.a << ' ' << op.b << ' ' << op.x << ' ' << op.y;
  return text.str();
}

bool from_line(const std::string& text, Operation& op) {
  std::istringstream in(text);
  return static_cast<bool>(in >> op.number >> op.verb >> op.a >> op.b >> op.x >> op.y);
}

std::string content(unsigned worker, std::uint64_t number, std::uint64_t offset, std::size_t length) {
  std::string bytes(length, '\0');
  for (std::size_t i = 0; i < length; ++i) {
    std::uint64_t position = offset + i;
    std::uint64_t z = (position / 8 + 1) * 0x9e3779b97f4a7c15u ^ (number << 20) ^ worker;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z ^= z >> 27;
    bytes[i] = static_cast<char>(z >> (8 * (position % 8)));
  }
  return bytes;
}

Tree deep_copy(const Tree& tree) {
  std::map<Object*, std::shared_ptr<Object>> copies;
  Tree copy;
  for (const auto& [path, object] : tree) {
    auto& twin = copies[object.get()];
    if (!twin) twin = std::make_shared<Object>(*object);
    copy[path] = twin;
  }
  return copy;
}

void apply(Tree& tree, const Operation& op, unsigned worker) {
  auto written = [&](const std::string& path) {
    Object& object = *tree.at(path);
    object.mtime = -1;
    object.unsynced = true;
    return &object;
  };
  if (op.verb == "create" || op.verb == "mkdir" || op.verb == "tmpfile") {
    auto made = std::make_shared<Object>();
    made->kind = op.verb == "mkdir" ? 'd' : 'f';
    made->mode = static_cast<unsigned>(op.x);
    if (op.verb == "tmpfile") made->data = content(worker, op.number, 0, op.y);
    const auto above = tree.find(op.a.substr(0, op.a.find('/') == std::string::npos ? 0 : op.a.rfind('/')));
    if (above != tree.end() && above->second->default_user >= 0) {
      made->mode &= kDefaultPermissions;
      made->access_user = above->second->default_user;
      if (made->kind == 'd') made->default_user = made->access_user;
    }
    tree[op.a] = std::move(made);
  } else if (op.verb == "symlink") {
    auto made = std::make_shared<Object>();
    made->kind = 'l';
    made->mode = 0777;
    made->data = op.b;
    tree[op.a] = std::move(made);
  } else if (op.verb == "setattr") {
    tree.at(op.a)->attributes[attribute_name(op)] = content(worker, op.number, 0, op.y);
  } else if (op.verb == "delattr") {
    tree.at(op.a)->attributes.erase(attribute_name(op));
  } else if (op.verb == "access") {
    Object& object = *tree.at(op.a);
    object.access_user = static_cast<int>(op.x);
    object.mode = static_cast<unsigned>(op.y);
  } else if (op.verb == "noaccess") {
    tree.at(op.a)->access_user = -1;
  } else if (op.verb == "default") {
    tree.at(op.a)->default_user = static_cast<int>(op.x);
  } else if (op.verb == "nodefault") {
    tree.at(op.a)->default_user = -1;
  } else if (op.verb == "write") {
    overwrite(written(op.a)->data, op.x, content(worker, op.number, op.x, op.y));
  } else if (op.verb == "append") {
    Object* object = written(op.a);
    overwrite(object->data, object->data.size(), content(worker, op.number, 0, op.x));
  } else if (op.verb == "truncate") {
    written(op.a)->data.resize(op.x, '\0');
  } else if (op.verb == "punch") {
    std::string& data = written(op.a)->data;
    for (std::size_t i = op.x; i < op.x + op.y && i < data.size(); ++i) data[i] = '\0';
  } else if (op.verb == "fsync") {
    tree.at(op.a)->unsynced = false;
  } else if (op.verb == "unlink" || op.verb == "rmdir") {
    tree.erase(op.a);
  } else if (op.verb == "link") {
    tree[op.b] = tree.at(op.a);
  } else if (op.verb == "rename") {
    // POSIX: two names of one file, rename does nothing.
    auto target = tree.find(op.b);
    if (target == tree.end() || target->second != tree.at(op.a)) move_path(tree, op.a, op.b);
  } else if (op.verb == "exchange") {
    std::swap(tree.at(op.a), tree.at(op.b));
  } else if (op.verb == "chmod") {
    tree.at(op.a)->mode = static_cast<unsigned>(op.x);
  } else if (op.verb == "utime") {
    tree.at(op.a)->mtime = static_cast<std::int64_t>(op.x);
  }
}

int execute(const std::string& root, const Operation& op, unsigned worker) {
  const std::string a = root + "/" + op.a, b = root + "/" + op.b;
  const auto mode = static_cast<mode_t>(op.x);
  if (op.verb == "create") {
    Fd fd(::open(a.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    return result(fd.get());
  }
  if (op.verb == "mkdir") return result(::mkdir(a.c_str(), mode));
  if (op.verb == "symlink") return result(::symlink(op.b.c_str(), a.c_str()));
  if (op.verb == "unlink") return result(::unlink(a.c_str()));
  if (op.verb == "rmdir") return result(::rmdir(a.c_str()));
  if (op.verb == "link") return result(::link(a.c_str(), b.c_str()));
  if (op.verb == "rename") return result(::rename(a.c_str(), b.c_str()));
  if (op.verb == "exchange") return result(::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE));
  if (op.verb == "chmod") return result(::chmod(a.c_str(), mode));
  if (op.verb == "tmpfile") return make_through_temporary(a, content(worker, op.number, 0, op.y), mode);
  if (op.verb == "setattr") {
    const std::string value = content(worker, op.number, 0, op.y);
    return result(::setxattr(a.c_str(), attribute_name(op).c_str(), value.data(), value.size(), 0));
  }
  if (op.verb == "delattr") return result(::removexattr(a.c_str(), attribute_name(op).c_str()));
  if (op.verb == "access" || op.verb == "default") {
    const bool access = op.verb == "access";
    const std::string list =
        access_list(access ? static_cast<unsigned>(op.y) : kDefaultPermissions, static_cast<int>(op.x));
    const char* const name = access ? "system.posix_acl_access" : "system.posix_acl_default";
    return result(::setxattr(a.c_str(), name, list.data(), list.size(), 0));
  }
  if (op.verb == "noaccess") return result(::removexattr(a.c_str(), "system.posix_acl_access"));
  if (op.verb == "nodefault") return result(::removexattr(a.c_str(), "system.posix_acl_default"));
  if (op.verb == "truncate") return result(::truncate(a.c_str(), static_cast<off_t>(op.x)));
  if (op.verb == "utime") {
    timespec times[2] = {{0, UTIME_OMIT}, {static_cast<time_t>(op.x), 0}};
    return result(::utimensat(AT_FDCWD, a.c_str(), times, AT_SYMLINK_NOFOLLOW));
  }
  Fd fd(::open(a.c_str(), O_WRONLY | O_CLOEXEC | (op.verb == "append" ? O_APPEND : 0)));
  if (fd.get() < 0) return errno;
  if (op.verb == "write") return write_all(fd.get(), content(worker, op.number, op.x, op.y), static_cast<off_t>(op.x));
  if (op.verb == "append") return write_all(fd.get(), content(worker, op.number, 0, op.x), -1);
  if (op.verb == "fsync") return result(::fsync(fd.get()));
  if (op.verb == "punch")
    return result(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(op.x),
                              static_cast<off_t>(op.y)));
  return EINVAL;
}

std::vector<std::string> differences(const std::string& root, const Tree& tree, const std::string& torn,
                                     const Tree& other) {
  std::vector<std::string> problems;
  std::set<std::string> names;
  list(root, "", names, problems);
  for (const auto& name : names)
    if (!tree.count(name)) problems.push_back("must not be there: " + name);
  std::map<const Object*, unsigned> links;
  for (const auto& [path, object] : tree) ++links[object.get()];
  auto torn_object = tree.find(torn), twin = other.find(torn);
  const bool has_torn = torn_object != tree.end() && twin != other.end();

  for (const auto& [path, object] : tree) {
    struct stat st {};
    const std::string full = path_in(root, path);
    if (!names.count(path) || ::lstat(full.c_str(), &st) < 0) {
      problems.push_back("is missing: " + path);
      continue;
    }
    char kind = S_ISDIR(st.st_mode) ? 'd' : S_ISLNK(st.st_mode) ? 'l' : 'f';
    if (kind != object->kind) {
      problems.push_back("is of another type: " + path);
      continue;
    }
    if (kind != 'l' && (st.st_mode & 07777) != object->mode) problems.push_back("wrong mode: " + path);
    if (kind != 'l') {
      std::string error;
      if (attributes_of(full, error) != attributes_of(*object)) problems.push_back("wrong attributes: " + path);
      if (!error.empty()) problems.push_back(("attributes cannot be read: " + path + ": ").append(error));
    }
    if (kind == 'd') continue;
    if (st.st_nlink != links[object.get()]) problems.push_back("wrong link count: " + path);
    const bool tolerated = has_torn && object == torn_object->second;
    if (object->mtime >= 0 && !tolerated && st.st_mtime != object->mtime) problems.push_back("wrong mtime: " + path);
    std::string error, data;
    if (kind == 'l') {
      data.resize(8192);
      ssize_t n = ::readlink(full.c_str(), data.data(), data.size());
      if (n < 0) error = std::strerror(errno);
      data.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    } else {
      data = read_all(full, error);
    }
    if (!error.empty()) {
      problems.push_back(("cannot be read: " + path + ": ").append(error));
    } else if (data != object->data && !(tolerated && torn_between(data, object->data, twin->second->data))) {
      problems.push_back("wrong bytes: " + path + ": " + first_difference(data, object->data) +
                         (object->unsynced ? " (acknowledged, not fsynced)" : " (fsynced)"));
    } else if (static_cast<std::size_t>(st.st_size) != data.size()) {
      problems.push_back("stat and read disagree on the size: " + path);
    }
  }
  return problems;
}

}  // namespace crash
