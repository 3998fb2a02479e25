// The mount daemon: from a metadata directory to a served mount, and back.
//
// States: locked -> recovered -> nodes fenced (Manager::open) -> mounted -> serving -> ending -> closed.
// Whatever fails before "serving" is returned as one Error, with everything taken down again.
// Runs on the main thread, which waits for signals and for the mount's end.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "tools/local_node.h"
#include "tools/mount_options.h"
#include "util/result.h"

namespace rmemfs {

struct MountJob {
  std::string directory;   // absolute
  std::string mountpoint;  // absolute
  MountOptions options;
  std::optional<std::uint64_t> local_bytes;  // --local: make what is missing
};

// Clear sentences for a directory or mount point that cannot work, before anything is started.
Result<void> check_mountpoint(const std::string& mountpoint);

// Blocks until the mount has ended. `on_serving` is called once, when the mount serves. An error after that (another
// mount took over) is returned too.
Result<void> run_mount(const MountJob& job, const std::function<void()>& on_serving);

}  // namespace rmemfs
