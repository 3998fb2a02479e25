// Looks at this machine, and asks memory nodes, for rmemctl doctor. Changes nothing here; a node lends 64 KiB to each
// data plane's measurement and has it back (node_ping.h).
//
// One caller; makes a thread for each node. Blocks at most about twice the timeout for the control planes of all nodes
// together, and as long again for each data plane that answers but does not work.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/doctor.h"
#include "util/result.h"

namespace rmemfs {

struct DoctorQuestion {
  std::vector<std::string> places;            // nodes' addresses, metadata directories, mount points
  std::optional<std::uint64_t> memory_bytes;  // that is going to be registered
  std::uint32_t timeout_ms = 5000;
  int stop_fd = -1;  // readable: leave the measurement of nodes early
};

// A place that is neither an address nor a file system: kInvalid, kNotFormatted and load_superblock()'s.
Result<SystemFacts> collect_facts(const DoctorQuestion& question);

// "user_allow_other" on a line of its own, as fusermount3 wants it.
bool allows_other(std::string_view fuse_conf);

}  // namespace rmemfs
