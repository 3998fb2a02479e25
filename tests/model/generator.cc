#include "generator.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace rmemfs::difference {
namespace {

struct Weight {
  Kind kind;
  unsigned weight;
};
constexpr Weight kWeights[] = {
    {Kind::kOpen, 16},    {Kind::kClose, 3},     {Kind::kRead, 4},        {Kind::kWrite, 7},     {Kind::kPread, 5},
    {Kind::kPwrite, 10},  {Kind::kLseek, 6},     {Kind::kFtruncate, 5},   {Kind::kTruncate, 4},  {Kind::kRename, 9},
    {Kind::kLink, 5},     {Kind::kLinkOpen, 2},  {Kind::kSymlink, 4},     {Kind::kUnlink, 6},    {Kind::kMkdir, 7},
    {Kind::kRmdir, 4},    {Kind::kMknod, 3},     {Kind::kChmod, 6},       {Kind::kFchmod, 2},    {Kind::kChown, 5},
    {Kind::kFchown, 2},   {Kind::kUtimens, 4},   {Kind::kFutimens, 2},    {Kind::kStat, 4},      {Kind::kAccess, 3},
    {Kind::kReadlink, 2}, {Kind::kReaddir, 3},   {Kind::kFsync, 2},       {Kind::kFallocate, 6}, {Kind::kCopyRange, 4},
    {Kind::kMap, 2},      {Kind::kMapStore, 4},  {Kind::kMapLoad, 4},     {Kind::kUmask, 1},     {Kind::kSetxattr, 6},
    {Kind::kGetxattr, 4}, {Kind::kListxattr, 2}, {Kind::kRemovexattr, 3}, {Kind::kFlock, 3},     {Kind::kSetLock, 4},
    {Kind::kGetLock, 2},  {Kind::kStatfs, 1},
};

constexpr std::int64_t kLargest = std::int64_t{1} << 43;  // of offsets that every file system here takes
constexpr std::size_t kMaxKnown = 40;
constexpr std::size_t kDeepest = 3 * 256;  // longest path to a directory that others are made in

template <std::size_t N>
void put(char (&to)[N], const std::string& text) {
  const std::size_t length = std::min(text.size(), N - 1);
  std::memcpy(to, text.data(), length);
  to[length] = '\0';
}

}  // namespace

Generator::Generator(std::uint64_t seed, const GeneratorOptions& options) : random_(seed), options_(options) {
  for (const Weight& weight : kWeights) {
    if (!options.skip.contains(name(weight.kind))) calls_.insert(calls_.end(), weight.weight, weight.kind);
  }
}

std::string Generator::fresh_name() {
  static const std::string odd[] = {
      std::string(255, 'n'), std::string(256, 'x'), "\xff\xfe\x01", " ", "a\nb", "..a", std::string(254, '\xc3'), "."};
  if (chance(5)) return odd[below(std::size(odd))];
  return std::string(1, static_cast<char>('a' + below(6)));
}

std::string Generator::directory() {
  if (directories_.empty() || chance(30)) return ".";
  const std::string& path = directories_[below(directories_.size())];
  return path.size() > kDeepest ? "." : path;
}

std::string Generator::new_path() {
  const std::string above = directory();
  std::string path = above == "." && chance(90) ? fresh_name() : above + "/" + fresh_name();
  if (chance(2)) path += "/";
  if (chance(1)) path = "./" + path;
  return path;
}

std::string Generator::existing() {
  if (known_.empty()) return new_path();
  return known_[below(known_.size())];
}

std::string Generator::any_path() {
  if (chance(75)) return existing();
  if (chance(3)) return ".";
  if (chance(3)) return existing() + "/" + fresh_name();
  if (chance(3)) return existing() + "/../" + fresh_name();
  if (chance(2)) return existing() + "/";
  if (chance(1)) return "";
  return new_path();
}

std::int64_t Generator::offset() {
  const auto near = [&](std::int64_t middle) { return middle + static_cast<std::int64_t>(below(3)) - 1; };
  switch (below(12)) {
    case 0:
      return 0;
    case 1:
    case 2:
      return near(static_cast<std::int64_t>(below(16)) * 4096 + 1);
    case 3:
    case 4:
      return static_cast<std::int64_t>(below(16)) * 4096;
    case 5:
      return static_cast<std::int64_t>(below(300000));
    case 6:
      if (chance(20)) {
        static constexpr std::int64_t far[] = {-1, INT64_MIN, INT64_MAX, std::int64_t{1} << 31, std::int64_t{1} << 40};
        return far[below(std::size(far))];
      }
      return static_cast<std::int64_t>(below(1000000));
    default:
      return static_cast<std::int64_t>(below(20000));
  }
}

