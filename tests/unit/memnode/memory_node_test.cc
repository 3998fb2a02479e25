#include <atomic>
#include <boost/test/unit_test.hpp>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>

#include "memnode/memory_node.h"
#include "tests/unit/memnode/fixture.h"

namespace rmemfs::test {
namespace {

// Notes what the node asks of a target, and looks at the pool in that moment. The node asks from any thread.
class NotingTarget final : public Target {
 public:
  void adopt(UniqueFd) override {}
  void end_sessions(const Uuid& file_system, MountEpoch epoch) override {
    std::lock_guard lock(mutex);
    ended.emplace_back(file_system, epoch);
  }
  void quiesce() override {
    ++quiesced;
    if (on_quiesce) on_quiesce();
  }
  std::size_t connections() const override { return 0; }

  std::mutex mutex;
  std::vector<std::pair<Uuid, MountEpoch>> ended;  // guarded by mutex while other threads run
  std::atomic<int> quiesced{0};
  std::function<void()> on_quiesce;
};

struct World {
  std::unique_ptr<Pool> pool = open_pool(pool_at(""));
  MemoryNode node{*pool};
  NotingTarget target;
  FileSystemIdentity who = identity(5);
  World() { node.set_targets({&target}); }
  LeasedRegion lease(std::uint64_t length = 8192) {
    auto region = node.lease(who, length, 4096, 9, "test");
    BOOST_REQUIRE(region.ok());
    return *region;
  }
  FileSystemIdentity with_epoch(std::uint64_t epoch) const { return {who.uuid, who.key, MountEpoch(epoch)}; }
};

template <typename T>
void check_error(const Result<T>& result, Errc code) {
  BOOST_REQUIRE(!result.ok());
  BOOST_TEST(name(result.error().code) == name(code));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(memory_node)

BOOST_AUTO_TEST_CASE(a_lease_is_listed_described_and_opened) {
  World world;
  const LeasedRegion region = world.lease();
  BOOST_TEST((region.generation == world.pool->generation()));
  BOOST_TEST(region.tag == 9u);
  const auto list = world.node.list(world.who, "test");
  BOOST_REQUIRE(list.ok());
  BOOST_REQUIRE(list->size() == 1u);
  BOOST_TEST((list->front().id == region.id));
  BOOST_TEST(list->front().key.matches(region.key));
  const auto description = world.node.describe();
  BOOST_REQUIRE(description.ok());
  BOOST_TEST(description->regions == 1u);
  BOOST_TEST(description->free_bytes == description->pool_bytes - region.length_bytes);
  const auto open = world.node.open_region(world.who.uuid, region.id, region.generation, region.key);
  BOOST_REQUIRE(open.ok());
  BOOST_TEST((*open)->memory.size() == region.length_bytes);
  BOOST_TEST((*open)->pool_offset == region.address);
  BOOST_TEST(!(*open)->revoked());
}

BOOST_AUTO_TEST_CASE(lengths_are_cut_to_whole_pages_between_the_minimum_and_the_length) {
  World world;
  const auto region = world.node.lease(world.who, 10'000, 5'000, 0, "test");
  BOOST_REQUIRE(region.ok());
  BOOST_TEST(region->length_bytes == 8192u);
  check_error(world.node.lease(world.who, 4095, 1, 0, "test"), Errc::kInvalid);
  check_error(world.node.lease(world.who, 4096, 8192, 0, "test"), Errc::kInvalid);
  check_error(world.node.lease(world.who, 8000, 5000, 0, "test"), Errc::kInvalid);
  check_error(world.node.lease(world.who, 1 << 30, 1 << 29, 0, "test"), Errc::kNoSpace);
  const auto rest = world.node.lease(world.who, UINT64_MAX, 0, 0, "test");
  BOOST_REQUIRE(rest.ok());
  BOOST_TEST(rest->length_bytes == kSmallPool - 8192);
  check_error(world.node.lease(world.who, 4096, 4096, 0, "test"), Errc::kNoSpace);
}

BOOST_AUTO_TEST_CASE(a_wrong_key_is_refused_everywhere) {
  World world;
  const LeasedRegion region = world.lease();
  FileSystemIdentity thief = world.who;
  thief.key = AccessKey::random();
  thief.epoch = MountEpoch(100);
  check_error(world.node.lease(thief, 4096, 4096, 0, "thief"), Errc::kRefused);
  check_error(world.node.release(thief, region.id, "thief"), Errc::kRefused);
  check_error(world.node.list(thief, "thief"), Errc::kRefused);
  check_error(world.node.fence(thief, "thief"), Errc::kRefused);
  check_error(world.node.admit({thief.uuid, thief.epoch, 0}, thief.key), Errc::kRefused);
  check_error(world.node.open_region(thief.uuid, region.id, region.generation, thief.key), Errc::kRefused);
  BOOST_TEST((world.pool->find_file_system(world.who.uuid)->epoch == MountEpoch(5)));
}

BOOST_AUTO_TEST_CASE(another_file_systems_region_is_refused) {
  World world;
  const LeasedRegion region = world.lease();
  const FileSystemIdentity other = identity();
  check_error(world.node.release(other, region.id, "other"), Errc::kRefused);
  check_error(world.node.open_region(other.uuid, region.id, region.generation, region.key), Errc::kRefused);
}

BOOST_AUTO_TEST_CASE(an_older_epoch_is_fenced_everywhere_and_older_sessions_end_first) {
  World world;
  const LeasedRegion region = world.lease();
  world.target.ended.clear();
  BOOST_REQUIRE(world.node.fence(world.with_epoch(6), "test").ok());
  BOOST_REQUIRE(!world.target.ended.empty());
  BOOST_TEST((world.target.ended.back() == std::pair(world.who.uuid, MountEpoch(6))));
  check_error(world.node.lease(world.who, 4096, 4096, 0, "old"), Errc::kFenced);
  check_error(world.node.release(world.who, region.id, "old"), Errc::kFenced);
  check_error(world.node.list(world.who, "old"), Errc::kFenced);
  check_error(world.node.fence(world.who, "old"), Errc::kFenced);
  check_error(world.node.admit({world.who.uuid, world.who.epoch, 0}, world.who.key), Errc::kFenced);
  BOOST_TEST(world.node.fence(world.with_epoch(6), "test").ok());
  const auto word = world.node.epoch_word_offset(world.who.uuid);
  BOOST_REQUIRE(word.ok());
  std::uint64_t epoch;
  std::memcpy(&epoch, world.pool->bytes().data() + *word, sizeof epoch);
  BOOST_TEST(epoch == 6u);
}

BOOST_AUTO_TEST_CASE(a_stream_with_a_newer_epoch_raises_it) {
  World world;
  (void)world.lease();
  BOOST_REQUIRE(world.node.admit({world.who.uuid, MountEpoch(9), 0}, world.who.key).ok());
  BOOST_TEST((world.target.ended.back() == std::pair(world.who.uuid, MountEpoch(9))));
  check_error(world.node.fence(world.with_epoch(8), "test"), Errc::kFenced);
}

BOOST_AUTO_TEST_CASE(a_release_revokes_waits_zeroes_and_only_then_frees) {
  World world;
  const LeasedRegion region = world.lease(kSmallPool);
  const auto open = world.node.open_region(world.who.uuid, region.id, region.generation, region.key);
  BOOST_REQUIRE(open.ok());
  std::memset((*open)->memory.data(), 0x77, (*open)->memory.size());
  bool looked = false;
  world.target.on_quiesce = [&] {
    looked = true;
    BOOST_TEST((*open)->revoked());
    BOOST_TEST(((*open)->memory[0] == std::byte{0x77}));  // zeroed after this
    BOOST_TEST(world.pool->free_bytes() == 0u);
    check_error(world.node.open_region(world.who.uuid, region.id, region.generation, region.key), Errc::kRegionLost);
    // A late operation's bytes must not survive either.
    (*open)->memory[17] = std::byte{0x78};
  };
  BOOST_REQUIRE(world.node.release(world.who, region.id, "test").ok());
  BOOST_TEST(looked);
  BOOST_TEST(world.target.quiesced == 1);
  const FileSystemIdentity other = identity();
  const auto theirs = world.node.lease(other, kSmallPool, kSmallPool, 0, "other");
  BOOST_REQUIRE(theirs.ok());
  BOOST_TEST((theirs->id != region.id));
  BOOST_TEST(all_zero(world.pool->bytes().subspan(theirs->address, theirs->length_bytes)));
}

BOOST_AUTO_TEST_CASE(a_file_system_without_regions_is_forgotten_and_its_sessions_end) {
  World world;
  const LeasedRegion region = world.lease();
  check_error(world.node.forget(world.who, "test"), Errc::kBusy);
  FileSystemIdentity thief = world.who;
  thief.key = AccessKey::random();
  check_error(world.node.forget(thief, "thief"), Errc::kRefused);
  BOOST_REQUIRE(world.node.release(world.who, region.id, "test").ok());
  check_error(world.node.forget(thief, "thief"), Errc::kRefused);
  BOOST_REQUIRE(world.node.fence(world.with_epoch(6), "test").ok());
  check_error(world.node.forget(world.who, "old"), Errc::kFenced);
  BOOST_TEST(world.pool->find_file_system(world.who.uuid).has_value());
  world.target.ended.clear();
  BOOST_REQUIRE(world.node.forget(world.with_epoch(6), "test").ok());
  BOOST_TEST(!world.pool->find_file_system(world.who.uuid).has_value());
  BOOST_REQUIRE(world.target.ended.size() == 1u);
  BOOST_TEST((world.target.ended[0] == std::pair(world.who.uuid, MountEpoch(UINT64_MAX))));
  BOOST_TEST(world.node.forget(world.with_epoch(6), "again").ok());
}

BOOST_AUTO_TEST_CASE(releasing_again_succeeds_and_releasing_what_never_was_does_not) {
  World world;
  const LeasedRegion region = world.lease();
  BOOST_TEST(world.node.release(world.who, region.id, "test").ok());
  BOOST_TEST(world.node.release(world.who, region.id, "test").ok());
  check_error(world.node.release(world.who, RegionId(12345), "test"), Errc::kNotFound);
}

BOOST_AUTO_TEST_CASE(another_generation_is_a_lost_region) {
  World world;
  const LeasedRegion region = world.lease();
  check_error(world.node.open_region(world.who.uuid, region.id, region.generation.next(), region.key),
              Errc::kRegionLost);
}

BOOST_AUTO_TEST_CASE(an_unknown_file_system_lists_nothing_and_leaves_no_trace) {
  World world;
  const FileSystemIdentity who = identity();
  const auto list = world.node.list(who, "test");
  BOOST_REQUIRE(list.ok());
  BOOST_TEST(list->empty());
  BOOST_TEST(!world.pool->find_file_system(who.uuid));
  check_error(world.node.epoch_word_offset(who.uuid), Errc::kNotFound);
}

BOOST_AUTO_TEST_CASE(more_file_systems_than_the_table_holds_push_out_idle_ones_only) {
  World world;
  const LeasedRegion region = world.lease();
  for (std::uint32_t i = 0; i < kFileSystemSlots + 50; ++i) {
    BOOST_REQUIRE(world.node.fence(identity(), "test").ok());
  }
  const auto list = world.node.list(world.who, "test");
  BOOST_REQUIRE(list.ok());
  BOOST_REQUIRE(list->size() == 1u);
  BOOST_TEST((list->front().id == region.id));
}

BOOST_AUTO_TEST_CASE(leases_and_releases_by_many_threads_never_share_a_byte) {
  World world;
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&world, &wrong, t] {
      const FileSystemIdentity me = identity();
      for (int i = 0; i < 100; ++i) {
        const auto region = world.node.lease(me, 16384, 4096, 0, "t");
        if (!region.ok()) continue;
        const auto memory = world.pool->bytes().subspan(region->address, region->length_bytes);
        if (!all_zero(memory)) ++wrong;
        std::memset(memory.data(), t + 1, memory.size());
        for (std::byte b : memory) wrong += b != std::byte(t + 1);
        if (!world.node.release(me, region->id, "t").ok()) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  BOOST_TEST(wrong == 0);
  BOOST_TEST(world.pool->free_bytes() == kSmallPool);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
