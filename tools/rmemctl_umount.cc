// rmemctl umount: ends a mount, and says when its daemon has let go of the file system. The mount itself is never
// touched, so that neither a frozen daemon nor a frozen memory node can hold this up.
#include <signal.h>

#include <algorithm>
#include <thread>

#include "manager/superblock.h"
#include "tools/cli.h"
#include "tools/mount_point.h"
#include "tools/rmemctl_commands.h"
#include "util/clock.h"

namespace rmemfs {
namespace {

constexpr const char* kProgram = "rmemctl";
constexpr std::uint32_t kGraceMs = 1000;  // for the daemon of an aborted connection to end by itself
constexpr std::uint32_t kKillMs = 2000;   // from SIGKILL to a process's end

// Whether the daemon has let go of the directory, within the time. A stopped one is not waited for.
bool let_go(const std::string& directory, int daemon, std::uint32_t within_ms, bool also_stopped) {
  const TimePoint deadline = deadline_after_ms(within_ms);
  for (;;) {
    const auto holder = lock_holder(directory);
    if (!holder || holder->pid != daemon) return true;
    if (MonoClock::now() >= deadline || (!also_stopped && is_stopped(daemon))) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace

void UmountCommand::add_to(CLI::App& app) {
  command_ = app.add_subcommand("umount", "End a mount; with --force also when its daemon or a node hangs");
  command_->add_flag("--force", force_,
                     "What waits for the mount ends with an error, and a daemon that hangs is killed");
  command_->add_flag("--lazy", lazy_, "What is open goes on until it is closed");
  command_->add_option("--timeout", timeout_ms_, "Give up after this many milliseconds")
      ->type_name("MS")
      ->check(CLI::Range(1, 3'600'000))
      ->capture_default_str();
  command_->add_option("target", place_, "Mount point, or the file system's directory")->type_name("PLACE");
  command_->allow_extras();
}

int UmountCommand::run() {
  if (place_.empty() || (force_ && lazy_)) {
    cli::print_error(kProgram, place_.empty() ? "umount needs a mount point, or a file system's directory"
                                              : "of --force and --lazy only one");
    return cli::kUsage;
  }
  const auto mount = mount_of(place_);
  if (!mount) {
    cli::print_error(kProgram, place_ + ": no rmemfs is mounted there");
    return kNothingMounted;
  }
  const auto holder = lock_holder(mount->directory);
  const int daemon = holder ? holder->pid : 0;
  const Detach how = force_ ? Detach::kForce : lazy_ ? Detach::kLazy : Detach::kClean;
  if (const auto detached = detach(*mount, how, timeout_ms_); !detached.ok()) {
    const Error& error = detached.error();
    if (error.code == Errc::kBusy) {
      cli::print_error(kProgram, mount->mountpoint + " is in use; close what is open there (fuser -m " +
                                     mount->mountpoint + "), or give --lazy or --force");
      return cli::kFailure;
    }
    if (error.code == Errc::kDeadline) {
      cli::print_error(kProgram, mount->mountpoint + " is not unmounted after " + std::to_string(timeout_ms_) +
                                     " ms: its daemon does not answer; give --force");
      return kNoAnswer;
    }
    cli::print_error(kProgram, error);
    return status_of(error);
  }
  // What is open goes on, and the daemon with it; one that is dead has let go long ago.
  if (lazy_ || daemon == 0 ||
      let_go(mount->directory, daemon, force_ ? std::min(timeout_ms_, kGraceMs) : timeout_ms_, false))
    return 0;
  const std::string pid = std::to_string(daemon);
  if (!force_) {
    cli::print_error(kProgram, mount->mountpoint + " is unmounted, but its daemon, pid " + pid + ", " +
                                   (is_stopped(daemon) ? "is stopped (kill -CONT " + pid + ")" : "has not ended yet"));
    return kNoAnswer;
  }
  // As a crash: what was acknowledged is in the journal, and the next mount finds it.
  // Only an rmemfs: what a lock file says may be anybody's text.
  if (name_of(daemon) == "rmemfs") ::kill(daemon, SIGKILL);
  if (let_go(mount->directory, daemon, kKillMs, true)) return 0;
  cli::print_error(kProgram, "the daemon, pid " + pid + ", does not end even when killed");
  return kNoAnswer;
}

}  // namespace rmemfs
