#include "memnode/memory_node.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <limits>

#include "control/protocol.h"
#include "memnode/pool_memory.h"
#include "util/log.h"

namespace rmemfs {
namespace {

// Half of the host's boot id, which is random: enough to tell two boots apart.
std::uint64_t short_boot_id() {
  const std::array<std::byte, 16> id = host_boot_id();
  std::uint64_t half;
  std::memcpy(&half, id.data(), sizeof half);
  return half;
}

}  // namespace

class MemoryNode::OpenRegion final : public TargetRegion {
 public:
  OpenRegion(Pool& pool, const PoolRegion& region) : pool_(pool) {
    memory = pool.bytes().subspan(region.offset, region.length);
    durability = pool.durability();
    pool_offset = region.offset;
  }
  bool revoked() const override { return revoked_.load(std::memory_order_acquire); }
  void revoke() { revoked_.store(true, std::memory_order_seq_cst); }
  Result<void> persist(std::uint64_t offset, std::uint64_t length) override {
    if (durability.method == PersistMethod::kNone) return success();
    if (offset > memory.size() || length > memory.size() - offset) return Error(Errc::kOutOfBounds, "persist");
    return pool_.persist(pool_offset + offset, length);
  }

 private:
  Pool& pool_;
  std::atomic<bool> revoked_{false};
};

LeasedRegion MemoryNode::describe_region(const PoolRegion& region) const {
  LeasedRegion leased;
  leased.id = region.id;
  leased.generation = pool_.generation();
  leased.key = region.key;
  leased.length_bytes = region.length;
  leased.address = region.offset;
  leased.durability = static_cast<std::uint8_t>(pool_.durability().durability);
  leased.persist_method = static_cast<std::uint8_t>(pool_.durability().method);
  leased.tag = region.tag;
  return leased;
}

void MemoryNode::end_sessions(const Uuid& file_system, MountEpoch epoch) {
  for (Target* target : targets_) target->end_sessions(file_system, epoch);
}

Result<void> MemoryNode::check(const FileSystemIdentity& who, const PoolFileSystem& known, const std::string& peer) {
  if (!known.key.matches(who.key)) {
    if (told_refused_.insert(who.uuid).second) {
      log::warn("{} speaks for file system {} with a wrong key and is refused", peer, who.uuid.to_string());
    }
    return Error(Errc::kRefused, "node");
  }
  if (who.epoch < known.epoch) {
    return Error(
        Errc::kFenced, "node",
        "mount epoch " + std::to_string(who.epoch.value()) + " is older than " + std::to_string(known.epoch.value()));
  }
  return success();
}

Result<void> MemoryNode::record(const FileSystemIdentity& who, std::vector<Uuid>& forgotten) {
  Result<void> added = pool_.add_file_system(who.uuid, who.key, who.epoch);
  if (added.ok() || added.error().code != Errc::kTooMany) return added;
  // A full table makes room at the cost of a file system that has nothing here, and so nothing to protect.
  const std::optional<Uuid> idle = pool_.find_idle_file_system();
  if (!idle) return added;
  RETURN_IF_ERROR(pool_.forget_file_system(*idle));
  told_refused_.erase(*idle);
  forgotten.push_back(*idle);
  return pool_.add_file_system(who.uuid, who.key, who.epoch);
}

Result<void> MemoryNode::enter(const FileSystemIdentity& who, const std::string& peer) {
  std::vector<Uuid> forgotten;
  bool raised = false;
  {
    MutexLock lock(mutex_);
    const std::optional<PoolFileSystem> known = pool_.find_file_system(who.uuid);
    if (known) {
      RETURN_IF_ERROR(check(who, *known, peer));
      raised = who.epoch > known->epoch;
      if (raised) RETURN_IF_ERROR(pool_.raise_epoch(who.uuid, who.epoch));
    } else {
      RETURN_IF_ERROR(record(who, forgotten));
    }
  }
  // Not only when it was raised here: a call that raised it may not have ended the older sessions yet.
  end_sessions(who.uuid, who.epoch);
  for (const Uuid& uuid : forgotten) end_sessions(uuid, MountEpoch(std::numeric_limits<std::uint64_t>::max()));
  if (raised) log::info("file system {} is at mount epoch {}", who.uuid.to_string(), who.epoch.value());
  return success();
}

MemoryNode::MemoryNode(Pool& pool) : pool_(pool), boot_(short_boot_id()) {}

Result<NodeDescription> MemoryNode::describe() {
  NodeDescription description;
  description.protocol_version = kNodeProtocolVersion;
  description.pool = pool_.uuid();
  description.generation = pool_.generation();
  description.pool_bytes = pool_.data_bytes();
  description.free_bytes = pool_.free_bytes();
  description.regions = pool_.region_count();
  description.durability = static_cast<std::uint8_t>(pool_.durability().durability);
  description.persist_method = static_cast<std::uint8_t>(pool_.durability().method);
  description.version = RMEMFS_VERSION;
  description.pid = static_cast<std::uint64_t>(::getpid());
  description.pool_path = pool_.path();
  return description;
}

Result<LeasedRegion> MemoryNode::lease(const FileSystemIdentity& who, std::uint64_t length_bytes,
                                       std::uint64_t minimum_bytes, std::uint64_t tag, const std::string& peer) {
  const std::uint64_t whole = length_bytes / kPoolPage * kPoolPage;
  const std::uint64_t length = std::min(whole, pool_.data_bytes());
  if (minimum_bytes > whole || whole == 0) {
    return Error(Errc::kInvalid, "lease", "no whole pages lie between the minimum and the length");
  }
  const std::uint64_t minimum = minimum_bytes == 0 ? kPoolPage : ((minimum_bytes - 1) / kPoolPage + 1) * kPoolPage;
  if (minimum > length) return Error(Errc::kNoSpace, "lease");
  RETURN_IF_ERROR(enter(who, peer));
  MutexLock lock(mutex_);
  // Between enter() and here a newer mount may have come; the answer must not be given to an older one.
  const std::optional<PoolFileSystem> known = pool_.find_file_system(who.uuid);
  if (!known) return Error(Errc::kBusy, "lease");
  RETURN_IF_ERROR(check(who, *known, peer));
  ASSIGN_OR_RETURN(const PoolRegion region, pool_.lease(who.uuid, length, minimum, tag));
  return describe_region(region);
}

Result<void> MemoryNode::release(const FileSystemIdentity& who, RegionId id, const std::string& peer) {
  RETURN_IF_ERROR(enter(who, peer));
  {
    MutexLock lock(mutex_);
    const std::optional<PoolFileSystem> known = pool_.find_file_system(who.uuid);
    if (!known) return Error(Errc::kBusy, "release");
    RETURN_IF_ERROR(check(who, *known, peer));
    const std::optional<PoolRegion> region = pool_.find_region(id);
    if (!region)
      return pool_.was_given(id) ? success() : Result<void>(Error(Errc::kNotFound, "release", "no such region"));
    if (region->file_system != who.uuid) return Error(Errc::kRefused, "release");
    RETURN_IF_ERROR(pool_.begin_release(id));
    if (const auto open = open_.find(id); open != open_.end()) {
      open->second->revoke();
      open_.erase(open);
    }
  }
  for (Target* target : targets_) target->quiesce();
  return pool_.finish_release(id);
}

Result<std::vector<LeasedRegion>> MemoryNode::list(const FileSystemIdentity& who, const std::string& peer) {
  std::vector<LeasedRegion> list;
  MutexLock lock(mutex_);
  const std::optional<PoolFileSystem> known = pool_.find_file_system(who.uuid);
  if (!known) return list;  // a pool that never met it has nothing of it
  RETURN_IF_ERROR(check(who, *known, peer));
  for (const PoolRegion& region : pool_.regions_of(who.uuid)) list.push_back(describe_region(region));
  return list;
}

Result<void> MemoryNode::fence(const FileSystemIdentity& who, const std::string& peer) { return enter(who, peer); }

Result<void> MemoryNode::forget(const FileSystemIdentity& who, const std::string& peer) {
  {
    MutexLock lock(mutex_);
    const std::optional<PoolFileSystem> known = pool_.find_file_system(who.uuid);
    if (!known) return success();
    RETURN_IF_ERROR(check(who, *known, peer));
    RETURN_IF_ERROR(pool_.forget_file_system(who.uuid));
    told_refused_.erase(who.uuid);
  }
  end_sessions(who.uuid, MountEpoch(std::numeric_limits<std::uint64_t>::max()));
  return success();
}

Result<Generation> MemoryNode::heartbeat() { return pool_.generation(); }

Result<void> MemoryNode::admit(const SessionId& session, const AccessKey& file_system_key) {
  return enter({session.file_system, file_system_key, session.epoch}, "a data stream");
}

Result<std::shared_ptr<TargetRegion>> MemoryNode::open_region(const Uuid& file_system, RegionId id,
                                                              Generation generation, const AccessKey& key) {
  if (generation != pool_.generation()) return Error(Errc::kRegionLost, "region open");
  MutexLock lock(mutex_);
  const std::optional<PoolRegion> region = pool_.find_region(id);
  if (!region) return Error(Errc::kRegionLost, "region open");  // C6: whoever names it had it once
  if (region->file_system != file_system || !region->key.matches(key)) return Error(Errc::kRefused, "region open");
  std::shared_ptr<OpenRegion>& open = open_[id];
  if (open == nullptr) open = std::make_shared<OpenRegion>(pool_, *region);
  return std::shared_ptr<TargetRegion>(open);
}

Result<int> MemoryNode::pool_fd(std::uint64_t& size_bytes) {
  size_bytes = pool_.bytes().size();
  return pool_.fd();
}

Result<std::uint64_t> MemoryNode::epoch_word_offset(const Uuid& file_system) {
  MutexLock lock(mutex_);
  if (!pool_.find_file_system(file_system)) return Error(Errc::kNotFound, "epoch word");
  return pool_.epoch_word_offset(file_system);
}

}  // namespace rmemfs
