#include "control/unix_socket.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include <cerrno>
#include <cstring>

namespace rmemfs {
namespace {

constexpr std::size_t kMaxPath = sizeof(sockaddr_un::sun_path) - 1;

sockaddr_un address_of(const SocketPath& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.reachable().data(), path.reachable().size());
  return address;
}

Error failed(const char* what, const std::string& path) { return Error(errc_from_errno(errno), what, path); }

// Two programs that replace a stale socket at once must not remove each other's: they take turns on the directory.
class DirectoryTurn {
 public:
  explicit DirectoryTurn(const SocketPath& path)
      : fd_(::openat(path.directory_fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    for (int attempt = 0; attempt < 100 && fd_.valid() && ::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0; ++attempt) {
      const timespec pause{0, 10'000'000};
      ::nanosleep(&pause, nullptr);
    }
  }

 private:
  UniqueFd fd_;  // closing it ends the turn
};

Result<void> remove_stale(const SocketPath& path) {
  struct stat status;
  if (::fstatat(path.directory_fd(), path.name().c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return success();
    return failed("socket", path.original());
  }
  if (!S_ISSOCK(status.st_mode)) {
    return Error(Errc::kExists, "socket", path.original() + " is not a socket and is left alone");
  }
  Result<UniqueFd> live = connect_unix(path);
  if (live.ok()) return Error(Errc::kLocked, "socket", path.original());
  if (live.error().code == Errc::kNotFound) return success();
  if (live.error().code != Errc::kUnreachable) return live.error();
  if (::unlinkat(path.directory_fd(), path.name().c_str(), 0) != 0 && errno != ENOENT) {
    return failed("socket", path.original());
  }
  return success();
}

}  // namespace

Result<SocketPath> SocketPath::open(const std::string& path) {
  SocketPath result;
  result.original_ = path;
  const std::size_t slash = path.rfind('/');
  result.name_ = slash == std::string::npos ? path : path.substr(slash + 1);
  if (result.name_.empty() || path.find('\0') != std::string::npos) {
    return Error(Errc::kInvalid, "socket", "\"" + path + "\" is not a path of a socket");
  }
  const std::string directory = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  result.directory_.reset(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!result.directory_.valid()) return failed("socket", path);
  result.reachable_ = path;
  if (path.size() > kMaxPath) {
    result.reachable_ = "/proc/self/fd/" + std::to_string(result.directory_.get()) + "/" + result.name_;
  }
  if (result.reachable_.size() > kMaxPath) return Error(Errc::kNameTooLong, "socket", path);
  return result;
}

Result<UniqueFd> connect_unix(const SocketPath& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return failed("socket", path.original());
  const sockaddr_un address = address_of(path);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  if (errno == EAGAIN) return UniqueFd();  // its queue is full, so somebody listens
  return failed("socket", path.original());
}

Result<ListeningUnixSocket> ListeningUnixSocket::bind(const std::string& path, mode_t mode, int backlog) {
  ASSIGN_OR_RETURN(SocketPath where, SocketPath::open(path));
  const DirectoryTurn turn(where);
  RETURN_IF_ERROR(remove_stale(where));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return failed("socket", path);
  // bind() gives the name the socket inode's mode without the umask's bits, so it never is more open than asked.
  if (::fchmod(fd.get(), mode) != 0) return failed("socket", path);
  const sockaddr_un address = address_of(where);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return failed("socket", path);
  struct stat status;
  if (::fstatat(where.directory_fd(), where.name().c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    return failed("socket", path);
  }
  ListeningUnixSocket socket(std::move(where), std::move(fd), status.st_dev, status.st_ino);
  if (::fchmodat(socket.path_.directory_fd(), socket.path_.name().c_str(), mode, 0) != 0 ||
      ::listen(socket.fd(), backlog) != 0) {
    return failed("socket", path);
  }
  return socket;
}

ListeningUnixSocket::~ListeningUnixSocket() {
  if (!fd_.valid()) return;
  struct stat status;
  if (::fstatat(path_.directory_fd(), path_.name().c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      status.st_dev == device_ && status.st_ino == inode_) {
    ::unlinkat(path_.directory_fd(), path_.name().c_str(), 0);
  }
}

}  // namespace rmemfs
