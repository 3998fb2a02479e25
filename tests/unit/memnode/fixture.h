// What the tests of the memory node share: a place for pools, identities, and looking at memory.
#pragma once

#include <span>
#include <string>

#include "control/node_client.h"
#include "memnode/pool.h"

namespace rmemfs::test {

// A directory in /dev/shm that goes with all that is in it.
class ShmDirectory {
 public:
  ShmDirectory();
  ~ShmDirectory();
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline constexpr std::uint64_t kSmallPool = 256 << 10;

FileSystemIdentity identity(std::uint64_t epoch = 1);
PoolOptions pool_at(const std::string& path, std::uint64_t size = kSmallPool);
std::unique_ptr<Pool> open_pool(const PoolOptions& options);  // fails the test when it cannot
bool all_zero(std::span<const std::byte> bytes);

}  // namespace rmemfs::test
