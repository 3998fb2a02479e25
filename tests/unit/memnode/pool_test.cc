#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <boost/test/unit_test.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/unit/memnode/fixture.h"

namespace rmemfs::test {

BOOST_AUTO_TEST_SUITE(pool)

BOOST_AUTO_TEST_CASE(a_new_pool_lends_all_that_was_asked_and_reads_as_zeros) {
  ShmDirectory directory;
  const auto pool = open_pool(pool_at(directory / "p"));
  BOOST_TEST(!pool->adopted());
  BOOST_TEST(pool->data_bytes() == kSmallPool);
  BOOST_TEST(pool->free_bytes() == kSmallPool);
  const auto who = identity();
  BOOST_REQUIRE(pool->add_file_system(who.uuid, who.key, who.epoch).ok());
  const auto region = pool->lease(who.uuid, kSmallPool, kSmallPool, 1);
  BOOST_REQUIRE(region.ok());
  BOOST_TEST(all_zero(pool->bytes().subspan(region->offset, region->length)));
  BOOST_TEST((pool->lease(who.uuid, 4096, 4096, 2).error().code == Errc::kNoSpace));
}

BOOST_AUTO_TEST_CASE(a_pool_found_again_has_its_regions_generation_and_bytes) {
  ShmDirectory directory;
  const auto who = identity(7);
  Generation generation;
  PoolRegion region;
  {
    const auto pool = open_pool(pool_at(directory / "p"));
    generation = pool->generation();
    BOOST_REQUIRE(pool->add_file_system(who.uuid, who.key, who.epoch).ok());
    BOOST_REQUIRE(pool->raise_epoch(who.uuid, MountEpoch(9)).ok());
    BOOST_REQUIRE(pool->raise_epoch(who.uuid, MountEpoch(8)).ok());  // changes nothing
    region = *pool->lease(who.uuid, 65536, 4096, 42);
    std::memset(pool->bytes().data() + region.offset, 0x5a, region.length);
  }
  for (const std::uint64_t size : {kSmallPool, std::uint64_t{0}}) {
    const auto pool = open_pool(pool_at(directory / "p", size));
    BOOST_TEST(pool->adopted());
    BOOST_TEST((pool->generation() == generation));
    const auto found = pool->find_file_system(who.uuid);
    BOOST_REQUIRE(found);
    BOOST_TEST((found->epoch == MountEpoch(9)));
    BOOST_TEST(found->key.matches(who.key));
    const auto regions = pool->regions_of(who.uuid);
    BOOST_REQUIRE(regions.size() == 1u);
    BOOST_TEST((regions[0].id == region.id));
    BOOST_TEST(regions[0].key.matches(region.key));
    BOOST_TEST(regions[0].offset == region.offset);
    BOOST_TEST(regions[0].length == region.length);
    BOOST_TEST(regions[0].tag == 42u);
    BOOST_TEST((pool->bytes()[region.offset + region.length - 1] == std::byte{0x5a}));
    BOOST_TEST(pool->free_bytes() == kSmallPool - region.length);
  }
}

BOOST_AUTO_TEST_CASE(an_empty_place_has_another_generation) {
  ShmDirectory directory;
  const Generation first = open_pool(pool_at(directory / "p"))->generation();
  BOOST_REQUIRE(::unlink((directory / "p").c_str()) == 0);
  const Generation second = open_pool(pool_at(directory / "p"))->generation();
  BOOST_TEST((first != second));
  BOOST_TEST((open_pool(pool_at(""))->generation() != open_pool(pool_at(""))->generation()));
}

BOOST_AUTO_TEST_CASE(region_ids_are_never_given_twice_even_after_a_restart) {
  ShmDirectory directory;
  const auto who = identity();
  RegionId last;
  for (int round = 0; round < 5; ++round) {
    const auto pool = open_pool(pool_at(directory / "p"));
    if (round == 0) BOOST_REQUIRE(pool->add_file_system(who.uuid, who.key, who.epoch).ok());
    const auto region = pool->lease(who.uuid, 4096, 4096, 0);
    BOOST_REQUIRE(region.ok());
    BOOST_TEST((region->id > last));
    last = region->id;
    BOOST_REQUIRE(pool->begin_release(last).ok());
    BOOST_REQUIRE(pool->finish_release(last).ok());
    BOOST_TEST(pool->was_given(last));
    BOOST_TEST(!pool->was_given(last.next()));
    BOOST_TEST((pool->begin_release(last).error().code == Errc::kNotFound));
  }
}

BOOST_AUTO_TEST_CASE(released_memory_is_zero_for_the_next_file_system_named_or_anonymous) {
  ShmDirectory directory;
  for (const std::string& path : {directory / "p", std::string()}) {
    const auto pool = open_pool(pool_at(path, 4 << 20));
    const auto first = identity(), second = identity();
    BOOST_REQUIRE(pool->add_file_system(first.uuid, first.key, first.epoch).ok());
    BOOST_REQUIRE(pool->add_file_system(second.uuid, second.key, second.epoch).ok());
    const auto mine = pool->lease(first.uuid, 4 << 20, 4 << 20, 0);
    BOOST_REQUIRE(mine.ok());
    std::memset(pool->bytes().data() + mine->offset, 0xff, mine->length);
    BOOST_REQUIRE(pool->begin_release(mine->id).ok());
    BOOST_TEST((pool->lease(second.uuid, 4096, 4096, 0).error().code == Errc::kNoSpace));
    BOOST_REQUIRE(pool->finish_release(mine->id).ok());
    const auto theirs = pool->lease(second.uuid, 4 << 20, 4 << 20, 0);
    BOOST_REQUIRE(theirs.ok());
    BOOST_TEST(all_zero(pool->bytes().subspan(theirs->offset, theirs->length)));
  }
}

BOOST_AUTO_TEST_CASE(memory_released_but_not_zeroed_is_zeroed_when_the_pool_is_found_again) {
  ShmDirectory directory;
  const auto who = identity();
  PoolRegion region;
  {
    const auto pool = open_pool(pool_at(directory / "p"));
    BOOST_REQUIRE(pool->add_file_system(who.uuid, who.key, who.epoch).ok());
    region = *pool->lease(who.uuid, 65536, 65536, 0);
    std::memset(pool->bytes().data() + region.offset, 0xff, region.length);
    BOOST_REQUIRE(pool->begin_release(region.id).ok());
  }
  const auto pool = open_pool(pool_at(directory / "p"));
  BOOST_TEST(pool->region_count() == 0u);
  BOOST_TEST(pool->free_bytes() == kSmallPool);
  BOOST_TEST(all_zero(pool->bytes().subspan(region.offset, region.length)));
}

BOOST_AUTO_TEST_CASE(a_pool_is_held_by_one_process) {
  ShmDirectory directory;
  const auto pool = open_pool(pool_at(directory / "p"));
  const auto second = Pool::open(pool_at(directory / "p"));
  BOOST_TEST((!second.ok() && second.error().code == Errc::kLocked));
}

BOOST_AUTO_TEST_CASE(a_pool_is_free_again_though_an_agent_still_maps_it) {
  ShmDirectory directory;
  UniqueFd agents;
  {
    const auto pool = open_pool(pool_at(directory / "p"));
    agents.reset(::fcntl(pool->fd(), F_DUPFD_CLOEXEC, 3));  // as passed over a socket
  }
  BOOST_TEST(Pool::open(pool_at(directory / "p")).ok());
}

BOOST_AUTO_TEST_CASE(another_size_is_refused_and_changes_nothing) {
  ShmDirectory directory;
  const Generation generation = open_pool(pool_at(directory / "p"))->generation();
  const auto other = Pool::open(pool_at(directory / "p", kSmallPool * 2));
  BOOST_TEST((!other.ok() && other.error().code == Errc::kInvalid));
  BOOST_TEST((open_pool(pool_at(directory / "p"))->generation() == generation));
}

BOOST_AUTO_TEST_CASE(what_is_no_pool_is_left_alone) {
  ShmDirectory directory;
  for (const std::string& content :
       {std::string("short"), std::string(), std::string(100'000, 'x'), std::string(8192, '\0')}) {
    const std::string path = directory / "file";
    std::ofstream(path, std::ios::trunc) << content;
    const auto pool = Pool::open(pool_at(path));
    BOOST_TEST((!pool.ok() && pool.error().code == Errc::kExists));
    std::ifstream file(path);
    BOOST_TEST((std::string(std::istreambuf_iterator<char>(file), {}) == content));
  }
  BOOST_TEST(!Pool::open(pool_at(directory.path())).ok());  // a directory
}

BOOST_AUTO_TEST_CASE(a_pool_that_does_not_fit_is_refused_and_leaves_nothing) {
  ShmDirectory directory;
  const auto pool = Pool::open(pool_at(directory / "p", std::uint64_t{1} << 44));
  BOOST_REQUIRE(!pool.ok());
  BOOST_TEST((pool.error().code == Errc::kNoSpace || pool.error().code == Errc::kNoMemory));
  BOOST_TEST(pool.error().detail.find("asked") != std::string::npos);
  struct stat status;
  BOOST_TEST(::stat((directory / "p").c_str(), &status) != 0);
  BOOST_TEST(::stat((directory / "p.forming").c_str(), &status) != 0);
  BOOST_TEST((Pool::open(pool_at(directory / "p", 0)).error().code == Errc::kInvalid));
  BOOST_TEST((Pool::open(pool_at(directory / "p", 4097)).error().code == Errc::kInvalid));
  BOOST_TEST((Pool::open(pool_at("", std::uint64_t{1} << 45)).error().code == Errc::kNoMemory));
}

BOOST_AUTO_TEST_CASE(every_page_of_a_new_pool_is_reserved) {
  ShmDirectory directory;
  const auto pool = open_pool(pool_at(directory / "p", 8 << 20));
  struct stat status;
  BOOST_REQUIRE(::stat((directory / "p").c_str(), &status) == 0);
  BOOST_TEST(status.st_blocks * 512 >= status.st_size);
  BOOST_TEST((status.st_mode & 0777) == 0600u);
}

BOOST_AUTO_TEST_CASE(what_a_killed_node_left_half_made_is_used_again) {
  ShmDirectory directory;
  std::ofstream(directory / "p.forming") << std::string(100'000, 'x');
  const auto pool = open_pool(pool_at(directory / "p"));
  BOOST_TEST(all_zero(pool->bytes().last(kSmallPool)));
  struct stat status;
  BOOST_TEST(::stat((directory / "p.forming").c_str(), &status) != 0);
}

BOOST_AUTO_TEST_CASE(an_ordinary_pool_from_before_the_hosts_restart_does_not_count) {
  ShmDirectory directory;
  const auto who = identity();
  Generation generation;
  {
    const auto pool = open_pool(pool_at(directory / "p"));
    generation = pool->generation();
    BOOST_REQUIRE(pool->add_file_system(who.uuid, who.key, who.epoch).ok());
    BOOST_REQUIRE(pool->lease(who.uuid, 4096, 4096, 0).ok());
    auto& superblock = *reinterpret_cast<PoolSuperblock*>(pool->bytes().data());
    superblock.boot[3] ^= std::byte{1};
    superblock.crc = checksum(superblock);
  }
  const auto pool = open_pool(pool_at(directory / "p"));
  BOOST_TEST(!pool->adopted());
  BOOST_TEST((pool->generation() != generation));
  BOOST_TEST(pool->region_count() == 0u);
  BOOST_TEST(!pool->find_file_system(who.uuid));
}

BOOST_AUTO_TEST_CASE(a_persistent_pool_keeps_its_contents_and_its_kind) {
  ShmDirectory directory;
  PoolOptions options = pool_at(directory / "p");
  options.persistent = options.forced = true;
  const auto who = identity();
  PoolRegion region;
  {
    const auto pool = open_pool(options);
    BOOST_TEST((pool->durability() == DurabilityDescriptor{Durability::kPersistent, PersistMethod::kNodeFlush}));
    BOOST_REQUIRE(pool->add_file_system(who.uuid, who.key, who.epoch).ok());
    region = *pool->lease(who.uuid, 8192, 8192, 3);
    std::memset(pool->bytes().data() + region.offset, 1, region.length);
    BOOST_TEST(pool->persist(region.offset, region.length).ok());
    auto& superblock = *reinterpret_cast<PoolSuperblock*>(pool->bytes().data());
    superblock.boot[0] ^= std::byte{1};  // the host restarted
    superblock.crc = checksum(superblock);
  }
  BOOST_TEST((Pool::open(pool_at(directory / "p")).error().code == Errc::kInvalid));
  const auto pool = open_pool(options);
  BOOST_TEST(pool->adopted());
  BOOST_REQUIRE(pool->regions_of(who.uuid).size() == 1u);
  BOOST_TEST((pool->bytes()[region.offset] == std::byte{1}));
}

BOOST_AUTO_TEST_CASE(memory_is_not_taken_for_persistent) {
  ShmDirectory directory;  // on tmpfs
  PoolOptions options = pool_at(directory / "p");
  options.persistent = true;
  const auto refused = [&options] {
    const auto pool = Pool::open(options);
    return !pool.ok() && pool.error().code == Errc::kNotSupported &&
           pool.error().detail.find("tmpfs") != std::string::npos;
  };
  BOOST_TEST(refused());
  BOOST_TEST(!std::filesystem::exists(directory / "p"));
  BOOST_TEST(!std::filesystem::exists(directory / "p.forming"));
  options.forced = true;
  open_pool(options);
  options.forced = false;
  BOOST_TEST(refused());  // nor one that is there already
}

BOOST_AUTO_TEST_CASE(full_tables_say_so_and_idle_file_systems_make_room) {
  const auto pool = open_pool(pool_at("", 8 << 20));
  const auto first = identity();
  BOOST_REQUIRE(pool->add_file_system(first.uuid, first.key, first.epoch).ok());
  for (std::uint32_t i = 1; i < kFileSystemSlots; ++i) {
    BOOST_REQUIRE(pool->add_file_system(Uuid::random(), first.key, first.epoch).ok());
  }
  BOOST_TEST((pool->add_file_system(Uuid::random(), first.key, first.epoch).error().code == Errc::kTooMany));
  BOOST_REQUIRE(pool->lease(first.uuid, 4096, 4096, 0).ok());
  BOOST_TEST((pool->forget_file_system(first.uuid).error().code == Errc::kBusy));
  const auto idle = pool->find_idle_file_system();
  BOOST_REQUIRE(idle);
  BOOST_TEST((*idle != first.uuid));
  BOOST_REQUIRE(pool->forget_file_system(*idle).ok());
  BOOST_TEST(pool->add_file_system(Uuid::random(), first.key, first.epoch).ok());
  for (std::uint32_t i = 1; i < 1024; ++i) BOOST_REQUIRE(pool->lease(first.uuid, 4096, 4096, 0).ok());
  BOOST_TEST((pool->lease(first.uuid, 4096, 4096, 0).error().code == Errc::kTooMany));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
