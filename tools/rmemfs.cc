// rmemfs: mounts a file system over remote memory.
//
// The process forks before anything is opened or any thread exists; the first process waits for the child's word on a
// pipe: "serving", or the one sentence that it prints before it exits with 1.
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "manager/superblock.h"
#include "tools/cli.h"
#include "tools/mount_daemon.h"
#include "tools/mount_point.h"
#include "tools/remount.h"
#include "util/log.h"
#include "util/oom_score.h"

namespace rmemfs {
namespace {

constexpr const char* kProgram = "rmemfs";
constexpr char kServing = '\0';  // the child's good news; anything else is the beginning of a sentence

Result<std::string> absolute(const std::string& path, const char* what) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr) return Error(errc_from_errno(errno), what, path);
  return std::string(resolved);
}

Result<void> check_directory(MountJob& job) {
  struct stat st;
  if (::stat(job.directory.c_str(), &st) != 0) {
    if (errno != ENOENT || !job.local_bytes) {
      return Error(errc_from_errno(errno), "metadata directory", job.directory);
    }
    if (::mkdir(job.directory.c_str(), 0700) != 0) {
      return Error(errc_from_errno(errno), "metadata directory", job.directory);
    }
  } else if (!S_ISDIR(st.st_mode)) {
    return Error(Errc::kNotDirectory, "metadata directory", job.directory);
  }
  ASSIGN_OR_RETURN(job.directory, absolute(job.directory, "metadata directory"));
  // Said now rather than by the child, and before a private memory node is started.
  auto superblock = load_superblock(job.directory);
  if (!superblock.ok() && !(job.local_bytes && superblock.error().code == Errc::kNotFormatted)) {
    return superblock.error();
  }
  if (superblock.ok() && job.local_bytes && superblock->local_bytes != 0 &&
      superblock->local_bytes != *job.local_bytes) {
    cli::print_error(kProgram, "note: " + job.directory + " was made with --local " +
                                   cli::exact_size(superblock->local_bytes) + ", and keeps that size");
  }
  return {};
}

// fusermount3 allows an ordinary user's allow_other only where the administrator does.
Result<void> check_allow_other(const MountOptions& options) {
  if (!options.allow_other || ::geteuid() == 0) return {};
  std::ifstream config("/etc/fuse.conf");
  std::string line;
  while (std::getline(config, line)) {
    line.erase(0, line.find_first_not_of(" \t"));
    if (line.starts_with("user_allow_other")) return {};
  }
  return Error(Errc::kInvalid, "", "allow_other needs the line user_allow_other in /etc/fuse.conf");
}

Result<void> check(MountJob& job) {
  RETURN_IF_ERROR(check_allow_other(job.options));
  RETURN_IF_ERROR(check_mountpoint(job.mountpoint, job.options.replace_stale));
  ASSIGN_OR_RETURN(job.mountpoint, absolute(job.mountpoint, "mount point"));
  RETURN_IF_ERROR(check_directory(job));
  if (job.mountpoint == job.directory || job.directory.starts_with(job.mountpoint + "/")) {
    return Error(Errc::kInvalid, "", "mount point " + job.mountpoint + " would hide the metadata directory");
  }
  return {};
}

Result<void> set_up_log(const MountOptions& options, bool foreground) {
  LogTarget target = foreground ? LogTarget::kStderr : LogTarget::kSyslog;
  switch (options.log) {
    case LogChoice::kDefault:
      // Lines on standard error would all have one priority there.
      if (foreground && stderr_is_journal() && log_setup(kProgram, LogTarget::kJournal, options.debug).ok()) return {};
      break;
    case LogChoice::kStderr:
      target = LogTarget::kStderr;
      break;
    case LogChoice::kSyslog:
      target = LogTarget::kSyslog;
      break;
    case LogChoice::kJournal:
      target = LogTarget::kJournal;
      break;
    case LogChoice::kFile:
      target = LogTarget::kFile;
      break;
  }
  return log_setup(kProgram, target, options.debug, options.log_path);
}

