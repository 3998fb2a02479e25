// The options of a mount, as `-o a,b=c` gives them: rmemfs's own, the kernel's, and those that mount(8) keeps for
// itself. Pure functions; never print.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/fuse_lane.h"
#include "tools/node_transport.h"
#include "util/result.h"

namespace rmemfs {

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
  bool read_only = false;
  bool allow_other = false;
  bool debug = false;
  std::string log_path;             // empty: syslog, or standard error in the foreground
  std::vector<std::string> kernel;  // passed on to libfuse as they are
};

// Adds what `text` says. kInvalid with a sentence that names the option.
Result<void> parse_mount_options(std::string_view text, MountOptions& options);

// "500" and "500ms" are milliseconds, "10s" seconds; 1 ms to one day.
Result<std::uint32_t> parse_milliseconds(std::string_view name, std::string_view text);

}  // namespace rmemfs
