#include "tools/local_node.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "control/node_client.h"
#include "control/unix_socket.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/unique_fd.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kStartMs = 10000;
constexpr std::uint32_t kDescribeMs = 2000;   // how long a node may take to say who it is
constexpr std::uint32_t kStopMs = 5000;       // from SIGTERM to SIGKILL
constexpr std::uint32_t kSilentStopMs = 500;  // the same, for one that does not answer
constexpr std::uint32_t kKillMs = 5000;       // until a killed one is gone: its memory is unmapped first
constexpr const char* kPoolPrefix = "/dev/shm/rmemfs-";

std::string socket_of(const LocalNode& node) { return node.directory + "/node.sock"; }

std::string note_of(const LocalNode& node) { return node.directory + "/node.pool"; }

std::string pid_file_of(const LocalNode& node) { return node.directory + "/node.pid"; }

Result<NodeDescription> describe(const LocalNode& node, std::uint32_t timeout_ms = kDescribeMs) {
  // Where nobody listens gRPC would try for the whole time.
  ASSIGN_OR_RETURN(const SocketPath path, SocketPath::open(socket_of(node)));
  RETURN_IF_ERROR(connect_unix(path));
  ASSIGN_OR_RETURN(auto client, NodeClient::make("shm:" + socket_of(node)));
  return client->describe(timeout_ms);
}

// The node's process by DIR/node.pid, for a node that cannot be asked; 0: there is none. Pids are used again, and the
// file may be anybody's copy: what counts is an rmemd that was given this pool.
pid_t recorded_pid(const LocalNode& node) {
  pid_t pid = 0;
  if (!(std::ifstream(pid_file_of(node)) >> pid) || pid <= 1) return 0;
  const std::string process = "/proc/" + std::to_string(pid);
  std::string comm, word;
  std::ifstream name(process + "/comm");
  if (!std::getline(name, comm) || comm != "rmemd") return 0;
  std::ifstream arguments(process + "/cmdline");
  bool pool_follows = false;
  while (std::getline(arguments, word, '\0')) {
    if (pool_follows && word == node.pool) return pid;
    pool_follows = word == "--pool";
  }
  return 0;
}

void record_pid(const LocalNode& node, std::uint64_t pid) { std::ofstream(pid_file_of(node)) << pid << "\n"; }

// Somebody else's child may not be reaped for long.
bool is_zombie(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(stat, text);
  const std::size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text.substr(name_end).starts_with(") Z");
}

bool ends_within(pid_t pid, std::uint32_t ms) {
  const TimePoint deadline = deadline_after_ms(ms);
  do {
    // A child of ours is reaped; another one (an earlier mount's) is gone when the signal finds nobody.
    if (::waitpid(pid, nullptr, WNOHANG) == pid || ::kill(pid, 0) != 0 || is_zombie(pid)) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  } while (MonoClock::now() < deadline);
  return false;
}

// rmemd beside this program, otherwise by PATH.
std::string find_rmemd() {
  char path[4096];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path - 1);
  if (length > 0) {
    std::string own(path, static_cast<std::size_t>(length));
    const std::string folder = own.substr(0, own.rfind('/'));
    for (const std::string& candidate : {folder + "/rmemd", folder + "/../sbin/rmemd"}) {
      if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    }
  }
  return "rmemd";
}

std::string last_line(const std::string& path) {
  std::ifstream file(path);
  std::string line, last;
  while (std::getline(file, line)) {
    if (!line.empty()) last = line;
  }
  return last;
}

bool is_local_pool(const std::string& path) {
  const std::size_t length = new_local_pool().size();
  return path.size() == length && path.starts_with(kPoolPrefix) && path.ends_with(".pool");
}

// Its bytes would be taken for this file system's.
Error foreign(const LocalNode& node, const NodeDescription& description) {
  return Error(Errc::kInvalid, "",
               socket_of(node) + " is served by another memory node (pid " + std::to_string(description.pid) +
                   ", pool " + (description.pool_path.empty() ? "anonymous" : description.pool_path) +
                   "); end it first");
}

Error failed(const LocalNode& node, const std::string& why) {
  return Error(Errc::kUnreachable, "private memory node", why + " (" + node.directory + "/node.log)");
}

}  // namespace

std::string new_local_pool() { return kPoolPrefix + Uuid::random().to_string() + ".pool"; }

