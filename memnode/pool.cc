// The order of stores, which makes every prefix of them a sound pool (each line ends with persist):
//   new pool        tables are zeros; superblock, all but the magic; magic; the file gets its name
//   file system     epoch, uuid, key, CRC of a free slot; state = used
//   lease           next region id; all fields of a free slot; state = leased
//   release         state = dirty; zeros over its bytes; state = free
// Found again, a dirty region is zeroed once more and freed; a half-written free slot does not count.
#include "memnode/pool.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include "memnode/pool_tables.h"
#include "util/check.h"

namespace rmemfs {
namespace {

std::uint64_t word(RegionState state) { return static_cast<std::uint64_t>(state); }
std::uint64_t word(FileSystemState state) { return static_cast<std::uint64_t>(state); }

}  // namespace

Pool::Pool(std::unique_ptr<PoolMemory> memory)
    : memory_(std::move(memory)), allocator_(memory_->layout().data_bytes, kPoolPage, kHugePage) {}

Result<std::unique_ptr<Pool>> Pool::open(const PoolOptions& options) {
  ASSIGN_OR_RETURN(std::unique_ptr<PoolMemory> memory, PoolMemory::open(options));
  std::unique_ptr<Pool> pool(new Pool(std::move(memory)));
  if (pool->memory_->fresh()) {
    RETURN_IF_ERROR(pool->format());
  } else {
    RETURN_IF_ERROR(pool->adopt());
  }
  return pool;
}

PoolSuperblock& Pool::superblock() const { return *reinterpret_cast<PoolSuperblock*>(memory_->bytes().data()); }
FileSystemEntry& Pool::file_system_entry(std::uint32_t slot) const {
  auto* first = memory_->bytes().data() + memory_->layout().file_systems_offset;
  return reinterpret_cast<FileSystemEntry*>(first)[slot];
}
RegionEntry& Pool::region_entry(std::uint32_t slot) const {
  auto* first = memory_->bytes().data() + memory_->layout().regions_offset;
  return reinterpret_cast<RegionEntry*>(first)[slot];
}

Result<void> Pool::store(std::uint64_t& target, std::uint64_t value) {
  std::atomic_ref<std::uint64_t>(target).store(value, std::memory_order_seq_cst);
  return memory_->persist(&target, sizeof target);
}

Result<void> Pool::format() {
  const PoolLayout& layout = memory_->layout();
  uuid_ = Uuid::random();
  std::uint64_t generation = 0;
  while (generation == 0) {
    fill_random(reinterpret_cast<std::byte*>(&generation), sizeof generation);
    generation >>= 16;  // 48 bits: short enough to read aloud, and no two pools of a cluster share one by chance
  }
  generation_ = Generation(generation);
  PoolSuperblock s{};
  s.magic = kPoolMagic;
  s.version = kPoolVersion;
  s.uuid = uuid_.bytes;
  s.generation = generation;
  s.persistent = memory_->keeps_contents() ? 1 : 0;
  s.file_bytes = layout.file_bytes;
  s.file_systems_offset = layout.file_systems_offset;
  s.regions_offset = layout.regions_offset;
  s.region_slots = layout.region_slots;
  s.data_offset = layout.data_offset;
  s.data_bytes = layout.data_bytes;
  s.boot = host_boot_id();
  s.crc = checksum(s);
  s.next_region = 1;
  s.magic = 0;
  std::memcpy(&superblock(), &s, sizeof s);
  RETURN_IF_ERROR(memory_->persist(&superblock(), sizeof s));
  RETURN_IF_ERROR(store(superblock().magic, kPoolMagic));
  RETURN_IF_ERROR(memory_->publish());
  for (std::uint32_t slot = kFileSystemSlots; slot-- > 0;) free_file_system_slots_.push_back(slot);
  for (auto slot = static_cast<std::uint32_t>(layout.region_slots); slot-- > 0;) free_region_slots_.push_back(slot);
  return success();
}

Result<void> Pool::adopt() {
  Result<PoolTables> tables = read_pool_tables(memory_->bytes(), memory_->bytes().size());
  if (!tables.ok()) return tables.error();
  uuid_ = Uuid{superblock().uuid};
  generation_ = Generation(superblock().generation);
  adopted_ = true;
  std::vector<bool> used(kFileSystemSlots);
  for (const PoolTables::FileSystem& row : tables->file_systems) {
    file_systems_.emplace(row.uuid, row.slot);
    used[row.slot] = true;
  }
  for (std::uint32_t slot = kFileSystemSlots; slot-- > 0;) {
    if (!used[slot]) free_file_system_slots_.push_back(slot);
  }
  used.assign(memory_->layout().region_slots, false);
  for (const PoolTables::Region& row : tables->regions) {
    const RegionEntry& entry = region_entry(row.slot);
    const std::uint64_t offset = memory_->layout().data_offset + entry.offset;
    CHECK(allocator_.take_exactly({entry.offset, entry.length}));  // read_pool_tables saw that they do not overlap
    used[row.slot] = true;
    regions_.emplace(RegionId(entry.id), Live{row.slot,
                                              {RegionId(entry.id), Uuid{entry.file_system}, AccessKey{entry.key},
                                               offset, entry.length, entry.tag},
                                              row.state});
  }
  for (auto slot = static_cast<std::uint32_t>(used.size()); slot-- > 0;) {
    if (!used[slot]) free_region_slots_.push_back(slot);
  }
  std::vector<RegionId> dirty;
  for (const auto& [id, live] : regions_) {
    if (live.state == RegionState::kDirty) dirty.push_back(id);
  }
  for (const RegionId id : dirty) RETURN_IF_ERROR(finish_release(id));
  return success();
}

Result<void> Pool::persist(std::uint64_t offset, std::uint64_t length) {
  return memory_->persist(memory_->bytes().data() + offset, length);
}

std::uint64_t Pool::free_bytes() const {
  MutexLock lock(mutex_);
  return allocator_.free_bytes();
}

std::size_t Pool::region_count() const {
  MutexLock lock(mutex_);
  return regions_.size();
}

std::optional<PoolFileSystem> Pool::find_file_system(const Uuid& uuid) const {
  MutexLock lock(mutex_);
  const auto found = file_systems_.find(uuid);
  if (found == file_systems_.end()) return std::nullopt;
  const FileSystemEntry& entry = file_system_entry(found->second);
  return PoolFileSystem{AccessKey{entry.key}, MountEpoch(entry.epoch)};
}

std::uint64_t Pool::epoch_word_offset(const Uuid& uuid) const {
  MutexLock lock(mutex_);
  const auto found = file_systems_.find(uuid);
  CHECK(found != file_systems_.end());
  return memory_->layout().file_systems_offset + found->second * sizeof(FileSystemEntry) +
         offsetof(FileSystemEntry, epoch);
}

Result<void> Pool::add_file_system(const Uuid& uuid, const AccessKey& key, MountEpoch epoch) {
  MutexLock lock(mutex_);
  CHECK(!file_systems_.contains(uuid));
  if (free_file_system_slots_.empty()) return Error(Errc::kTooMany, "pool", "its table of file systems is full");
  const std::uint32_t slot = free_file_system_slots_.back();
  FileSystemEntry& entry = file_system_entry(slot);
  FileSystemEntry fresh{};
  fresh.epoch = epoch.value();
  fresh.state = word(FileSystemState::kFree);
  fresh.uuid = uuid.bytes;
  fresh.key = key.bytes;
  fresh.crc = checksum(fresh);
  std::memcpy(&entry, &fresh, sizeof fresh);
  RETURN_IF_ERROR(memory_->persist(&entry, sizeof entry));
  RETURN_IF_ERROR(store(entry.state, word(FileSystemState::kUsed)));
  free_file_system_slots_.pop_back();
  file_systems_.emplace(uuid, slot);
  return success();
}

Result<void> Pool::raise_epoch(const Uuid& uuid, MountEpoch epoch) {
  MutexLock lock(mutex_);
  const auto found = file_systems_.find(uuid);
  CHECK(found != file_systems_.end());
  FileSystemEntry& entry = file_system_entry(found->second);
  if (entry.epoch >= epoch.value()) return success();
  return store(entry.epoch, epoch.value());
}

std::optional<Uuid> Pool::find_idle_file_system() const {
  MutexLock lock(mutex_);
  std::set<Uuid> busy;
  for (const auto& [id, live] : regions_) busy.insert(live.region.file_system);
  for (const auto& [uuid, slot] : file_systems_) {
    if (!busy.contains(uuid)) return uuid;
  }
  return std::nullopt;
}

Result<void> Pool::forget_file_system(const Uuid& uuid) {
  MutexLock lock(mutex_);
  const auto found = file_systems_.find(uuid);
  if (found == file_systems_.end()) return success();
  for (const auto& [id, live] : regions_) {
    if (live.region.file_system == uuid) return Error(Errc::kBusy, "pool", uuid.to_string());
  }
  RETURN_IF_ERROR(store(file_system_entry(found->second).state, word(FileSystemState::kFree)));
  free_file_system_slots_.push_back(found->second);
  file_systems_.erase(found);
  return success();
}

Result<PoolRegion> Pool::lease(const Uuid& file_system, std::uint64_t length, std::uint64_t minimum,
                               std::uint64_t tag) {
  MutexLock lock(mutex_);
  CHECK(file_systems_.contains(file_system));
  if (free_region_slots_.empty()) return Error(Errc::kTooMany, "pool", "its table of regions is full");
  const std::optional<RegionAllocator::Run> run = allocator_.take(length, minimum);
  if (!run)
    return Error(Errc::kNoSpace, "pool",
                 "the largest free run has " + std::to_string(allocator_.largest_free()) + " bytes");
  const std::uint32_t slot = free_region_slots_.back();
  RegionEntry& entry = region_entry(slot);
  RegionEntry fresh{};
  fresh.state = word(RegionState::kFree);
  fresh.id = superblock().next_region;
  fresh.offset = run->offset;
  fresh.length = run->length;
  fresh.file_system = file_system.bytes;
  fresh.key = AccessKey::random().bytes;
  fresh.tag = tag;
  fresh.generation = generation_.value();
  fresh.crc = checksum(fresh);
  // After a failed persist (a broken medium) the run stays taken: the entry on the medium may count or not.
  RETURN_IF_ERROR(store(superblock().next_region, fresh.id + 1));
  std::memcpy(&entry, &fresh, sizeof fresh);
  RETURN_IF_ERROR(memory_->persist(&entry, sizeof entry));
  RETURN_IF_ERROR(store(entry.state, word(RegionState::kLeased)));
  free_region_slots_.pop_back();
  const PoolRegion region{RegionId(fresh.id),   file_system,
                          AccessKey{fresh.key}, memory_->layout().data_offset + run->offset,
                          run->length,          tag};
  regions_.emplace(region.id, Live{slot, region, RegionState::kLeased});
  return region;
}

std::optional<PoolRegion> Pool::find_region(RegionId id) const {
  MutexLock lock(mutex_);
  const auto found = regions_.find(id);
  if (found == regions_.end() || found->second.state != RegionState::kLeased) return std::nullopt;
  return found->second.region;
}

bool Pool::was_given(RegionId id) const {
  MutexLock lock(mutex_);
  return id.value() != 0 && id.value() < superblock().next_region;
}

std::vector<PoolRegion> Pool::regions_of(const Uuid& file_system) const {
  std::vector<PoolRegion> regions;
  {
    MutexLock lock(mutex_);
    for (const auto& [id, live] : regions_) {
      if (live.state == RegionState::kLeased && live.region.file_system == file_system) regions.push_back(live.region);
    }
  }
  std::sort(regions.begin(), regions.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  return regions;
}

Result<void> Pool::begin_release(RegionId id) {
  MutexLock lock(mutex_);
  const auto found = regions_.find(id);
  if (found == regions_.end() || found->second.state != RegionState::kLeased)
    return Error(Errc::kNotFound, "pool release");
  found->second.state = RegionState::kDirty;
  return store(region_entry(found->second.slot).state, word(RegionState::kDirty));
}

Result<void> Pool::finish_release(RegionId id) {
  PoolRegion region;
  {
    MutexLock lock(mutex_);
    const auto found = regions_.find(id);
    CHECK(found != regions_.end() && found->second.state == RegionState::kDirty);
    region = found->second.region;
  }
  RETURN_IF_ERROR(memory_->zero(region.offset, region.length));
  MutexLock lock(mutex_);
  const auto found = regions_.find(id);
  RETURN_IF_ERROR(store(region_entry(found->second.slot).state, word(RegionState::kFree)));
  free_region_slots_.push_back(found->second.slot);
  regions_.erase(found);
  allocator_.give({region.offset - memory_->layout().data_offset, region.length});
  return success();
}

}  // namespace rmemfs
