// Administration of a running mount: what rmemctl asks, over gRPC on the unix socket DIR/admin.sock.
// Plain structs here, protobuf inside control/. The socket's permissions (0600) are the access control.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "util/result.h"

namespace rmemfs {

struct AdminNode {
  std::uint32_t id = 0;
  std::string address, health, durability;
  std::uint64_t pool_bytes = 0, free_bytes = 0, leased_bytes = 0, used_bytes = 0, lost_bytes = 0, chunks = 0;
  double seconds_since_answer = 0;  // infinity: it has not answered since the mount
};

struct AdminStatus {
  std::string uuid, directory, mountpoint, version, state;  // state: "serving", "fenced", "read-only"
  std::string reason;                                       // of a state that is not "serving"; a sentence
  std::string survives;                                     // one line: what a returned fsync survives
  std::uint64_t pid = 0, epoch = 0, lanes = 0;
  std::uint64_t total_bytes = 0, free_bytes = 0, inodes = 0, lost_bytes = 0;
  double uptime_seconds = 0;
};

using AdminCounters = std::vector<std::pair<std::string, double>>;  // "journal.transactions" -> 17; names are stable

// What the mount provides; called on gRPC's threads, must not block for long.
struct AdminHandlers {
  std::function<AdminStatus()> status;
  std::function<AdminCounters()> counters;
  std::function<std::vector<AdminNode>()> nodes;
  std::function<std::vector<std::string>()> lost_files;  // may read metadata; bounded by the caller's deadline
  // The mount's flags are about to be these (mount(2)), or have just become so. An error: they must not.
  std::function<Result<void>(unsigned long mount_flags)> remount;
};

class AdminServer {
 public:
  // Listens on DIR/admin.sock (a stale one is replaced; long paths are handled).
  static Result<std::unique_ptr<AdminServer>> start(const std::string& directory, AdminHandlers handlers);
  virtual ~AdminServer() = default;  // stops within a second
};

class AdminClient {
 public:
  // kNotFound when nothing is mounted from `directory`.
  static Result<std::unique_ptr<AdminClient>> connect(const std::string& directory);
  virtual ~AdminClient() = default;
  virtual Result<AdminStatus> status(std::uint32_t timeout_ms) = 0;
  virtual Result<AdminCounters> counters(std::uint32_t timeout_ms) = 0;
  virtual Result<std::vector<AdminNode>> nodes(std::uint32_t timeout_ms) = 0;
  virtual Result<std::vector<std::string>> lost_files(std::uint32_t timeout_ms) = 0;
  virtual Result<void> remount(unsigned long mount_flags, std::uint32_t timeout_ms) = 0;
};

}  // namespace rmemfs
