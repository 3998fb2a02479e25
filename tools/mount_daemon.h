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
#include "util/service_manager.h"

namespace rmemfs {

struct MountJob {
  std::string directory;   // absolute
  std::string mountpoint;  // absolute
  MountOptions options;
  std::optional<std::uint64_t> local_bytes;  // --local: make what is missing
  bool hangup_ends = false;                  // SIGHUP ends it, and does not only open the log again
  ServiceManager service;                    // is told of the mount's life
};

// Blocks until the mount has ended. `on_serving` is called once, when the mount serves. An error after that (another
// mount took over) is returned too.
Result<void> run_mount(const MountJob& job, const std::function<void()>& on_serving);

}  // namespace rmemfs
