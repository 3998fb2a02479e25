// The bytes behind a pool: an anonymous memory file, a file in /dev/shm or on hugetlbfs, or persistent memory.
//
// A new file is formed under PATH.forming and gets its name by publish(), so a node killed in between leaves nothing
// that looks like a pool. Its room is reserved when it is made: no store into it can fail later with SIGBUS. One
// process holds a pool at a time (flock). Thread-safety: as memory; open and publish by one thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "memnode/pool_format.h"
#include "transport/connection.h"
#include "util/pmem.h"
#include "util/result.h"
#include "util/unique_fd.h"

namespace rmemfs {

// Of anonymous memory. Huge pages make registering for RDMA and every device's look-ups cheaper; kAuto falls back.
enum class Hugepages : std::uint8_t { kAuto, kOff, k2M, k1G };

struct PoolOptions {
  std::string path;                       // empty: anonymous
  bool persistent = false;                // `path` is mapped by libpmem
  bool forced = false;                    // `persistent` also on a file system in memory, to try it: survives nothing
  std::uint64_t data_bytes = 0;           // to lend; 0: what the existing pool has
  Hugepages hugepages = Hugepages::kOff;  // kInvalid with a path: its file system decides, and persistent memory itself
  std::function<void()> after_persist;    // tests look at the bytes here; the pool's lock may be held
};

class PoolMemory {
 public:
  // kInvalid (no size for a new pool, or another size than the pool has), kNotSupported (persistent, on a file system
  // in memory), kExists (PATH is not a pool), kLocked, kNoSpace, kNoMemory, and what check_superblock returns. The
  // detail says all of it.
  static Result<std::unique_ptr<PoolMemory>> open(const PoolOptions& options);
  ~PoolMemory();
  PoolMemory(const PoolMemory&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }
  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }  // empty: anonymous
  bool fresh() const { return fresh_; }              // all zeros, to be formatted
  const PoolLayout& layout() const { return layout_; }
  DurabilityDescriptor durability() const;
  bool keeps_contents() const { return persistent_; }  // over a restart of the host

  // Stores made before this call come before those made after it, also for whoever finds the memory after our death;
  // on persistent memory they are persistent when it returns. kLocalIo.
  Result<void> persist(const void* address, std::size_t length);
  Result<void> zero(std::uint64_t offset, std::uint64_t length);
  // Gives a fresh, formatted file its name. kLocked when another node was faster.
  Result<void> publish();

 private:
  PoolMemory() = default;
  static Result<std::unique_ptr<PoolMemory>> open_anonymous(const PoolOptions& options);
  static Result<std::unique_ptr<PoolMemory>> open_anonymous(const PoolOptions& options, std::uint64_t page_bytes);
  static Result<std::unique_ptr<PoolMemory>> open_existing(const PoolOptions& options, UniqueFd fd);
  static Result<std::unique_ptr<PoolMemory>> open_new(const PoolOptions& options);
  Result<void> take(UniqueFd locked, const std::string& path);
  Result<void> map(const std::string& path, std::uint64_t size);

  std::string path_, forming_;
  // The file is open twice: `fd_` is mapped and handed to same-host agents, whose copies outlive this process, and a
  // flock lives as long as any copy of the descriptor that it was taken on. So the lock has one of its own.
  UniqueFd lock_, fd_;
  std::unique_ptr<PersistentMemory> pmem_;
  std::span<std::byte> bytes_;
  PoolLayout layout_;
  bool fresh_ = false, persistent_ = false;
  bool punches_ = false;  // released memory goes back to the host
  std::function<void()> after_persist_;
};

// The host's boot id: memory that is not persistent keeps nothing across its change. Zeros when it cannot be read.
std::array<std::byte, 16> host_boot_id();

}  // namespace rmemfs
