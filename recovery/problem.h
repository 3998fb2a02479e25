// Problem: one thing that fsck.rmemfs found wrong, and the table of all things that can be wrong.
//
// The codes are stable: scripts and the manual page name them. The high byte is the pass. The passes report problems
// and never print; the tool prints. Thread-safety: plain values.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "util/ids.h"

namespace rmemfs {

enum class CheckPass : std::uint8_t {
  kJournal = 1,
  kSuperblock = 2,
  kInodes = 3,
  kNames = 4,
  kExtents = 5,
  kSpace = 6,
  kOrphans = 7,
  kNodes = 8,
};
inline constexpr unsigned kCheckPasses = 8;
std::string_view pass_name(CheckPass pass);  // "journal", "superblock", ...

// kSafe: nothing a user can name is lost by the repair; -p does it. kDecision: a name, data or a transaction may be
// lost.
enum class RepairRisk : std::uint8_t { kSafe, kDecision };

// name, code, risk, sentence (what is wrong), repair (what -y does).
#define RMEMFS_PROBLEMS(X)                                                                                      \
  X(kJournalGap, 0x0101, kDecision, "a transaction that was persistent is missing in the journal",              \
    "keep what comes before it and drop what follows")                                                          \
  X(kJournalMissing, 0x0102, kDecision, "the journal file is missing",                                          \
    "make an empty one; changes that had not reached the metadata store are lost")                              \
  X(kJournalDamaged, 0x0103, kDecision, "the journal's own header is damaged",                                  \
    "make an empty one; changes that had not reached the metadata store are lost")                              \
  X(kInodeDamaged, 0x0301, kDecision, "the inode's record cannot be read", "forget the inode")                  \
  X(kRootMissing, 0x0302, kDecision, "the root directory is missing or is not a directory", "make a new one")   \
  X(kInodeSizeBad, 0x0303, kDecision, "the size is impossible for its type", "set the nearest possible size")   \
  X(kInodeFieldBad, 0x0304, kSafe, "a field is set that this type of file does not have", "clear the field")    \
  X(kSymlinkMissing, 0x0305, kDecision, "a symbolic link has no target or a damaged one", "remove the link")    \
  X(kSymlinkStray, 0x0306, kSafe, "a link target belongs to no symbolic link", "erase it")                      \
  X(kExtendedDamaged, 0x0307, kDecision, "an inode's extended attributes are missing or cannot be read",        \
    "forget them")                                                                                              \
  X(kExtendedStray, 0x0308, kSafe, "extended attributes belong to no inode", "erase them")                      \
  X(kExtendedLength, 0x0309, kSafe, "an inode says a wrong length of its extended attributes", "set it")        \
  X(kDirentDamaged, 0x0401, kDecision, "a name's record cannot be read", "erase the name")                      \
  X(kDirentNoDirectory, 0x0402, kDecision, "a name is in something that is not a directory", "erase the name")  \
  X(kDirentBadName, 0x0403, kDecision, "a name that no file can have", "erase the name")                        \
  X(kDirentDangling, 0x0404, kSafe, "a name leads to an inode that does not exist", "erase the name")           \
  X(kDirentWrongHash, 0x0405, kSafe, "a name is stored under a wrong hash", "store it under the right one")     \
  X(kDirentDuplicate, 0x0406, kDecision, "a directory has the same name twice", "erase the misplaced one")      \
  X(kDirentWrongType, 0x0407, kSafe, "a name has another file type than its inode", "take the inode's type")    \
  X(kDirentToRoot, 0x0408, kDecision, "a name leads to the root directory", "erase the name")                   \
  X(kDirectoryTwoNames, 0x0409, kDecision, "a directory has more than one name", "keep one name")               \
  X(kDirectoryLoop, 0x040a, kDecision, "a directory is its own ancestor", "move it to lost+found")              \
  X(kDirectoryUnattached, 0x040b, kSafe, "a directory has no name", "name it in lost+found")                    \
  X(kInodeUnattached, 0x040c, kSafe, "an inode has no name", "name it in lost+found")                           \
  X(kParentWrong, 0x040d, kSafe, "a directory's parent is not where its name is", "set the parent")             \
  X(kLinkCountWrong, 0x040e, kSafe, "the link count is wrong", "set it")                                        \
  X(kEntryCountWrong, 0x040f, kSafe, "the number of names in the directory is wrong", "set it")                 \
  X(kChunkDamaged, 0x0501, kDecision, "a chunk's record cannot be read or is impossible",                       \
    "take it from the memory node's lease, or mark the chunk lost: reading there is an error, never zeros")     \
  X(kChunkRegionShared, 0x0502, kDecision, "two chunks name the same region of a memory node",                  \
    "mark the second one lost")                                                                                 \
  X(kChunkLeaseDiffers, 0x0503, kDecision, "the chunk's record and the memory node's lease differ",             \
    "take what the node says")                                                                                  \
  X(kExtentDamaged, 0x0504, kDecision, "an extent's record cannot be read",                                     \
    "mark its range lost: reading there is an error, never zeros")                                              \
  X(kExtentNoInode, 0x0505, kSafe, "an extent belongs to no file", "erase it")                                  \
  X(kExtentNotFile, 0x0506, kDecision, "an extent belongs to something that is not a regular file", "erase it") \
  X(kExtentUnknownChunk, 0x0507, kDecision, "an extent names a chunk that does not exist",                      \
    "take the chunk from the memory node's lease, or mark it or the range lost")                                \
  X(kExtentOutsideChunk, 0x0508, kDecision, "an extent lies outside its chunk",                                 \
    "cut it to the chunk; the rest is lost: reading there is an error, never zeros")                            \
  X(kExtentOverlap, 0x0509, kDecision, "two extents of a file cover the same offset",                           \
    "keep the one that begins first")                                                                           \
  X(kExtentShared, 0x050a, kDecision, "two extents claim the same blocks",                                      \
    "the file changed last keeps them; the range of the other is lost: reading there is an error")              \
  X(kBlockCountWrong, 0x050b, kSafe, "the number of allocated blocks is wrong", "set it")                       \
  X(kBlocksLeaked, 0x0601, kSafe, "blocks are marked used that no file has", "mark them free")                  \
  X(kBlocksUnmarked, 0x0602, kSafe, "blocks of files are marked free", "mark them used")                        \
  X(kBitmapDamaged, 0x0603, kSafe, "a bitmap does not fit its chunk", "make it again")                          \
  X(kBitmapNoChunk, 0x0604, kSafe, "a bitmap belongs to no chunk", "erase it")                                  \
  X(kNextInodeLow, 0x0605, kSafe, "the next inode number is missing, in use already or impossible",             \
    "set it above all others")                                                                                  \
  X(kNextChunkLow, 0x0606, kSafe, "the next chunk number is missing, in use already or impossible",             \
    "set it above all others")                                                                                  \
  X(kInodeCounterWrong, 0x0607, kSafe, "the number of inodes is wrong", "set it")                               \
  X(kOrphanDamaged, 0x0701, kSafe, "an orphan record cannot be read", "erase it")                               \
  X(kOrphanNoInode, 0x0702, kSafe, "an orphan record names no inode", "erase it")                               \
  X(kOrphanLinked, 0x0703, kSafe, "an orphan record names an inode that has names", "erase the record")         \
  X(kOrphanUnrecorded, 0x0704, kSafe, "an inode without links has no orphan record",                            \
    "write one; the next mount removes the inode")                                                              \
  X(kChunkGenerationGone, 0x0801, kDecision, "the memory node came back without the chunk's contents",          \
    "mark the chunk lost: reading there is an error, never zeros")                                              \
  X(kChunkRegionMissing, 0x0802, kDecision, "the memory node does not have the chunk's region",                 \
    "mark the chunk lost: reading there is an error, never zeros")                                              \
  X(kLeaseUnknown, 0x0803, kSafe, "a memory node holds a region for this file system that no chunk uses",       \
    "give the region back")

enum class ProblemCode : std::uint16_t {
#define RMEMFS_X(name, code, risk, sentence, repair) name = code,
  RMEMFS_PROBLEMS(RMEMFS_X)
#undef RMEMFS_X
};

struct ProblemInfo {
  ProblemCode code;
  std::string_view name;  // "kDirentDangling"
  RepairRisk risk;
  std::string_view sentence;
  std::string_view repair;
  CheckPass pass() const { return static_cast<CheckPass>(static_cast<unsigned>(code) >> 8); }
};

std::span<const ProblemInfo> problem_table();
const ProblemInfo& info_of(ProblemCode code);

struct Problem {
  ProblemCode code;
  InodeNumber ino;     // 0: the problem is not an inode's
  std::string path;    // from the root of the file system; empty when there is none
  std::string detail;  // numbers and names: "inode 17: 3 is stored, 2 is right"
  bool repaired = false;

  // One sentence for people: "/a/b: inode 17: the link count is wrong: 3, should be 2".
  std::string message() const;
};

}  // namespace rmemfs
