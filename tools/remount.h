// `mount -o remount`: changes the flags of a mount that is there, in the kernel and in its daemon. Main thread only.
#pragma once

#include <string>

#include "tools/mount_options.h"
#include "util/result.h"

namespace rmemfs {

// The flags are those of a first mount with these options (mount(8) repeats the words of the mount that are to stay),
// but for access times, which stay without a word of theirs. What is no flag of mount(2) stays as it is. Read-only: the
// kernel writes back what it has first, and refuses while files are open for writing (kBusy); then the daemon refuses
// changes, too. Read and write: the daemon says first whether it can. Blocks, for the deadline and a few seconds.
Result<void> remount(const std::string& directory, const std::string& mountpoint, const MountOptions& options);

}  // namespace rmemfs
