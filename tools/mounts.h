// Which rmemfs mounts there are, from /proc/self/mountinfo. Never touches the mounts themselves: a dead one could hang.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "util/result.h"

namespace rmemfs {

struct MountEntry {
  std::string mountpoint;
  std::string directory;    // the mount's source: the file system's directory
  unsigned connection = 0;  // its number under /sys/fs/fuse/connections
  unsigned long flags = 0;  // as mount(2) takes them
};

// The rmemfs mounts in the text of a mountinfo file (proc_pid_mountinfo(5)), octal escapes decoded, in the order of
// mounting.
std::vector<MountEntry> parse_mountinfo(std::string_view text);

// Those that this process sees now.
std::vector<MountEntry> current_mounts();
// What is seen at a mount point, when that is an rmemfs mount, or a symbolic link to one.
std::optional<MountEntry> mount_at(const std::string& mountpoint);
// As mount_at(); or the last mount of a file system's directory.
std::optional<MountEntry> mount_of(const std::string& place);

// Absolute, with the directory above resolved, but not the last name: it may be a mount that does not answer.
std::string resolved_above(const std::string& place);

// The file system's directory for a mount point, a directory itself, or, for "", the only mount there is.
// kNotFound: nothing is mounted. kInvalid: several are and none was named. The detail is the whole sentence.
Result<std::string> find_directory(const std::string& place);

}  // namespace rmemfs