std::int64_t Generator::length() {
  switch (below(6)) {
    case 0:
      return static_cast<std::int64_t>(below(3)) * 4096;
    case 1:
      return static_cast<std::int64_t>(below(kMaxTransfer));
    case 2:
      return static_cast<std::int64_t>(below(10));
    default:
      return static_cast<std::int64_t>(below(9000));
  }
}

std::int64_t Generator::seconds() {
  // What a 256-byte inode of ext4 can hold.
  static constexpr std::int64_t times[] = {0, 1, 1000000000, -1, -2147483647, 2147483647, 2147483648, 4000000000};
  return times[below(std::size(times))];
}

std::uint32_t Generator::permissions() {
  static constexpr std::uint32_t likely[] = {0755, 0777, 0644, 0666, 0700, 0600, 01777, 02775, 04755, 06777, 02765, 0};
  return chance(80) ? likely[below(std::size(likely))] : static_cast<std::uint32_t>(below(010000));
}

void Generator::choose_slot(Call& call) {
  // Mostly an open one.
  for (int attempt = 0; attempt < 6; ++attempt) {
    call.slot = static_cast<std::uint8_t>(below(kSlots));
    if (call.kind == Kind::kOpen || open_[call.process][call.slot] || chance(3)) break;
  }
  for (int attempt = 0; attempt < 6; ++attempt) {
    call.slot2 = static_cast<std::uint8_t>(below(kSlots));
    if (open_[call.process][call.slot2] || chance(3)) break;
  }
}

void Generator::open_arguments(Call& call) {
  static constexpr int access[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR, O_RDWR};
  call.flags = static_cast<std::uint32_t>(access[below(std::size(access))]);
  call.mode = permissions();
  if (options_.temporary && chance(5)) {
    call.flags = O_TMPFILE | (chance(90) ? O_RDWR : O_RDONLY) | (chance(20) ? O_EXCL : 0);
    put(call.path, chance(90) ? directory() : any_path());
    return;
  }
  const bool create = chance(60);
  if (create) call.flags |= O_CREAT;
  static constexpr int extras[] = {O_TRUNC, O_APPEND, O_NOFOLLOW, O_DIRECTORY, O_DIRECT,
                                   O_SYNC,  O_DSYNC,  O_EXCL,     O_NOATIME};
  static constexpr unsigned likely[] = {15, 12, 5, 3, 8, 3, 3, 10, 2};
  for (std::size_t i = 0; i < std::size(extras); ++i) {
    if (chance(likely[i])) call.flags |= static_cast<std::uint32_t>(extras[i]);
  }
  // Appending directly behind an odd end is refused by kernel file systems, as other odd places are (system_call.cc).
  if ((call.flags & O_DIRECT) != 0) call.flags &= ~static_cast<std::uint32_t>(O_APPEND);
  put(call.path, create && chance(60) ? new_path() : any_path());
}

void Generator::attribute_arguments(Call& call) {
  static const std::string names[] = {"user.a",
                                      "user.b",
                                      "trusted.t",
                                      "security.s",
                                      "security.capability",
                                      "user.",
                                      "none",
                                      "system.x",
                                      "user.a",
                                      "user.b",
                                      std::string(255, 'u'),
                                      "user." + std::string(250, 'n'),
                                      "user." + std::string(251, 'n'),
                                      "trusted."};
  put(call.path, any_path());
  call.mode = chance(50) ? 1 : 0;
  if (call.kind == Kind::kListxattr) {
    call.flags = call.mode;
    call.mode = 0;
    call.a = chance(70) ? 65536 : static_cast<std::int64_t>(below(40));
    return;
  }
  std::string name = names[below(chance(70) ? 4 : std::size(names))];
  const bool list = chance(30);
  if (list) name = chance(60) ? "system.posix_acl_access" : "system.posix_acl_default";
  put(call.path2, name);
  static constexpr std::int64_t sizes[] = {0, 1, 10, 100, 300, 65536, 65537};
  if (call.kind == Kind::kGetxattr) call.b = chance(80) ? 65536 : sizes[below(std::size(sizes))];
  if (call.kind == Kind::kSetxattr) {
    call.b = sizes[below(chance(97) ? 5 : std::size(sizes))];
    call.flags = chance(20) ? static_cast<std::uint32_t>(1 + below(2)) : 0;
    if (list && chance(90)) call.c = 1 + static_cast<std::int64_t>(below(5));
  }
}

