// The processes of the differential test, and each call as they make it.
#include "system_call.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

namespace rmemfs::difference {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::int64_t kSignalled = -1000;  // value of a call that ended in SIGBUS or SIGSEGV

sigjmp_buf bus_return;
void on_bus(int) { siglongjmp(bus_return, 1); }

void fill(char* to, std::size_t length, std::uint32_t seed) {
  std::uint32_t state = seed * 2654435761u + 1;
  for (std::size_t i = 0; i < length; ++i) {
    state = state * 1664525u + 1013904223u;
    to[i] = static_cast<char>(state >> 24 | 1);  // never a zero: a hole is told from data
  }
}

bool direct(int descriptor) { return descriptor >= 0 && (::fcntl(descriptor, F_GETFL) & O_DIRECT) != 0; }
// To a page; what is negative stays as it is.
std::int64_t down(std::int64_t at) {
  return at < 0 ? at : at / static_cast<std::int64_t>(kPage) * static_cast<std::int64_t>(kPage);
}

struct Mapping {
  char* address = nullptr;
  std::size_t length = 0;
  std::int64_t offset = 0;
  int descriptor = -1;  // its own, to ask for the file's size
};

// One process's half of one side.
struct Side {
  int root = -1;
  std::array<int, kSlots> descriptors;
  std::array<Mapping, kMaps> maps;
  Side() { descriptors.fill(-1); }
};

std::int64_t read_names(const char* path, Answer& answer) {
  DIR* stream = ::opendir(path);
  if (stream == nullptr) return -1;
  std::multiset<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream)) {
    names.insert(std::string(entry->d_name) + '\1' + static_cast<char>('a' + entry->d_type));
  }
  const int error = errno;
  ::closedir(stream);
  if (error != 0) {
    errno = error;
    return -1;
  }
  std::string all;
  for (const std::string& one : names) all += one + '\0';
  answer.length = static_cast<std::uint32_t>(std::min(all.size(), kMaxData));
  std::memcpy(answer.data, all.data(), answer.length);
  return static_cast<std::int64_t>(names.size());
}

std::int64_t list_attributes(const Call& call, Answer& answer) {
  static char names[65536];
  const auto list = (call.flags & 1) != 0 ? ::llistxattr : ::listxattr;
  const ssize_t length = list(call.path, call.a == 0 ? nullptr : names, static_cast<std::size_t>(call.a));
  if (length < 0 || call.a == 0) return length;
  std::set<std::string> sorted;
  for (ssize_t at = 0; at < length; at += static_cast<ssize_t>(std::strlen(names + at)) + 1) sorted.insert(names + at);
  for (const std::string& one : sorted) {
    std::memcpy(answer.data + answer.length, one.c_str(), one.size() + 1);
    answer.length += static_cast<std::uint32_t>(one.size() + 1);
  }
  return length;
}

// A POSIX access list as the kernel passes it, one of a few that `c` and `fill` choose: some are what chmod could say,
// some name users and groups, some are not valid.
std::size_t access_list(const Call& call, char* to) {
  struct Entry {
    std::uint16_t tag, permissions;
    std::uint32_t id;
  };
  constexpr std::uint32_t kVersion = 2, kNoId = UINT32_MAX;
  const auto bits = [&](unsigned shift) { return static_cast<std::uint16_t>(call.fill >> shift & 7); };
  std::vector<Entry> entries = {{1, bits(0), kNoId}};
  if (call.c >= 2) entries.push_back({2, bits(3), kIdentities[2].uid});
  if (call.c == 5) entries.push_back({2, bits(6), kIdentities[3].uid});
  entries.push_back({4, bits(9), kNoId});
  if (call.c >= 3) entries.push_back({8, bits(12), kIdentities[2].group});
  if (call.c >= 2 && call.c != 4) entries.push_back({16, bits(15), kNoId});  // 4: without the mask it needs
  entries.push_back({32, bits(18), kNoId});
  std::memcpy(to, &kVersion, sizeof kVersion);
  std::memcpy(to + sizeof kVersion, entries.data(), entries.size() * sizeof(Entry));
  return sizeof kVersion + entries.size() * sizeof(Entry);
}

