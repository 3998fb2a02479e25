// A mounted file system: the FUSE session, its lanes, and their end.
//
// Life: mount() -> serve() -> [the kernel ends it, or unmount()] -> drain() -> destroyed.
// Threads: the main thread only; the callbacks run on lanes.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fs/file_operations.h"
#include "fs/fuse_adapter.h"
#include "fs/fuse_lane.h"
#include "util/result.h"

namespace rmemfs {

struct FuseMountOptions {
  std::string source;  // shown by findmnt
  std::string mountpoint;
  unsigned long flags = 0;  // mount(2)'s, such as MS_NOSUID
  bool allow_other = false;
  std::vector<std::string> contexts;  // SELinux's, such as context="..."; mount(2)'s as they are
  unsigned lanes = 0;                 // 0: one per core that the process may use
  PollMode poll = PollMode::kAdaptive;
  unsigned spin_us = 0;
  std::shared_ptr<LocalMemory> local_memory = std::make_shared<LocalMemory>();  // learns of the request buffers
  FuseAdapterOptions adapter;
};

class FuseMount {
 public:
  // The lanes exist from here on (their connections can be found), the mount appears with mount().
  FuseMount(const FuseMountOptions& options, ConnectionFactory factory);
  ~FuseMount();

  // Called on a lane. Set before serve().
  std::function<void()> on_serving;  // the kernel's INIT is answered
  std::function<void()> on_ended;    // unmounted, or the connection was aborted

  Result<void> mount(FileOperations& files);
  void serve();  // starts the lanes
  // Detaches the mount point, also when files are open; what is open goes on until it is closed.
  void unmount();
  // Whether every lane takes up what it is given, within the time. Blocks. From serve() to drain().
  bool lanes_run(std::uint32_t within_ms);
  // Waits until every request is answered and every purge is done, at most until `deadline`, and ends the lanes. New
  // requests are not read any more. False if something was still under way.
  bool drain(TimePoint deadline);

  std::size_t lane_count() const { return lane_count_; }
  ConnectionSet* connections(std::uint32_t lane);
  Executor& executor(std::uint32_t lane) { return *lanes_.at(lane); }
  // Sums over the lanes, by counter. Any thread, from serve() to drain().
  std::uint64_t counter(Counter counter) const;

 private:
  // Attaches by mount(2); the descriptor of the connection. kNotPermitted: only fusermount3 may.
  Result<UniqueFd> attach() const;
  // What libfuse, which lets an ordinary user's fusermount3 attach, is to be told.
  Result<std::string> options_for_user() const;
  Result<UniqueFd> clone_device() const;
  // A lane uses a chunk for the first time: the others connect to its node and find the region as well, as long as it
  // answers. A frozen node then stops no lane's I/O over shm and RDMA.
  void prepare_lanes(const Chunk& chunk);

  const FuseMountOptions options_;
  const ConnectionFactory factory_;
  std::size_t lane_count_ = 0;
  FileOperations* files_ = nullptr;
  std::unique_ptr<FuseAdapter> adapter_;
  fuse_session* session_ = nullptr;
  bool mounted_ = false;
  bool by_user_ = false;  // fusermount3 attached it
  std::vector<std::unique_ptr<FuseLane>> lanes_;
};

}  // namespace rmemfs
