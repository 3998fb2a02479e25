// File handles of name_to_handle_at(2), kept in a text file, and what open_by_handle_at(2) makes of them later.
//
//   handle_check save LIST PATH...           one line for each: inode, mode, type and bytes of the handle, path
//   handle_check check MOUNT LIST            each handle opens the same object: number, type, and a directory's own
//   path,
//                                            a regular file's bytes as its path gives them (when the path is there)
//   handle_check refused MOUNT LIST ERRNO    each handle is refused with this error
//   handle_check forge MOUNT LIST            handles that no file system gave out: other numbers, generations and
//   lengths of
//                                            those in LIST; ESTALE (or EINVAL for another length)
//   Status 0: all as they must be.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace {

struct Handle {
  unsigned long long ino = 0;
  unsigned mode = 0;
  int type = 0;
  std::string bytes, path;
};

// Room for the variable part behind the kernel's header.
struct Room {
  alignas(file_handle) char bytes[sizeof(file_handle) + MAX_HANDLE_SZ];
  file_handle* handle() { return reinterpret_cast<file_handle*>(bytes); }
};

int complain(const std::string& what, const Handle& handle) {
  std::printf("%s: inode %llu, %s\n", what.c_str(), handle.ino, handle.path.c_str());
  return 1;
}

int save(const char* list, int count, char** paths) {
  std::ofstream out(list);
  for (int i = 0; i < count; ++i) {
    Room room{};
    room.handle()->handle_bytes = MAX_HANDLE_SZ;
    int mount = 0;
    struct stat st {};
    if (::name_to_handle_at(AT_FDCWD, paths[i], room.handle(), &mount, 0) < 0 || ::lstat(paths[i], &st) < 0) {
      std::perror(paths[i]);
      return 1;
    }
    out << st.st_ino << ' ' << st.st_mode << ' ' << room.handle()->handle_type << ' ';
    for (unsigned byte = 0; byte < room.handle()->handle_bytes; ++byte) {
      char text[3];
      std::snprintf(text, sizeof text, "%02x", room.handle()->f_handle[byte]);
      out << text;
    }
    out << ' ' << paths[i] << '\n';
  }
  return out.flush() ? 0 : 1;
}

std::vector<Handle> load(const char* list) {
  std::vector<Handle> handles;
  std::ifstream in(list);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    Handle handle;
    std::string hex;
    words >> handle.ino >> handle.mode >> handle.type >> hex;
    words.get();
    std::getline(words, handle.path);
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
      handle.bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    handles.push_back(handle);
  }
  return handles;
}

int open_handle(int mount, const Handle& handle) {
  Room room{};
  room.handle()->handle_bytes = static_cast<unsigned>(handle.bytes.size());
  room.handle()->handle_type = handle.type;
  std::memcpy(room.handle()->f_handle, handle.bytes.data(), handle.bytes.size());
  const bool plain = S_ISREG(handle.mode) || S_ISDIR(handle.mode);
  return ::open_by_handle_at(mount, room.handle(), (plain ? O_RDONLY : O_PATH) | O_CLOEXEC);
}

std::string contents(int fd) {
  std::string text(1 << 20, '\0');
  const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
  text.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  return text;
}

int check_one(int mount, const Handle& handle) {
  const int fd = open_handle(mount, handle);
  if (fd < 0) return complain(std::strerror(errno), handle);
  struct stat st {};
  if (::fstat(fd, &st) < 0) return complain("fstat", handle);
  if (st.st_ino != handle.ino || (st.st_mode & S_IFMT) != (handle.mode & S_IFMT)) return complain("another", handle);
  if (S_ISDIR(st.st_mode)) {
    // A directory is connected to the tree again: the kernel asked for each parent.
    std::string path(4096, '\0');
    const ssize_t n = ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path.data(), path.size());
    path.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    if (path != handle.path) return complain("a directory at " + path, handle);
  }
  struct stat named {};
  if (S_ISREG(st.st_mode) && ::lstat(handle.path.c_str(), &named) == 0) {
    const int path = ::open(handle.path.c_str(), O_RDONLY | O_CLOEXEC);
    if (named.st_ino != handle.ino || contents(fd) != contents(path)) return complain("other bytes", handle);
    ::close(path);
  }
  ::close(fd);
  return 0;
}

int refused(int mount, const Handle& handle, const std::string& error) {
  const int fd = open_handle(mount, handle);
  if (fd >= 0) return complain("opened", handle);
  if (error != ::strerrorname_np(errno)) return complain(::strerrorname_np(errno), handle);
  return 0;
}

int forge(int mount, const std::vector<Handle>& handles) {
  int bad = 0;
  for (const Handle& real : handles) {
    for (std::size_t at = 0; at < real.bytes.size(); ++at) {
      Handle forged = real;
      forged.bytes[at] = static_cast<char>(forged.bytes[at] ^ 0x55);
      forged.mode = S_IFDIR;
      const int fd = open_handle(mount, forged);
      struct stat st {};
      // What opens is another object that exists: a number is no secret.
      if (fd >= 0) {
        if (::fstat(fd, &st) < 0 || st.st_ino == real.ino) bad += complain("forged, and opened the same", forged);
        ::close(fd);
      } else if (errno != ESTALE && errno != ENOTDIR) {
        bad += complain(std::string("forged, ") + ::strerrorname_np(errno), forged);
      }
    }
    for (const std::size_t length : {std::size_t{0}, std::size_t{4}, real.bytes.size() - 4}) {
      Handle cut = real;
      cut.bytes.resize(length);
      const int fd = open_handle(mount, cut);
      if (fd >= 0 || (errno != ESTALE && errno != EINVAL)) bad += complain("cut", cut);
    }
  }
  return bad;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 3 ? argv[1] : "";
  if (verb == "save") return save(argv[2], argc - 3, argv + 3);
  const int mount = verb.empty() ? -1 : ::open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (mount < 0) {
    std::fprintf(stderr, "usage: handle_check save LIST PATH... | check|forge MOUNT LIST | refused MOUNT LIST ERRNO\n");
    return 2;
  }
  const std::vector<Handle> handles = load(argv[3]);
  int bad = handles.empty() ? complain("no handles", {}) : 0;
  if (verb == "forge") return forge(mount, handles) + bad == 0 ? 0 : 1;
  for (const Handle& handle : handles)
    bad += verb == "check" ? check_one(mount, handle) : refused(mount, handle, argv[4]);
  std::printf("%zu handles, %d bad\n", handles.size(), bad);
  return bad == 0 ? 0 : 1;
}
