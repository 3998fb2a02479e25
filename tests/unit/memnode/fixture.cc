#include "tests/unit/memnode/fixture.h"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <filesystem>

namespace rmemfs::test {

ShmDirectory::ShmDirectory() {
  char name[] = "/dev/shm/rmemfs-test-XXXXXX";
  BOOST_REQUIRE(::mkdtemp(name) != nullptr);
  path_ = name;
}
ShmDirectory::~ShmDirectory() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

FileSystemIdentity identity(std::uint64_t epoch) { return {Uuid::random(), AccessKey::random(), MountEpoch(epoch)}; }

PoolOptions pool_at(const std::string& path, std::uint64_t size) {
  PoolOptions options;
  options.path = path;
  options.data_bytes = size;
  return options;
}

std::unique_ptr<Pool> open_pool(const PoolOptions& options) {
  Result<std::unique_ptr<Pool>> pool = Pool::open(options);
  BOOST_REQUIRE_MESSAGE(pool.ok(), (pool.ok() ? "" : pool.error().message()));
  return std::move(*pool);
}

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace rmemfs::test
