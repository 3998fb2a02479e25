// VerbsDomain: what the queue pairs of one file system on one device may reach at a node: a protection domain, and the
// regions that are registered in it. A key of this domain is worth nothing on a queue pair of another file system.
//
// Invariants:
//   D1  A region is registered when a session first attaches it, with remote write and atomics only when it may be
//       written, and deregistered before drop_revoked() returns once it was revoked.
//   D2  A region that is revoked while it is being registered is not handed out: registering looks at revoked() after
//       the region is in the table, and again when it is done, and drop_revoked() waits for it.
//
// Thread-safe. attach() blocks while memory is pinned: pieces are registered by several threads, and the log tells how
// far it is when that takes long.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "transport/target.h"
#include "transport/verbs_device.h"
#include "transport/verbs_format.h"

namespace rmemfs {

class VerbsDomain {
 public:
  // `piece_bytes`: the longest single registration, a power of two; less where the device allows less.
  static Result<std::shared_ptr<VerbsDomain>> make(ibv_context* context, std::uint64_t piece_bytes);

  ibv_pd* pd() const { return pd_.get(); }
  const ibv_device_attr& attributes() const { return attributes_; }
  std::uint64_t instance() const { return instance_; }                        // random: its keys are good for it alone
  Result<MemoryRegistration> register_messages(std::span<std::byte> memory);  // a queue pair's own

  // Where the region is; ok is set, the id is the caller's. kRegionLost, kNoMemory, kNotSupported.
  Result<verbs::Reply> attach(RegionId id, const std::shared_ptr<TargetRegion>& region);
  bool empty() const;  // no region is registered
  // No operation of a queue pair of this domain on a revoked region is under way when it returns, or ever again.
  void drop_revoked();

 private:
  struct Registered {
    std::shared_ptr<TargetRegion> region;
    bool forming = false;
    std::vector<MemoryRegistration> pieces;
    verbs::Reply place;
  };
  VerbsDomain(ibv_context* context, std::uint64_t piece_bytes) : context_(context), piece_bytes_(piece_bytes) {}
  Result<void> form(RegionId id, TargetRegion& region, std::vector<MemoryRegistration>& pieces, verbs::Reply& place);

  // Constant after construction.
  ibv_context* const context_;
  const std::uint64_t piece_bytes_;
  ibv_device_attr attributes_{};
  ProtectionDomain pd_;
  std::uint64_t instance_ = 0;

  // Not a Mutex: it is waited on while others register.
  mutable std::mutex mutex_;
  std::condition_variable formed_;
  std::unordered_map<RegionId, Registered> regions_;  // guarded by mutex_
};

}  // namespace rmemfs
