// Pool: the memory that a node lends, with its regions and the file systems that know it.
//
// Its tables live in the memory itself (pool_format.h), and every change leaves them valid after each single store, so
// a node killed at any instruction finds a sound pool. Regions: free -> leased -> dirty -> (zeroed) -> free.
// Thread-safe; takes Mutex kAllocator. Zeroing runs outside it. Blocks on fdatasync only for pmem: on an ordinary file.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "memnode/pool_memory.h"
#include "memnode/region_allocator.h"
#include "util/ids.h"
#include "util/mutex.h"
#include "util/result.h"

namespace rmemfs {

struct PoolRegion {
  RegionId id;
  Uuid file_system;
  AccessKey key;
  std::uint64_t offset = 0;  // in the pool's file
  std::uint64_t length = 0;
  std::uint64_t tag = 0;
};

struct PoolFileSystem {
  AccessKey key;
  MountEpoch epoch;
};

class Pool {
 public:
  // Finds the pool at options.path again, or makes a new one. Dirty regions are zeroed before it returns.
  // Errors of PoolMemory::open; kCorrupt and kChecksum when the tables are damaged (nothing is changed then).
  static Result<std::unique_ptr<Pool>> open(const PoolOptions& options);

  // Constant after open().
  Uuid uuid() const { return uuid_; }
  Generation generation() const { return generation_; }
  bool adopted() const { return adopted_; }
  std::uint64_t data_bytes() const { return memory_->layout().data_bytes; }
  DurabilityDescriptor durability() const { return memory_->durability(); }
  std::span<std::byte> bytes() const { return memory_->bytes(); }
  int fd() const { return memory_->fd(); }
  const std::string& path() const { return memory_->path(); }
  Result<void> persist(std::uint64_t offset, std::uint64_t length);

  std::uint64_t free_bytes() const;
  std::size_t region_count() const;

  std::optional<PoolFileSystem> find_file_system(const Uuid& uuid) const;
  std::uint64_t epoch_word_offset(const Uuid& uuid) const;  // the file system is there
  // kTooMany when the table is full.
  Result<void> add_file_system(const Uuid& uuid, const AccessKey& key, MountEpoch epoch);
  // An epoch only grows: a lower one changes nothing.
  Result<void> raise_epoch(const Uuid& uuid, MountEpoch epoch);
  // A file system without regions, to make room in the table; none when each has some.
  std::optional<Uuid> find_idle_file_system() const;
  Result<void> forget_file_system(const Uuid& uuid);  // kBusy while it has regions

  // The file system is there. kNoSpace, kTooMany (region table full). `length` and `minimum` are whole pages.
  Result<PoolRegion> lease(const Uuid& file_system, std::uint64_t length, std::uint64_t minimum, std::uint64_t tag);
  // Leased only. `was_given` is true for an id that was ever given out.
  std::optional<PoolRegion> find_region(RegionId id) const;
  bool was_given(RegionId id) const;
  std::vector<PoolRegion> regions_of(const Uuid& file_system) const;
  // leased -> dirty: from here on nobody may find it. kNotFound.
  Result<void> begin_release(RegionId id);
  // dirty -> zeroed -> free. The caller has made sure that no operation on it is under way.
  Result<void> finish_release(RegionId id);

 private:
  struct Live {
    std::uint32_t slot;
    PoolRegion region;
    RegionState state;
  };
  explicit Pool(std::unique_ptr<PoolMemory> memory);
  Result<void> format();
  Result<void> adopt();

  PoolSuperblock& superblock() const;
  FileSystemEntry& file_system_entry(std::uint32_t slot) const;
  RegionEntry& region_entry(std::uint32_t slot) const;
  Result<void> store(std::uint64_t& word, std::uint64_t value);  // one ordered 8-byte store

  const std::unique_ptr<PoolMemory> memory_;
  Uuid uuid_;
  Generation generation_;
  bool adopted_ = false;

  mutable Mutex mutex_{LockRank::kAllocator};
  // Guarded by mutex_, as are the tables in the memory.
  RegionAllocator allocator_;
  std::map<Uuid, std::uint32_t> file_systems_;  // -> slot
  std::unordered_map<RegionId, Live> regions_;
  std::vector<std::uint32_t> free_file_system_slots_;  // the lowest is the last
  std::vector<std::uint32_t> free_region_slots_;
};

}  // namespace rmemfs
