// Unix sockets by path: of any length, with their permissions from the first moment, a stale one replaced.
//
// sockaddr_un holds 107 bytes. A longer path is reached through its opened directory: /proc/self/fd/N/name, which works
// for names of up to about 80 bytes, as long as the directory stays open.
// Blocks on the local file system only. Thread-safe, as plain values.
#pragma once

#include <sys/stat.h>

#include <string>

#include "util/result.h"
#include "util/unique_fd.h"

namespace rmemfs {

// An address for bind() or connect() that stays valid while the object lives.
class SocketPath {
 public:
  // kNotFound, kAccess (the directory), kNameTooLong, kInvalid (no name).
  static Result<SocketPath> open(const std::string& path);

  const std::string& reachable() const { return reachable_; }  // at most 107 bytes
  const std::string& original() const { return original_; }
  int directory_fd() const { return directory_.get(); }
  const std::string& name() const { return name_; }

 private:
  std::string original_, name_, reachable_;
  UniqueFd directory_;
};

// Tries to connect without waiting. kNotFound: no such socket. kUnreachable: nobody listens. A listener whose queue is
// full counts as reached (an invalid descriptor is returned then).
Result<UniqueFd> connect_unix(const SocketPath& path);

// A bound, listening, non-blocking socket that removes its name when it goes, unless somebody else has taken the name.
class ListeningUnixSocket {
 public:
  // kLocked: a live one is there. kExists: something that is not a socket is there. Else as SocketPath::open.
  static Result<ListeningUnixSocket> bind(const std::string& path, mode_t mode, int backlog = 512);
  ListeningUnixSocket(ListeningUnixSocket&&) noexcept = default;
  ListeningUnixSocket& operator=(ListeningUnixSocket&&) = delete;
  ~ListeningUnixSocket();
  int fd() const { return fd_.get(); }

 private:
  ListeningUnixSocket(SocketPath path, UniqueFd fd, dev_t device, ino_t inode)
      : path_(std::move(path)), fd_(std::move(fd)), device_(device), inode_(inode) {}
  SocketPath path_;
  UniqueFd fd_;
  dev_t device_;
  ino_t inode_;
};

}  // namespace rmemfs