std::int64_t record_lock(const Call& call, int descriptor, Answer& answer) {
  struct flock range {};
  range.l_type = static_cast<short>(call.flags & 3);
  range.l_whence = SEEK_SET;
  range.l_start = call.a;
  range.l_len = call.b;
  const bool owned_by_description = call.c != 0;
  if (call.kind == Kind::kSetLock) {
    return ::fcntl(descriptor, owned_by_description ? F_OFD_SETLK : F_SETLK, &range);
  }
  const int got = ::fcntl(descriptor, owned_by_description ? F_OFD_GETLK : F_GETLK, &range);
  if (got == 0) {
    answer.length = static_cast<std::uint32_t>(
        std::snprintf(answer.data, 200, "%d %ld %ld", range.l_type, range.l_start, range.l_len));
  }
  return got;
}

// False: it ended in a signal.
template <typename Work>
bool survives(const Work& work) {
  if (sigsetjmp(bus_return, 1) != 0) return false;
  work();
  return true;
}

std::int64_t use_map(const Call& call, Side& side, Answer& answer) {
  const Mapping& map = side.maps[call.slot % kMaps];
  if (map.address == nullptr) return 0;
  const auto at = static_cast<std::size_t>(call.a) % map.length;
  std::size_t length = std::min(static_cast<std::size_t>(call.b), map.length - at);
  if (call.kind == Kind::kMapLoad) {
    if (!survives([&] { std::memcpy(answer.data, map.address + at, length); })) return kSignalled;
    answer.length = static_cast<std::uint32_t>(length);
    return static_cast<std::int64_t>(length);
  }
  // Behind the end, in the file's last page, a store is nobody's (kMapTail); behind that page it is a signal.
  struct stat st;
  if (::fstat(map.descriptor, &st) != 0) return -1;
  const std::int64_t from = map.offset + static_cast<std::int64_t>(at);
  if (from < down(st.st_size + static_cast<std::int64_t>(kPage) - 1)) {
    if (from >= st.st_size) return 0;
    length = std::min(length, static_cast<std::size_t>(st.st_size - from));
  }
  const bool stored = survives([&] { fill(map.address + at, length, call.fill); });
  // The kernel tells a file system of a mapping's changes when it writes them back; here that is now.
  const int written = ::msync(map.address, map.length, MS_SYNC);
  return stored ? written : kSignalled;
}

std::int64_t make_map(const Call& call, Side& side, int descriptor) {
  Mapping& map = side.maps[call.slot2 % kMaps];
  if (map.address != nullptr) {
    ::munmap(map.address, map.length);
    ::close(map.descriptor);
  }
  map = {};
  const auto length = static_cast<std::size_t>(call.b);
  const int protection = (call.flags & 1) != 0 ? PROT_READ | PROT_WRITE : PROT_READ;
  void* at = ::mmap(nullptr, length, protection, MAP_SHARED, descriptor, call.a);
  if (at == MAP_FAILED) return -1;
  if ((call.flags & 1) == 0) ::mprotect(at, length, PROT_READ);
  map = {static_cast<char*>(at), length, call.a, ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0)};
  return 0;
}

