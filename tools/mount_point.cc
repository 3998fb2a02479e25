#include "tools/mount_point.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "tools/bounded_call.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/unique_fd.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kLookMs = 3000;    // for a mount point to say what it is
constexpr std::uint32_t kDetachMs = 5000;  // for a stale mount
constexpr int kMostStale = 100;            // stale mounts on top of each other

// stat() of a mount whose daemon has just died may be answered from the kernel's cache; statfs() never is.
int look_at(const char* path) {
  struct stat st;
  struct statfs file_system;
  if (::stat(path, &st) != 0 || ::statfs(path, &file_system) != 0) return errno;
  return S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
}

// ECONNABORTED: of a connection that was aborted and whose daemon asked to be told apart by it.
bool is_stale(int error) { return error == ENOTCONN || error == ECONNABORTED; }

Result<void> run_fusermount(const std::string& mountpoint, bool lazily, std::uint32_t timeout_ms) {
  std::vector<std::string> words = {"fusermount3", "-u"};
  if (lazily) words.emplace_back("-z");
  words.insert(words.end(), {"--", mountpoint});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int failed = ::posix_spawnp(&child, "fusermount3", nullptr, nullptr, argv.data(), environ);
  if (failed != 0) return Error(errc_from_errno(failed), "fusermount3");
  const TimePoint deadline = deadline_after_ms(timeout_ms);
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (MonoClock::now() >= deadline) {
      ::kill(child, SIGKILL);
      return Error(Errc::kDeadline, "fusermount3", mountpoint);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  // It has said why.
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return Error(Errc::kBusy, "fusermount3", mountpoint);
  return success();
}

// Ends whatever waits for the daemon, by the control file system: for those who may not umount2().
void abort_connection(unsigned connection) {
  const std::string path = "/sys/fs/fuse/connections/" + std::to_string(connection) + "/abort";
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid() || ::write(file.get(), "1", 1) != 1) log::warn("{}: {}", path, std::strerror(errno));
}

char state_of(int pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(stat, text);
  const std::size_t name_end = text.rfind(')');
  return name_end != std::string::npos && name_end + 2 < text.size() ? text[name_end + 2] : 'X';
}

}  // namespace

Result<void> detach(const MountEntry& mount, Detach how, std::uint32_t timeout_ms) {
  int flags = UMOUNT_NOFOLLOW;
  if (how == Detach::kLazy) flags |= MNT_DETACH;
  if (how == Detach::kForce) flags |= MNT_DETACH | MNT_FORCE;
  const char* const path = mount.mountpoint.c_str();
  ASSIGN_OR_RETURN(const std::optional<int> error,
                   bounded_call([path, flags] { return ::umount2(path, flags) == 0 ? 0 : errno; }, timeout_ms));
  if (!error) return Error(Errc::kDeadline, "umount", mount.mountpoint);
  if (*error == EPERM) {
    if (how == Detach::kForce) abort_connection(mount.connection);
    return run_fusermount(mount.mountpoint, how != Detach::kClean, timeout_ms);
  }
  if (*error != 0) return Error(errc_from_errno(*error), "umount", mount.mountpoint + ": " + std::strerror(*error));
  return success();
}

Result<void> check_mountpoint(const std::string& mountpoint, bool replace_stale) {
  // Each sentence ends with what is to be done, mostly to the mount point.
  const auto refused = [&mountpoint](const char* why, const char* command) {
    std::string sentence = "mount point ";
    sentence.append(mountpoint).append(why).append(command).append(" ").append(mountpoint);
    return Error(Errc::kInvalid, "", std::move(sentence));
  };
  for (int stale = 0;; ++stale) {
    ASSIGN_OR_RETURN(const std::optional<int> error,
                     bounded_call([path = mountpoint.c_str()] { return look_at(path); }, kLookMs));
    if (!error) {
      return refused(" does not answer, because the daemon of a mount there is stopped or hangs; to end it, run: ",
                     "rmemctl umount --force");
    }
    if (*error == 0) return success();
    if (!is_stale(*error)) return Error(errc_from_errno(*error), "mount point", mountpoint);
    const auto mount = mount_at(mountpoint);
    if (!mount) return refused(" is a stale mount of another file system, whose daemon is gone; run: ", "umount -l");
    if (!replace_stale) {
      return refused(" is a stale mount whose daemon is gone; mount with -o replace_stale, or run: ", "umount -l");
    }
    if (stale >= kMostStale) return Error(Errc::kTooMany, "stale mounts", mountpoint);
    RETURN_IF_ERROR(detach(*mount, Detach::kLazy, kDetachMs));
  }
}

std::string name_of(int pid) {
  std::ifstream comm("/proc/" + std::to_string(pid) + "/comm");
  std::string name;
  std::getline(comm, name);
  return name;
}

bool is_stopped(int pid) {
  const char state = state_of(pid);
  return state == 'T' || state == 't';
}

}  // namespace rmemfs
