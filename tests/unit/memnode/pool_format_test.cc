#include <boost/test/unit_test.hpp>
#include <cstring>
#include <functional>
#include <vector>

#include "memnode/pool_tables.h"
#include "tests/unit/memnode/fixture.h"

namespace rmemfs::test {
namespace {

// The bytes of a pool with two file systems and three regions, the last of them dirty.
struct Image {
  std::vector<std::byte> bytes;
  Image() {
    const auto pool = open_pool(pool_at(""));
    for (int i = 0; i < 2; ++i) {
      const auto who = identity();
      BOOST_REQUIRE(pool->add_file_system(who.uuid, who.key, who.epoch).ok());
      for (int j = 0; j <= i; ++j) BOOST_REQUIRE(pool->lease(who.uuid, 8192, 8192, 0).ok());
    }
    BOOST_REQUIRE(pool->begin_release(RegionId(3)).ok());
    bytes.assign(pool->bytes().begin(), pool->bytes().end());
  }
  PoolSuperblock& superblock() { return *reinterpret_cast<PoolSuperblock*>(bytes.data()); }
  FileSystemEntry& file_system(std::size_t i) {
    return reinterpret_cast<FileSystemEntry*>(bytes.data() + superblock().file_systems_offset)[i];
  }
  RegionEntry& region(std::size_t i) {
    return reinterpret_cast<RegionEntry*>(bytes.data() + superblock().regions_offset)[i];
  }
  Result<PoolTables> read() { return read_pool_tables(bytes, bytes.size()); }
};

void check_refused(Errc code, const std::function<void(Image&)>& change) {
  Image image;
  change(image);
  const auto tables = image.read();
  BOOST_REQUIRE(!tables.ok());
  BOOST_TEST(name(tables.error().code) == name(code));
}

template <typename Entry>
void seal(Entry& entry) {
  entry.crc = checksum(entry);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(pool_format)

BOOST_AUTO_TEST_CASE(a_sound_pool_is_read) {
  Image image;
  const auto tables = image.read();
  BOOST_REQUIRE(tables.ok());
  BOOST_TEST(tables->file_systems.size() == 2u);
  BOOST_REQUIRE(tables->regions.size() == 3u);
  BOOST_TEST((tables->regions[2].state == RegionState::kDirty));
}

BOOST_AUTO_TEST_CASE(a_damaged_superblock_is_refused) {
  check_refused(Errc::kNotFormatted, [](Image& i) { i.superblock().magic ^= 1; });
  check_refused(Errc::kVersion, [](Image& i) { i.superblock().version = 2; });
  check_refused(Errc::kChecksum, [](Image& i) { i.superblock().generation ^= 1; });
  const std::function<void(PoolSuperblock&)> corrupt[] = {
      [](PoolSuperblock& s) { s.generation = 0; },
      [](PoolSuperblock& s) { s.persistent = 2; },
      [](PoolSuperblock& s) { s.reserved[100] = std::byte{1}; },
      [](PoolSuperblock& s) { s.data_bytes += 4096; },
      [](PoolSuperblock& s) { s.data_bytes = UINT64_MAX; },
      [](PoolSuperblock& s) { s.region_slots = UINT64_MAX / 128; },
      [](PoolSuperblock& s) { s.regions_offset = UINT64_MAX - 100; },
      [](PoolSuperblock& s) { s.file_systems_offset = 0; },
      [](PoolSuperblock& s) { s.data_offset = 0; },
      [](PoolSuperblock& s) { s.file_bytes += 4096; },
  };
  for (const auto& change : corrupt) {
    check_refused(Errc::kCorrupt, [&](Image& i) {
      change(i.superblock());
      seal(i.superblock());
    });
  }
  check_refused(Errc::kCorrupt, [](Image& i) { i.superblock().next_region = 0; });
  check_refused(Errc::kCorrupt, [](Image& i) { i.bytes.resize(100); });
  check_refused(Errc::kCorrupt, [](Image& i) { i.bytes.resize(i.bytes.size() - 4096); });
}

BOOST_AUTO_TEST_CASE(unknown_feature_bits_follow_the_rule) {
  check_refused(Errc::kUnsupportedFeature, [](Image& i) {
    i.superblock().incompat_features = 1u << 31;
    seal(i.superblock());
  });
  check_refused(Errc::kUnsupportedFeature, [](Image& i) {
    i.superblock().ro_compat_features = 1;
    seal(i.superblock());
  });
  Image image;
  image.superblock().compat_features = 1;
  seal(image.superblock());
  BOOST_TEST(image.read().ok());
}

BOOST_AUTO_TEST_CASE(a_damaged_file_system_entry_is_refused) {
  check_refused(Errc::kCorrupt, [](Image& i) { i.file_system(0).state = 2; });
  check_refused(Errc::kChecksum, [](Image& i) { i.file_system(1).key[0] ^= std::byte{1}; });
  check_refused(Errc::kCorrupt, [](Image& i) { i.file_system(1).reserved[75] = std::byte{1}; });
  check_refused(Errc::kCorrupt, [](Image& i) { i.file_system(1) = i.file_system(0); });
  check_refused(Errc::kCorrupt, [](Image& i) {
    i.file_system(0).uuid = {};
    seal(i.file_system(0));
  });
}

BOOST_AUTO_TEST_CASE(a_damaged_region_entry_is_refused) {
  check_refused(Errc::kCorrupt, [](Image& i) { i.region(0).state = 3; });
  check_refused(Errc::kChecksum, [](Image& i) { i.region(0).length += 4096; });
  check_refused(Errc::kCorrupt, [](Image& i) { i.region(0).reserved[0] = std::byte{1}; });
  const std::function<void(Image&, RegionEntry&)> corrupt[] = {
      [](Image&, RegionEntry& r) { r.id = 0; },
      [](Image& i, RegionEntry& r) { r.id = i.superblock().next_region; },
      [](Image& i, RegionEntry& r) { r.id = i.region(1).id; },
      [](Image&, RegionEntry& r) { r.generation ^= 1; },
      [](Image& i, RegionEntry& r) { r.offset = i.region(1).offset + 4096; },
      [](Image&, RegionEntry& r) { r.offset = kSmallPool - 4096; },
      [](Image&, RegionEntry& r) { r.offset = UINT64_MAX - 4095; },
      [](Image&, RegionEntry& r) { r.length = UINT64_MAX - 4095; },
      [](Image&, RegionEntry& r) { r.length = 0; },
      [](Image&, RegionEntry& r) { r.offset += 1; },
      [](Image&, RegionEntry& r) { r.file_system[0] ^= std::byte{1}; },
  };
  for (const auto& change : corrupt) {
    check_refused(Errc::kCorrupt, [&](Image& i) {
      change(i, i.region(0));
      seal(i.region(0));
    });
  }
}

BOOST_AUTO_TEST_CASE(rubbish_in_a_free_entry_does_not_count) {
  Image image;
  std::memset(reinterpret_cast<std::byte*>(&image.region(500)) + 8, 0xee, sizeof(RegionEntry) - 8);
  std::memset(reinterpret_cast<std::byte*>(&image.file_system(500)) + 16, 0xee, sizeof(FileSystemEntry) - 16);
  BOOST_TEST(image.read().ok());
}

BOOST_AUTO_TEST_CASE(a_large_pools_data_begins_on_a_huge_page) {
  for (const std::uint64_t size : {std::uint64_t{64} << 20, std::uint64_t{4} << 30, std::uint64_t{1} << 40}) {
    const auto layout = PoolLayout::make(size, kPoolPage);
    BOOST_REQUIRE(layout.ok());
    BOOST_TEST(layout->data_offset % kHugePage == 0u);
    BOOST_TEST(layout->data_offset + size <= layout->file_bytes);
    BOOST_TEST(layout->regions_offset + layout->region_slots * sizeof(RegionEntry) <= layout->data_offset);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
