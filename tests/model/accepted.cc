#include "accepted.h"

#include <cerrno>
#include <cstdio>

namespace rmemfs::difference {
namespace {

// Where a line is not about an answer, the place in the test that leaves it out names it.
#define RMEMFS_ACCEPTED(X)                                                                                            \
  X(kDirectorySize, "A directory's size is 4096 bytes and it has no blocks.", "Names are not kept in blocks.")        \
  X(kBlocks, "A file's blocks are those of its bytes and reservations alone.",                                        \
    "Where they are is recorded in the metadata directory.")                                                          \
  X(kLargest, "A file may have 4 EiB.", "ext4 with blocks of 4 KiB ends at 16 TiB.")                                  \
  X(kDirect, "Direct reads, writes and copies may begin and end anywhere.",                                           \
    "They go to memory, which has no sectors.")                                                                       \
  X(kPositions, "Positions in a directory are numbers without an order of their own.",                                \
    "As in every file system, only those that telldir gave have a meaning.")                                          \
  X(kSpecialTimes, "Reading and writing a FIFO or a device leaves its times alone.",                                  \
    "The kernel does it without the file system.")                                                                    \
  X(kMapTimes, "A mapping's changes move mtime and ctime when they are written back.",                                \
    "Only then the file system hears of them.")                                                                       \
  X(kMapSeek, "SEEK_DATA and SEEK_HOLE see what a mapping has stored once it is written back.",                       \
    "The kernel asks the file system without writing it back first.")                                                 \
  X(kMapTail, "What a mapping stores behind the end of the file, in its last page, can be seen when the file grows.", \
    "The kernel does not clear the page for FUSE.")                                                                   \
  X(kEmptyChown, "chown of a set-ID file that names neither owner nor group does nothing for others than the owner.", \
    "The kernel does not say that it is a chown, so it is not refused.")

struct Accepted {
  const char* what;
  const char* why;
};
constexpr Accepted kAccepted[] = {
#define RMEMFS_X(name, what, why) {what, why},
    RMEMFS_ACCEPTED(RMEMFS_X)
#undef RMEMFS_X
};

}  // namespace

bool is_accepted(const Call& call, const Answer& tested, const Answer& reference) {
  // kEmptyChown
  const bool chown = call.kind == Kind::kChown || call.kind == Kind::kFchown;
  return chown && call.a == -1 && call.b == -1 && tested.value == 0 && reference.error == EPERM;
}

bool changes_bytes(Kind kind) {
  switch (kind) {
    case Kind::kOpen:
    case Kind::kWrite:
    case Kind::kPwrite:
    case Kind::kFtruncate:
    case Kind::kTruncate:
    case Kind::kRename:
    case Kind::kLink:
    case Kind::kFallocate:
    case Kind::kCopyRange:
    case Kind::kMapStore:
    case Kind::kChown:
    case Kind::kFsync:
      return true;
    default:
      return false;
  }
}

void print_accepted() {
  for (const Accepted& one : kAccepted) std::printf("%s\t%s\n", one.what, one.why);
}

}  // namespace rmemfs::difference
