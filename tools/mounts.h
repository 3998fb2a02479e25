// Which rmemfs mounts there are, from /proc/self/mountinfo. Never touches the mounts themselves: a dead one could hang.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "util/result.h"

namespace rmemfs {

struct MountEntry {
  std::string mountpoint;
  std::string directory;  // the mount's source: the file system's directory
};

// The rmemfs mounts in the text of a mountinfo file (proc_pid_mountinfo(5)), octal escapes decoded.
std::vector<MountEntry> parse_mountinfo(std::string_view text);

// The file system's directory for a mount point, a directory itself, or, for "", the only mount there is.
// kNotFound: nothing is mounted. kInvalid: several are and none was named. The detail is the whole sentence.
Result<std::string> find_directory(const std::string& place);

}  // namespace rmemfs
