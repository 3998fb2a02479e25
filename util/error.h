// Error codes: the one list of what can go wrong, each with a name, an errno and a sentence.
//
// An Error is a value. It is made where the failure is seen (a foreign error is converted and logged there, once) and
// travels unchanged to a tool, which prints it, or to fs/fuse_adapter, the only place where it becomes an errno.
// Thread-safety: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace rmemfs {

// name, errno, sentence. The errno is what a system call on the mount returns; rmemfs(8) prints this table.
#define RMEMFS_ERROR_CODES(X)                                                          \
  /* Outcomes that POSIX names. */                                                     \
  X(kNotFound, ENOENT, "no such file or directory")                                    \
  X(kExists, EEXIST, "the name exists already")                                        \
  X(kNotDirectory, ENOTDIR, "not a directory")                                         \
  X(kIsDirectory, EISDIR, "is a directory")                                            \
  X(kNotEmpty, ENOTEMPTY, "the directory is not empty")                                \
  X(kNameTooLong, ENAMETOOLONG, "the name is longer than 255 bytes")                   \
  X(kNoSpace, ENOSPC, "no room is left in the memory nodes' pools")                    \
  X(kTooManyLinks, EMLINK, "too many links")                                           \
  X(kInvalid, EINVAL, "invalid argument")                                              \
  X(kAccess, EACCES, "permission denied")                                              \
  X(kNotPermitted, EPERM, "operation not permitted")                                   \
  X(kReadOnly, EROFS, "the mount is read-only")                                        \
  X(kTooBig, EFBIG, "the file would be too large")                                     \
  X(kNoSuchOffset, ENXIO, "no data or hole at or after this offset")                   \
  X(kNotSupported, EOPNOTSUPP, "operation not supported")                              \
  X(kRange, ERANGE, "the result does not fit")                                         \
  X(kNoAttribute, ENODATA, "no such attribute")                                        \
  X(kNoMemory, ENOMEM, "out of memory")                                                \
  X(kTooMany, ENFILE, "a limit on open objects is reached")                            \
  X(kBusy, EBUSY, "in use")                                                            \
  /* Remote memory. */                                                                 \
  X(kUnreachable, EIO, "the memory node cannot be reached")                            \
  X(kDeadline, EIO, "the deadline passed without an answer")                           \
  X(kRegionLost, EIO, "the memory node came back without these contents")              \
  X(kNotKept, EIO, "the memory node was booted anew before the bytes were persistent") \
  X(kRefused, EIO, "the memory node refused the access key or permission")             \
  X(kOutOfBounds, EIO, "outside the region")                                           \
  X(kProtocol, EIO, "the peer broke the protocol")                                     \
  X(kVersion, EPROTONOSUPPORT, "the peer speaks another protocol version")             \
  X(kFenced, ESTALE, "a newer mount has taken over; this one may not write any more")  \
  X(kCancelled, EIO, "the operation was cancelled because the mount ends")             \
  /* Metadata, journal, local disk. */                                                 \
  X(kCorrupt, EUCLEAN, "metadata is damaged; run fsck.rmemfs")                         \
  X(kChecksum, EBADMSG, "a checksum does not match")                                   \
  X(kUnsupportedFeature, EOPNOTSUPP, "uses a feature that this version does not know") \
  X(kWrongFileSystem, EINVAL, "belongs to another file system")                        \
  X(kNotFormatted, EINVAL, "is not an rmemfs file system; make one with mkfs.rmemfs")  \
  X(kLocked, EBUSY, "is in use by another process")                                    \
  X(kStore, EIO, "the metadata store failed")                                          \
  X(kLocalIo, EIO, "a local file could not be read or written")                        \
  X(kJournalFull, EIO, "no journal slot became free within the deadline")

enum class Errc : std::uint16_t {
#define RMEMFS_X(name, number, sentence) name,
  RMEMFS_ERROR_CODES(RMEMFS_X)
#undef RMEMFS_X
};

// What went wrong, where in the code, and (off the hot path) the name of the thing it went wrong with.
struct Error {
  Errc code;
  const char* where = "";  // static text: the operation, e.g. "journal open"
  std::string detail;      // the thing, e.g. "/var/lib/rmemfs/journal"; may be empty

  Error(Errc c, const char* w = "") : code(c), where(w) {}
  Error(Errc c, const char* w, std::string d) : code(c), where(w), detail(std::move(d)) {}

  // One sentence for people: "journal open: /x/journal: a checksum does not match". A detail that ends with the
  // system's text for the code's errno says it already, and better: "/x/journal: No space left on device" is not about
  // pools.
  std::string message() const;
};

std::string_view name(Errc code);      // "kNotFound"
std::string_view sentence(Errc code);  // "no such file or directory"
int errno_of(Errc code);

// The code for an errno of a local system call (open of a pool file and the like); kLocalIo when there is no closer
// one.
Errc errc_from_errno(int number);

}  // namespace rmemfs
