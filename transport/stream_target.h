// StreamTarget: the Target over sockets, for tcp (serves operations) and shm (hands out the pool and regions' places in
// it). It spreads streams over its workers; TargetStream has the protocol, SessionTable what concerns several streams.
// Thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "transport/session_table.h"
#include "transport/target.h"
#include "transport/target_worker.h"

namespace rmemfs {

class StreamTarget final : public Target {
 public:
  static Result<std::unique_ptr<Target>> make(TransportKind transport, RegionSource& regions, const Options& options);
  void adopt(UniqueFd stream) override;
  void end_sessions(const Uuid& file_system, MountEpoch epoch) override { table_.end_sessions(file_system, epoch); }
  void quiesce() override { table_.quiesce(); }
  std::size_t connections() const override { return table_.size(); }

 private:
  SessionTable table_;
  std::atomic<std::size_t> next_{0};
  std::vector<std::unique_ptr<TargetWorker>> workers_;  // last: their threads use the table
};

}  // namespace rmemfs