// Runs in the child of the fork. `report` is the pipe to the waiting parent.
int run_child(const MountJob& job, int report) {
  // Nothing of the caller's is kept: session, directory, descriptors.
  ::setsid();
  if (::chdir("/") != 0) return 1;
  if (report > 3) ::close_range(3, static_cast<unsigned>(report) - 1, 0);
  ::close_range(static_cast<unsigned>(report) + 1, ~0U, 0);
  ::umask(077);
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ::dup2(null, STDIN_FILENO);
  ::dup2(null, STDOUT_FILENO);
  // What libfuse and fusermount3 say is kept for the parent's one sentence.
  const int said = ::memfd_create("stderr", MFD_CLOEXEC);
  ::dup2(said, STDERR_FILENO);
  bool serving = false;
  Result<void> result = set_up_log(job.options, false);
  if (result.ok()) {
    result = run_mount(job, [&] {
      serving = true;
      [[maybe_unused]] auto written = ::write(report, &kServing, 1);
      ::close(report);
      ::dup2(null, STDERR_FILENO);
    });
  }
  if (result.ok()) return 0;
  std::string sentence = cli::sentence_of(result.error());
  if (serving) {
    log::error("{}", sentence);
    return 1;
  }
  char extra[512];
  const ssize_t length = ::pread(said, extra, sizeof extra, 0);
  if (length > 0) {
    std::string text(extra, static_cast<std::size_t>(length));
    sentence += " (" + text.substr(0, text.find('\n')) + ")";
  }
  [[maybe_unused]] auto written = ::write(report, sentence.data(), sentence.size());
  return 1;
}

int run_background(const MountJob& job) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return cli::fail(kProgram, Error(errc_from_errno(errno), "pipe"));
  const pid_t child = ::fork();
  if (child < 0) return cli::fail(kProgram, Error(errc_from_errno(errno), "fork"));
  if (child == 0) {
    ::close(ends[0]);
    return run_child(job, ends[1]);
  }
  ::close(ends[1]);
  std::string word;
  char buffer[1024];
  ssize_t got;
  while ((got = ::read(ends[0], buffer, sizeof buffer)) > 0 || (got < 0 && errno == EINTR)) {
    if (got > 0) word.append(buffer, static_cast<std::size_t>(got));
    if (!word.empty() && word[0] == kServing) return 0;
  }
  cli::print_error(kProgram, word.empty() ? "the mount daemon died before it served" : word);
  return cli::kFailure;
}

int main_of(int argc, char** argv) {
  CLI::App app("Mounts a file system whose bytes live in the memory of other machines.");
  cli::prepare(app, kProgram);
  MountJob job;
  std::optional<std::uint64_t> local;
  bool foreground = false, debug = false;
  std::vector<std::string> option_texts;
  cli::add_size(app, "--local", local, "Make what is missing and start a private memory node of this size");
  app.add_option("-o", option_texts, "Mount options, separated by commas; see rmemfs(8)")->allow_extra_args(false);
  app.add_flag("-f,--foreground", foreground, "Stay in the foreground, log to standard error");
  app.add_flag("-d,--debug", debug, "Log more");
  app.add_option("DIR", job.directory, "Metadata directory")->required();
  app.add_option("MOUNTPOINT", job.mountpoint, "Where to mount")->required();
  if (auto status = cli::parse(app, argc, argv)) return *status;

  job.local_bytes = local;
  for (const std::string& text : option_texts) {
    auto parsed = parse_mount_options(text, job.options);
    if (!parsed.ok()) return cli::fail(kProgram, parsed.error(), cli::kUsage);
  }
  job.options.debug |= debug;
  if (job.options.remount) {
    const auto remounted = remount(job.directory, job.mountpoint, job.options);
    return remounted.ok() ? 0 : cli::fail(kProgram, remounted.error());
  }
  if (job.options.log == LogChoice::kStderr && !foreground) {
    cli::print_error(kProgram, "log=stderr is for -f: in the background there is no standard error");
    return cli::kUsage;
  }
  auto checked = check(job);
  if (!checked.ok()) return cli::fail(kProgram, checked.error());
  if (!job.options.oom_score) {
    protect_from_oom();
  } else if (const auto set = set_oom_score(*job.options.oom_score); !set.ok()) {
    return cli::fail(kProgram, set.error());
  }
  job.service = ServiceManager::from_environment();
  // A terminal that is gone ends what ran on it; a daemon's SIGHUP is for its log.
  job.hangup_ends = foreground && job.options.log != LogChoice::kFile && ::isatty(STDERR_FILENO) != 0;

  // Ended helpers (fusermount3, a private rmemd) leave no zombies.
  ::signal(SIGCHLD, SIG_IGN);
  if (!foreground) return run_background(job);
  Result<void> result = set_up_log(job.options, true);
  if (result.ok()) result = run_mount(job, [] {});
  return result.ok() ? 0 : cli::fail(kProgram, result.error());
}

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) { return rmemfs::main_of(argc, argv); }