std::int64_t make(const Call& call, Side& side, Answer& answer) {
  alignas(kPage) static char buffer[(kMaxTransfer / kPage + 2) * kPage];
  const int descriptor = uses_slot(call.kind) ? side.descriptors[call.slot % kSlots] : -1;
  const int descriptor2 = uses_slot2(call.kind) ? side.descriptors[call.slot2 % kSlots] : -1;
  std::int64_t at = call.a;
  auto length = static_cast<std::size_t>(std::min<std::int64_t>(call.b, kMaxTransfer));
  // Direct transfers of kernel file systems are of whole blocks.
  const bool data =
      call.kind == Kind::kRead || call.kind == Kind::kWrite || call.kind == Kind::kPread || call.kind == Kind::kPwrite;
  if (data && direct(descriptor)) {
    at = down(at);
    length = std::max(length / kPage, std::size_t{1}) * kPage;
    if (call.kind == Kind::kRead || call.kind == Kind::kWrite) {
      ::lseek(descriptor, down(::lseek(descriptor, 0, SEEK_CUR)), SEEK_SET);
    }
  }
  switch (call.kind) {
    case Kind::kOpen: {
      int& slot = side.descriptors[call.slot % kSlots];
      if (slot >= 0) ::close(slot);
      slot = ::open(call.path, static_cast<int>(call.flags) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, call.mode);
      return slot < 0 ? -1 : 0;
    }
    case Kind::kClose: {
      int& slot = side.descriptors[call.slot % kSlots];
      const int closed = ::close(slot);
      slot = -1;
      return closed;
    }
    case Kind::kRead:
    case Kind::kPread: {
      const ssize_t got =
          call.kind == Kind::kRead ? ::read(descriptor, buffer, length) : ::pread(descriptor, buffer, length, at);
      if (got > 0) {
        answer.length = static_cast<std::uint32_t>(got);
        std::memcpy(answer.data, buffer, static_cast<std::size_t>(got));
      }
      return got;
    }
    case Kind::kWrite:
    case Kind::kPwrite:
      fill(buffer, length, call.fill);
      return call.kind == Kind::kWrite ? ::write(descriptor, buffer, length) : ::pwrite(descriptor, buffer, length, at);
    case Kind::kLseek: {
      struct stat st;  // positions in directories are each file system's own
      if (descriptor >= 0 && ::fstat(descriptor, &st) == 0 && S_ISDIR(st.st_mode)) return 0;
      return ::lseek(descriptor, call.a, static_cast<int>(call.flags));
    }
    case Kind::kFtruncate:
      return ::ftruncate(descriptor, call.a);
    case Kind::kTruncate:
      return ::truncate(call.path, call.a);
    case Kind::kRename:
      return ::syscall(SYS_renameat2, AT_FDCWD, call.path, AT_FDCWD, call.path2, call.flags);
    case Kind::kLink:
      return ::linkat(AT_FDCWD, call.path, AT_FDCWD, call.path2, static_cast<int>(call.flags));
    case Kind::kLinkOpen: {
      const std::string source = "/proc/self/fd/" + std::to_string(descriptor);
      return ::linkat(AT_FDCWD, source.c_str(), AT_FDCWD, call.path2, AT_SYMLINK_FOLLOW);
    }
    case Kind::kSymlink:
      return ::symlink(call.path, call.path2);
    case Kind::kUnlink:
      return ::unlink(call.path);
    case Kind::kMkdir:
      return ::mkdir(call.path, call.mode);
    case Kind::kRmdir:
      return ::rmdir(call.path);
    case Kind::kMknod:
      return ::mknod(call.path, call.mode, static_cast<dev_t>(call.a));
    case Kind::kChmod:
      return ::chmod(call.path, call.mode);
    case Kind::kFchmod:
      return ::fchmod(descriptor, call.mode);
    case Kind::kChown:
      return ::fchownat(AT_FDCWD, call.path, static_cast<uid_t>(call.a), static_cast<gid_t>(call.b),
                        static_cast<int>(call.flags));
    case Kind::kFchown:
      return ::fchown(descriptor, static_cast<uid_t>(call.a), static_cast<gid_t>(call.b));
    case Kind::kUtimens:
    case Kind::kFutimens: {
      const timespec times[2] = {{call.a, call.b}, {call.c, call.d}};
      if (call.kind == Kind::kFutimens) return ::futimens(descriptor, times);
      return ::utimensat(AT_FDCWD, call.path, times, static_cast<int>(call.flags));
    }
    case Kind::kStat: {
      struct stat st;
      return ::fstatat(AT_FDCWD, call.path, &st, static_cast<int>(call.flags));
    }
    case Kind::kAccess:
      return ::faccessat(AT_FDCWD, call.path, static_cast<int>(call.mode), AT_EACCESS);
    case Kind::kReadlink: {
      const ssize_t got = ::readlink(call.path, answer.data, static_cast<std::size_t>(call.b));
      if (got > 0) answer.length = static_cast<std::uint32_t>(got);
      return got;
    }
    case Kind::kReaddir:
      return read_names(call.path, answer);
    case Kind::kFsync:
      return call.flags != 0 ? ::fdatasync(descriptor) : ::fsync(descriptor);
    case Kind::kFallocate:
      return ::fallocate(descriptor, static_cast<int>(call.flags), call.a, call.b);
    case Kind::kCopyRange: {
      off_t from = call.a, to = call.b;
      if (direct(descriptor) || direct(descriptor2)) return 0;  // odd ends are refused by kernel file systems
      return ::copy_file_range(descriptor, &from, descriptor2, &to, static_cast<std::size_t>(call.c), 0);
    }
    case Kind::kMap:
      return make_map(call, side, descriptor);
    case Kind::kMapStore:
    case Kind::kMapLoad:
      return use_map(call, side, answer);
    case Kind::kUmask:
      return 0;  // once for both sides, by the caller
    case Kind::kSetxattr: {
      if (call.c != 0)
        length = access_list(call, buffer);
      else
        fill(buffer, length, call.fill);
      const auto set = (call.mode & 1) != 0 ? ::lsetxattr : ::setxattr;
      return set(call.path, call.path2, buffer, length, static_cast<int>(call.flags));
    }
    case Kind::kGetxattr: {
      const auto get = (call.mode & 1) != 0 ? ::lgetxattr : ::getxattr;
      const ssize_t got = get(call.path, call.path2, length == 0 ? nullptr : buffer, length);
      if (got > 0 && length != 0) {
        answer.length = static_cast<std::uint32_t>(got);
        std::memcpy(answer.data, buffer, answer.length);
      }
      return got;
    }
    case Kind::kListxattr:
      return list_attributes(call, answer);
    case Kind::kRemovexattr:
      return (call.mode & 1) != 0 ? ::lremovexattr(call.path, call.path2) : ::removexattr(call.path, call.path2);
    case Kind::kFlock:
      return ::flock(descriptor, static_cast<int>(call.flags) | LOCK_NB);
    case Kind::kSetLock:
    case Kind::kGetLock:
      return record_lock(call, descriptor, answer);
    case Kind::kStatfs: {
      struct statvfs st;
      if (::statvfs(call.path, &st) != 0) return -1;
      const bool sane = st.f_bfree <= st.f_blocks && st.f_bavail <= st.f_bfree && st.f_ffree <= st.f_files;
      return sane ? static_cast<std::int64_t>(st.f_namemax) : -2;
    }
  }
  std::abort();
}

