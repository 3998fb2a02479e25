// What is at a mount point before and after a mount: whether it can be mounted on, a stale mount there, and detaching
// one. Nothing here waits for a mount that does not answer. Main thread only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tools/mounts.h"
#include "util/result.h"

namespace rmemfs {

// A clear sentence for a mount point that cannot work, before anything is started. A stale rmemfs mount there (its
// daemon is dead) is detached when `replace_stale`; programs that are still in it go on getting ENOTCONN.
Result<void> check_mountpoint(const std::string& mountpoint, bool replace_stale);

enum class Detach {
  kClean,  // kBusy when files are open there
  kLazy,   // what is open goes on until it is closed
  kForce,  // what is open, or waits for the daemon, ends with an error
};

// Detaches an rmemfs mount: itself as root, by fusermount3 for others. kDeadline: it has not ended in time.
Result<void> detach(const MountEntry& mount, Detach how, std::uint32_t timeout_ms);

// Whether a process is stopped (SIGSTOP, a debugger).
bool is_stopped(int pid);
// A process's name; empty: it has ended.
std::string name_of(int pid);

}  // namespace rmemfs
