// The options of a mount, as `-o a,b=c` gives them: rmemfs's own, the kernel's, and those that mount(8) keeps for
// itself. Pure functions; never print.
#pragma once

#include <sys/mount.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/fuse_lane.h"
#include "manager/manager.h"
#include "tools/node_transport.h"
#include "util/result.h"

namespace rmemfs {

// The choice in mount(2)'s flags, of a new mount or of one that was remounted. A read-only mount changes nothing.
AccessTimes access_times_of(unsigned long mount_flags);

// mount(2)'s flags (MS_NOSUID, ...), as far as words were given for them: the later word holds.
struct MountFlags {
  unsigned long set = 0, cleared = 0;
  unsigned long over(unsigned long flags) const { return (flags & ~cleared) | set; }
};

enum class LogChoice { kDefault, kStderr, kSyslog, kJournal, kFile };

struct MountOptions {
  unsigned lanes = 0;  // 0: one per core
  PollMode poll = PollMode::kAdaptive;
  std::uint32_t spin_us = 0;
  std::uint32_t deadline_ms = 10000;
  bool sync_commit = false;
  std::uint32_t commit_ms = 1000;
  std::optional<std::uint64_t> cache_bytes;
  double attribute_timeout_s = 3600;
  double entry_timeout_s = 3600;
  TransportChoice transport = TransportChoice::kAuto;
  bool require_persistent = false;
  bool degraded = false;
  bool allow_other = false;
  bool extended = true, access_lists = true;
  bool debug = false;
  bool remount = false;        // change the flags of a mount that is there; nothing else
  bool replace_stale = false;  // a mount at the mount point whose daemon is dead goes first
  std::optional<int> oom_score;
  LogChoice log = LogChoice::kDefault;
  std::string log_path;  // for kFile
  MountFlags flags;
  std::vector<std::string>
      contexts;  // SELinux's, such as context="system_u:object_r:tmp_t:s0", for mount(2) as they are

  bool read_only() const { return (flags.set & MS_RDONLY) != 0; }
  unsigned long mount_flags() const { return flags.over(MS_NOSUID | MS_NODEV); }
};

// Adds what `text` says; a comma between double quotes is part of a value. kInvalid with a sentence that names the
// option.
Result<void> parse_mount_options(std::string_view text, MountOptions& options);

// "500" and "500ms" are milliseconds, "10s" seconds; 1 ms to one day.
Result<std::uint32_t> parse_milliseconds(std::string_view name, std::string_view text);

}  // namespace rmemfs