void become(const Identity& identity) {
  if (identity.uid == 0) return;
  const gid_t groups[] = {identity.gid, identity.group};
  if (::setgroups(2, groups) != 0 || ::setresgid(identity.gid, identity.gid, identity.gid) != 0 ||
      ::setresuid(identity.uid, identity.uid, identity.uid) != 0 || ::prctl(PR_SET_DUMPABLE, 1) != 0) {
    std::perror("becoming an ordinary user");
    std::_Exit(2);
  }
}

[[noreturn]] void serve(std::size_t number, const std::array<int, 2>& roots, Exchange& exchange, int ask, int told) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::signal(SIGBUS, on_bus);
  ::signal(SIGSEGV, on_bus);  // a store to a mapping that may only be read
  ::signal(SIGPIPE, SIG_IGN);
  ::umask(022);
  become(kIdentities[number]);
  std::array<Side, 2> sides;
  for (std::size_t i = 0; i < 2; ++i) sides[i].root = roots[i];
  char byte;
  while (::read(ask, &byte, 1) == 1) {
    const Call& call = exchange.call;
    if (call.kind == Kind::kUmask) ::umask(call.mode & 0777);
    for (const int side : {kReference, kTested}) {
      Side& own = sides[static_cast<std::size_t>(side)];
      Answer& answer = exchange.answers[side];
      answer.length = 0;
      errno = 0;
      answer.value = -1;
      if (::fchdir(own.root) == 0) answer.value = make(call, own, answer);
      answer.error = answer.value == -1 ? errno : 0;
      answer.descriptors = own.descriptors;
    }
    if (::write(told, &byte, 1) != 1) break;
  }
  std::_Exit(0);
}

}  // namespace

const char* name(Kind kind) {
  switch (kind) {
#define RMEMFS_X(name) \
  case Kind::name:     \
    return &#name[1];
    RMEMFS_CALLS(RMEMFS_X)
#undef RMEMFS_X
  }
  return "?";
}