void Generator::arguments(Call& call) {
  const auto owner = [&]() -> std::int64_t {
    static constexpr std::int64_t ids[] = {-1, 0, 1501, 1502, 1600};
    return ids[below(std::size(ids))];
  };
  const auto nanoseconds = [&]() -> std::int64_t {
    static constexpr std::int64_t values[] = {0,          1,         999999999,  UTIME_NOW,
                                              UTIME_OMIT, UTIME_NOW, UTIME_OMIT, 1000000000};
    return values[below(std::size(values))];
  };
  switch (call.kind) {
    case Kind::kOpen:
      return open_arguments(call);
    case Kind::kSetxattr:
    case Kind::kGetxattr:
    case Kind::kListxattr:
    case Kind::kRemovexattr:
      return attribute_arguments(call);
    case Kind::kRead:
    case Kind::kWrite:
    case Kind::kPread:
    case Kind::kPwrite:
      call.a = call.kind == Kind::kPread || call.kind == Kind::kPwrite ? offset() : 0;
      call.b = length();
      return;
    case Kind::kLseek: {
      static constexpr std::uint32_t whences[] = {SEEK_SET, SEEK_SET, SEEK_CUR, SEEK_END, 99};
      call.flags = whences[below(std::size(whences))];
      call.a = call.flags == SEEK_SET ? std::min(offset(), kLargest) : static_cast<std::int64_t>(below(20000)) - 10000;
      return;
    }
    case Kind::kFtruncate:
      call.a = offset();
      return;
    case Kind::kTruncate:
      call.a = offset();
      put(call.path, any_path());
      return;
    case Kind::kRename: {
      static constexpr std::uint32_t flags[] = {0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE};
      call.flags = flags[below(std::size(flags))];
      put(call.path, any_path());
      put(call.path2, chance(50) ? new_path() : any_path());
      return;
    }
    case Kind::kLink:
      call.flags = chance(30) ? AT_SYMLINK_FOLLOW : 0;
      [[fallthrough]];
    case Kind::kLinkOpen:
      if (call.kind == Kind::kLink) put(call.path, any_path());
      put(call.path2, chance(85) ? new_path() : any_path());
      return;
    case Kind::kSymlink: {
      std::string target = chance(60) ? existing() : new_path();
      if (chance(5)) target = std::string(1100, 't');
      put(call.path, chance(2) ? "" : target);
      put(call.path2, chance(85) ? new_path() : any_path());
      return;
    }
    case Kind::kMkdir:
      call.mode = permissions();
      put(call.path, chance(85) ? new_path() : any_path());
      return;
    case Kind::kMknod: {
      static constexpr std::uint32_t types[] = {S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK, 0, S_IFDIR};
      call.mode = types[below(std::size(types))] | permissions();
      call.a = static_cast<std::int64_t>(makedev(1, 3));
      put(call.path, chance(85) ? new_path() : any_path());
      return;
    }
    case Kind::kChmod:
      put(call.path, any_path());
      [[fallthrough]];
    case Kind::kFchmod:
      call.mode = permissions();
      return;
    case Kind::kChown:
      call.flags = chance(30) ? AT_SYMLINK_NOFOLLOW : 0;
      put(call.path, any_path());
      [[fallthrough]];
    case Kind::kFchown:
      call.a = owner();
      call.b = owner();
      return;
    case Kind::kUtimens:
      call.flags = chance(30) ? AT_SYMLINK_NOFOLLOW : 0;
      put(call.path, any_path());
      [[fallthrough]];
    case Kind::kFutimens:
      call.a = seconds();
      call.b = nanoseconds();
      call.c = seconds();
      call.d = nanoseconds();
      return;
    case Kind::kStat:
      call.flags = chance(50) ? AT_SYMLINK_NOFOLLOW : 0;
      put(call.path, any_path());
      return;
    case Kind::kAccess:
      call.mode = static_cast<std::uint32_t>(below(8));
      put(call.path, any_path());
      return;
    case Kind::kReadlink:
      call.b = chance(80) ? 4096 : static_cast<std::int64_t>(below(4));
      put(call.path, any_path());
      return;
    case Kind::kReaddir:
      put(call.path, chance(80) ? directory() : any_path());
      return;
    case Kind::kUnlink:
    case Kind::kRmdir:
    case Kind::kStatfs:
      put(call.path, any_path());
      return;
    case Kind::kFsync:
      call.flags = chance(50) ? 1 : 0;
      return;
    case Kind::kFallocate: {
      static constexpr std::uint32_t modes[] = {0,
                                                FALLOC_FL_KEEP_SIZE,
                                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                                FALLOC_FL_PUNCH_HOLE,
                                                FALLOC_FL_ZERO_RANGE,
                                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
      call.flags = modes[below(options_.zero_range ? std::size(modes) : 5)];
      call.a = std::min<std::int64_t>(offset(), 1000000);
      call.b = chance(3) ? -static_cast<std::int64_t>(below(2)) : length();
      return;
    }
    case Kind::kCopyRange:
      call.a = offset();
      call.b = offset();
      call.c = length();
      return;
    case Kind::kMap:
      call.slot2 = static_cast<std::uint8_t>(below(kMaps));
      call.flags = chance(70) ? 1 : 0;
      call.a = static_cast<std::int64_t>(below(8)) * 4096;
      call.b = 1 + static_cast<std::int64_t>(below(100000));
      return;
    case Kind::kMapStore:
    case Kind::kMapLoad:
      call.slot = static_cast<std::uint8_t>(below(kMaps));
      if (!mapped_[call.process][call.slot]) call.slot ^= 1;
      call.a = static_cast<std::int64_t>(below(100000));
      call.b = 1 + static_cast<std::int64_t>(below(chance(80) ? 5000 : 50000));
      return;
    case Kind::kUmask: {
      static constexpr std::uint32_t masks[] = {0, 022, 027, 077, 002};
      call.mode = masks[below(std::size(masks))];
      return;
    }
    case Kind::kFlock: {
      static constexpr std::uint32_t operations[] = {LOCK_SH, LOCK_EX, LOCK_UN};
      call.flags = operations[below(std::size(operations))];
      return;
    }
    case Kind::kSetLock:
    case Kind::kGetLock: {
      static constexpr std::uint32_t types[] = {F_RDLCK, F_WRLCK, F_UNLCK};
      call.flags = types[below(call.kind == Kind::kGetLock ? 2 : 3)];
      call.a = static_cast<std::int64_t>(below(20));
      call.b = static_cast<std::int64_t>(below(10));
      call.c = chance(40) ? 1 : 0;
      return;
    }
    case Kind::kClose:
      return;
  }
}

Call Generator::next() {
  Call call;
  call.kind = calls_[below(calls_.size())];
  static constexpr std::uint8_t processes[] = {0, 0, 0, 1, 2, 2, 3, 3};
  call.process = processes[below(std::size(processes))];
  call.fill = static_cast<std::uint32_t>(random_());
  // Calls on nothing are refused, which is soon told.
  const auto any = [](const bool* flags, std::size_t count) {
    return std::find(flags, flags + count, true) != flags + count;
  };
  const bool maps = call.kind == Kind::kMapStore || call.kind == Kind::kMapLoad;
  if (maps && !any(mapped_[call.process], kMaps)) call.kind = Kind::kMap;
  if (uses_slot(call.kind) && !any(open_[call.process], kSlots) && chance(95)) call.kind = Kind::kOpen;
  choose_slot(call);
  arguments(call);
  return call;
}

void Generator::learn(const Call& call, const Answer& reference) {
  const auto process = call.process;
  if (reference.value < 0) {
    if (call.kind == Kind::kOpen) open_[process][call.slot] = false;
    return;
  }
  const auto add = [&](const char* path, bool is_directory) {
    for (auto* list : {&known_, &directories_}) {
      if (list == &directories_ && !is_directory) continue;
      if (std::find(list->begin(), list->end(), path) != list->end()) continue;
      if (list->size() < kMaxKnown)
        list->emplace_back(path);
      else
        (*list)[below(list->size())] = path;
    }
  };
  const auto remove = [&](const char* path) {
    for (auto* list : {&known_, &directories_}) std::erase(*list, path);
  };
  switch (call.kind) {
    case Kind::kOpen:
      open_[process][call.slot] = true;
      if ((call.flags & O_CREAT) != 0) add(call.path, false);
      break;
    case Kind::kClose:
      open_[process][call.slot] = false;
      break;
    case Kind::kMap:
      mapped_[process][call.slot2 % kMaps] = true;
      break;
    case Kind::kMkdir:
      add(call.path, true);
      break;
    case Kind::kMknod:
      add(call.path, false);
      break;
    case Kind::kLink:
    case Kind::kLinkOpen:
    case Kind::kSymlink:
      add(call.path2, false);
      break;
    case Kind::kUnlink:
    case Kind::kRmdir:
      remove(call.path);
      break;
    case Kind::kRename: {
      const bool is_directory = std::find(directories_.begin(), directories_.end(), call.path) != directories_.end();
      if (call.flags != RENAME_EXCHANGE) remove(call.path);
      add(call.path2, is_directory);
      break;
    }
    default:
      break;
  }
}

}  // namespace rmemfs::difference