Result<void> note_local_pool(const LocalNode& node) {
  const std::string path = note_of(node);
  std::ofstream note(path);
  if (!(note << node.pool << "\n" << std::flush)) return Error(errc_from_errno(errno), "private memory node", path);
  return {};
}

void forget_local_pool_note(const LocalNode& node) { ::unlink(note_of(node).c_str()); }

Result<void> remove_unfinished_node(const std::string& directory) {
  LocalNode node{directory, {}, 0};
  if (const auto description = describe(node); description.ok()) {
    node.pool = description->pool_path;
    if (!is_local_pool(node.pool) || description->regions != 0) return foreign(node, *description);
    stop_local_node(node);
    if (describe(node).ok()) return foreign(node, *description);
    ::unlink(node.pool.c_str());
  }
  std::ifstream note(note_of(node));
  if (std::getline(note, node.pool) && is_local_pool(node.pool)) {
    stop_local_node(node);
    remove_local_node(node);
  }
  return {};
}

void remove_local_node(const LocalNode& node) {
  if (::unlink(node.pool.c_str()) != 0 && errno != ENOENT) {
    log::warn("the pool {} could not be removed: {}", node.pool, std::strerror(errno));
    return;
  }
  for (const char* name : {"node.sock", "node.pid", "node.log", "node.pool"}) {
    ::unlink((node.directory + "/" + name).c_str());
  }
}

Result<void> start_local_node(const LocalNode& node) {
  if (const auto description = describe(node); description.ok()) {
    if (description->pool_path != node.pool) return foreign(node, *description);
    record_pid(node, description->pid);
    return {};
  }
  if (const pid_t pid = recorded_pid(node); pid != 0) {
    // It runs: another one could not serve its pool beside it.
    if (describe(node, kStartMs / 2).ok()) return {};
    const std::string number = std::to_string(pid);
    return Error(Errc::kInvalid, "private memory node",
                 "its process, pid " + number +
                     ", runs but does not answer; if it is stopped, let it go on (kill -CONT " + number +
                     ") or end it, which loses nothing (kill -KILL " + number + ")");
  }
  const std::string program = find_rmemd();
  const std::string size = std::to_string(node.size_bytes), listen = "unix:" + socket_of(node);
  const std::string log_path = node.directory + "/node.log";
  UniqueFd log_file(::open(log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!log_file.valid()) return Error(errc_from_errno(errno), "private memory node", log_path);
  // Its own session: neither a terminal's hang-up nor the mount's death ends it. Every other descriptor is O_CLOEXEC.
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, log_file.get(), 1);
  posix_spawn_file_actions_adddup2(&files, log_file.get(), 2);
  posix_spawn_file_actions_addclosefrom_np(&files, 3);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<std::string> words = {"rmemd", "--size", size, "--pool", node.pool, "--listen", listen};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, program.c_str(), &files, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return Error(errc_from_errno(error), "private memory node", program);
  const TimePoint deadline = deadline_after_ms(kStartMs);
  for (;;) {
    if (describe(node).ok()) break;
    // SIGCHLD may be ignored: then an ended child is nobody's, and waitpid says so.
    const pid_t ended = ::waitpid(child, nullptr, WNOHANG);
    if (ended == child || (ended < 0 && errno == ECHILD)) return failed(node, last_line(log_path));
    if (MonoClock::now() >= deadline) {
      ::kill(child, SIGTERM);
      return failed(node, "it does not answer");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  record_pid(node, static_cast<std::uint64_t>(child));
  return {};
}

void stop_local_node(const LocalNode& node) {
  const auto description = describe(node);
  pid_t pid = 0;
  if (description.ok()) {
    if (description->pool_path == node.pool) pid = static_cast<pid_t>(description->pid);
  } else {
    pid = recorded_pid(node);
  }
  if (pid == 0 || ::kill(pid, SIGTERM) != 0) return;
  if (!ends_within(pid, description.ok() ? kStopMs : kSilentStopMs)) {
    // A stopped process takes no other signal. The pool is made for a node that is killed.
    ::kill(pid, SIGKILL);
    if (!ends_within(pid, kKillMs)) return log::warn("the private memory node, pid {}, does not end", pid);
  }
  ::unlink(pid_file_of(node).c_str());
}

}  // namespace rmemfs
