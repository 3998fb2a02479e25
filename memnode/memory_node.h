// MemoryNode: who may use what of the pool. The control plane's calls (NodeService) and the data plane's questions
// (RegionSource) meet here.
//
// Invariants:
//   N1  A file system's key is recorded when it first leases, fences or connects, and every later caller shows it.
//   N2  A file system's epoch only grows, is stored in the pool before anything acts on it, and when fence(), admit()
//   or
//       lease() return for an epoch, no operation of an older session can still land.
//   N3  A region is found by open_region() only while it is leased; its memory is zeroed after every target has
//   finished
//       what it was doing with it, and leased again only after that.
// Any thread. Takes Mutex kChunkMap, then the pool's. Targets are called without a lock held.
#pragma once

#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "control/node_server.h"
#include "memnode/pool.h"
#include "transport/target.h"
#include "util/mutex.h"

namespace rmemfs {

class MemoryNode final : public NodeService, public RegionSource {
 public:
  explicit MemoryNode(Pool& pool);
  // Before the first stream; the targets outlive all calls.
  void set_targets(std::vector<Target*> targets) { targets_ = std::move(targets); }

  Result<NodeDescription> describe() override;
  Result<LeasedRegion> lease(const FileSystemIdentity& who, std::uint64_t length_bytes, std::uint64_t minimum_bytes,
                             std::uint64_t tag, const std::string& peer) override;
  // Releasing again what was released succeeds, so that a lost answer can be asked for again. kNotFound: never leased.
  Result<void> release(const FileSystemIdentity& who, RegionId region, const std::string& peer) override;
  Result<std::vector<LeasedRegion>> list(const FileSystemIdentity& who, const std::string& peer) override;
  Result<void> fence(const FileSystemIdentity& who, const std::string& peer) override;
  Result<void> forget(const FileSystemIdentity& who, const std::string& peer) override;
  Result<Generation> heartbeat() override;

  Result<void> admit(const SessionId& session, const AccessKey& file_system_key) override;
  Result<std::shared_ptr<TargetRegion>> open_region(const Uuid& file_system, RegionId id, Generation generation,
                                                    const AccessKey& key) override;
  Result<int> pool_fd(std::uint64_t& size_bytes) override;
  Result<std::uint64_t> epoch_word_offset(const Uuid& file_system) override;
  std::uint64_t boot() const override { return boot_; }

 private:
  class OpenRegion;

  // Checks key and epoch; records a file system that is new, raises an epoch that is newer and ends what is older.
  Result<void> enter(const FileSystemIdentity& who, const std::string& peer);
  Result<void> check(const FileSystemIdentity& who, const PoolFileSystem& known, const std::string& peer);
  Result<void> record(const FileSystemIdentity& who, std::vector<Uuid>& forgotten);
  void end_sessions(const Uuid& file_system, MountEpoch epoch);
  LeasedRegion describe_region(const PoolRegion& region) const;

  Pool& pool_;
  const std::uint64_t boot_;
  std::vector<Target*> targets_;  // constant once streams come

  Mutex mutex_{LockRank::kChunkMap};
  // Guarded by mutex_.
  std::unordered_map<RegionId, std::shared_ptr<OpenRegion>> open_;  // leased regions that a target has asked for
  std::set<Uuid>
      told_refused_;  // file systems of the pool whose wrong keys are in the log; as many as the pool's table
};

}  // namespace rmemfs
