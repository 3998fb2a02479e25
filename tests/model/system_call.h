// One step of the differential test: a system call with its arguments, made by one of a few processes on both file
// systems in turn. Plain data, so that it travels through shared memory and a sequence can be cut and run again.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace rmemfs::difference {

#define RMEMFS_CALLS(X) \
  X(kOpen)              \
  X(kClose)             \
  X(kRead)              \
  X(kWrite)             \
  X(kPread)             \
  X(kPwrite)            \
  X(kLseek)             \
  X(kFtruncate)         \
  X(kTruncate)          \
  X(kRename)            \
  X(kLink)              \
  X(kLinkOpen)          \
  X(kSymlink)           \
  X(kUnlink)            \
  X(kMkdir)             \
  X(kRmdir)             \
  X(kMknod)             \
  X(kChmod)             \
  X(kFchmod)            \
  X(kChown)             \
  X(kFchown)            \
  X(kUtimens)           \
  X(kFutimens)          \
  X(kStat)              \
  X(kAccess)            \
  X(kReadlink)          \
  X(kReaddir)           \
  X(kFsync)             \
  X(kFallocate)         \
  X(kCopyRange)         \
  X(kMap)               \
  X(kMapStore)          \
  X(kMapLoad)           \
  X(kUmask)             \
  X(kSetxattr)          \
  X(kGetxattr)          \
  X(kListxattr)         \
  X(kRemovexattr)       \
  X(kFlock)             \
  X(kSetLock)           \
  X(kGetLock)           \
  X(kStatfs)

enum class Kind : std::uint8_t {
#define RMEMFS_X(name) name,
  RMEMFS_CALLS(RMEMFS_X)
#undef RMEMFS_X
};

inline constexpr std::size_t kProcesses = 4;  // two of root, two of ordinary users who share a group
inline constexpr std::size_t kSlots = 5;      // descriptors of each process
inline constexpr std::size_t kMaps = 2;       // mappings of each process
inline constexpr std::size_t kMaxPath = 1200;
inline constexpr std::size_t kMaxData = std::size_t{1} << 20;
inline constexpr std::size_t kMaxTransfer = 200000;

// What each process is, by number: the first group is its own, the second a supplementary one.
struct Identity {
  std::uint32_t uid, gid, group;
};
inline constexpr std::array<Identity, kProcesses> kIdentities = {
    {{0, 0, 0}, {0, 0, 0}, {1501, 1501, 1600}, {1502, 1502, 1600}}};

struct Call {
  Kind kind = Kind::kStat;
  std::uint8_t process = 0;
  std::uint8_t slot = 0, slot2 = 0;
  std::uint32_t flags = 0, mode = 0;
  std::int64_t a = 0, b = 0, c = 0, d = 0;
  std::uint32_t fill = 0;  // seeds the bytes that are written
  char path[kMaxPath] = {};
  char path2[kMaxPath] = {};
};

// What one side answered. `data`: bytes read, names listed, a link's target.
struct Answer {
  std::int64_t value = 0;
  std::int32_t error = 0;
  std::uint32_t length = 0;
  std::array<std::int32_t, kSlots> descriptors{};  // the process's descriptors on this side afterwards; -1: none
  char data[kMaxData];
};

// Shared between the test and one process of it.
struct Exchange {
  Call call;
  Answer answers[2];
};

const char* name(Kind kind);
bool uses_slot(Kind kind);   // its `slot` is a descriptor
bool uses_slot2(Kind kind);  // its `slot2` too
// The call as a line of text, from which somebody can write it down in C.
std::string describe(const Call& call);

// The processes. Each makes a call on the reference and then on the tested file system, in a directory of its own on
// each, and says what both answered.
class Processes {
 public:
  // Directories' descriptors, inherited by the processes.
  Processes(int tested, int reference);
  ~Processes();
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  // The answers stay until the next call. False: the process is gone.
  bool perform(const Call& call);
  const Answer& answer(std::size_t process, int side) const { return exchanges_[process]->answers[side]; }
  int pid(std::size_t process) const { return pids_[process]; }

 private:
  std::array<Exchange*, kProcesses> exchanges_{};
  std::array<int, kProcesses> pids_{}, ask_{}, told_{};
};

inline constexpr int kTested = 0, kReference = 1;

}  // namespace rmemfs::difference