bool uses_slot(Kind kind) {
  switch (kind) {
    case Kind::kOpen:
    case Kind::kClose:
    case Kind::kRead:
    case Kind::kWrite:
    case Kind::kPread:
    case Kind::kPwrite:
    case Kind::kLseek:
    case Kind::kFtruncate:
    case Kind::kLinkOpen:
    case Kind::kFchmod:
    case Kind::kFchown:
    case Kind::kFutimens:
    case Kind::kFsync:
    case Kind::kFallocate:
    case Kind::kCopyRange:
    case Kind::kMap:
    case Kind::kFlock:
    case Kind::kSetLock:
    case Kind::kGetLock:
      return true;
    default:
      return false;
  }
}

bool uses_slot2(Kind kind) { return kind == Kind::kCopyRange; }

std::string describe(const Call& call) {
  const auto quoted = [](const char* text) {
    std::string out = "\"";
    for (std::size_t at = 0; text[at] != '\0';) {
      std::size_t run = 1;
      while (text[at + run] == text[at]) ++run;
      const auto byte = static_cast<unsigned char>(text[at]);
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02x", byte);
      const std::string one = byte < 32 || byte > 126 ? std::string(hex) : std::string(1, text[at]);
      out += one;
      if (run > 8) {
        out += "{" + std::to_string(run) + " times}";
      } else {
        for (std::size_t i = 1; i < run; ++i) out += one;
      }
      at += run;
    }
    return out + "\"";
  };
  std::string line = "process " + std::to_string(call.process) + ": " + name(call.kind) + "(";
  if (uses_slot(call.kind)) line += "fd " + std::to_string(call.slot % kSlots) + ", ";
  if (uses_slot2(call.kind)) line += "to fd " + std::to_string(call.slot2 % kSlots) + ", ";
  const bool map = call.kind == Kind::kMapStore || call.kind == Kind::kMapLoad;
  if (map) line += "map " + std::to_string(call.slot % kMaps) + ", ";
  if (call.kind == Kind::kMap) line += "map " + std::to_string(call.slot2 % kMaps) + ", ";
  if (call.path[0] != '\0') line += quoted(call.path) + ", ";
  if (call.path2[0] != '\0') line += quoted(call.path2) + ", ";
  char rest[200];
  std::snprintf(rest, sizeof rest, "flags %#x, mode 0%o", call.flags, call.mode);
  line += rest;
  const std::pair<char, std::int64_t> numbers[] = {{'a', call.a}, {'b', call.b}, {'c', call.c}, {'d', call.d}};
  for (const auto& [letter, value] : numbers) {
    if (value != 0) line += std::string(", ") + letter + " " + std::to_string(value);
  }
  return line + ")";
}

Processes::Processes(int tested, int reference) {
  for (std::size_t i = 0; i < kProcesses; ++i) {
    void* shared = ::mmap(nullptr, sizeof(Exchange), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int ask[2], told[2];
    if (shared == MAP_FAILED || ::pipe2(ask, O_CLOEXEC) != 0 || ::pipe2(told, O_CLOEXEC) != 0) std::abort();
    exchanges_[i] = new (shared) Exchange;
    std::fflush(nullptr);
    pids_[i] = ::fork();
    if (pids_[i] < 0) std::abort();
    if (pids_[i] == 0) {
      // The others' ends would keep them from seeing that the test has ended.
      for (std::size_t other = 0; other < i; ++other) {
        ::close(ask_[other]);
        ::close(told_[other]);
      }
      ::close(ask[1]);
      ::close(told[0]);
      serve(i, {tested, reference}, *exchanges_[i], ask[0], told[1]);
    }
    ::close(ask[0]);
    ::close(told[1]);
    ask_[i] = ask[1];
    told_[i] = told[0];
  }
}

Processes::~Processes() {
  for (std::size_t i = 0; i < kProcesses; ++i) {
    ::close(ask_[i]);
    ::close(told_[i]);
    ::waitpid(pids_[i], nullptr, 0);
    ::munmap(exchanges_[i], sizeof(Exchange));
  }
}

bool Processes::perform(const Call& call) {
  exchanges_[call.process]->call = call;
  char byte = 0;
  return ::write(ask_[call.process], &byte, 1) == 1 && ::read(told_[call.process], &byte, 1) == 1;
}

}  // namespace rmemfs::difference
