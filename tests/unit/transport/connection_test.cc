// What every provider promises, run over shm and over tcp against a node with a real socket, and by
// verbs_provider_test over verbs, where there is an RDMA device.
#include <boost/mpl/vector.hpp>
#include <boost/test/unit_test.hpp>

#include <cstring>
#include <numeric>
#include <random>

#include "tests/unit/transport/test_node.h"

namespace rmemfs::test {
namespace {

struct Shm {
  static constexpr TransportKind kind = TransportKind::kShm;
};
struct Tcp {
  static constexpr TransportKind kind = TransportKind::kTcp;
};
struct Verbs {
  static constexpr TransportKind kind = TransportKind::kVerbs;
};
#ifdef RMEMFS_TEST_VERBS
using Providers = boost::mpl::vector<Verbs>;
#else
using Providers = boost::mpl::vector<Shm, Tcp>;
#endif

std::vector<std::byte> pattern(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

constexpr DurabilityDescriptor kNodePersists{Durability::kPersistent, PersistMethod::kNodeFlush};

struct World {
  explicit World(TransportKind kind) : regions(64 << 20), node(kind, regions) {}
  TestRegions regions;
  TestNode node;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(connection)

BOOST_AUTO_TEST_CASE_TEMPLATE(written_bytes_are_read_back_at_every_size, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({.length = 20 << 20});
  Driver driver(world.node.address(), options_for(world.regions));
  for (const std::size_t size : {std::size_t{1}, std::size_t{7}, std::size_t{64}, std::size_t{4096}, std::size_t{16384},
                                 std::size_t{65537}, std::size_t{1} << 20, kMaxOperationBytes}) {
    const auto bytes = pattern(size, size);
    Operation write = write_of(region, 3, bytes.data(), size);
    BOOST_REQUIRE(driver.run(write));
    BOOST_REQUIRE(write.ok);
    BOOST_TEST(std::memcmp(world.regions.memory(region) + 3, bytes.data(), size) == 0);
    std::vector<std::byte> back(size);
    Operation read = read_of(region, 3, back.data(), size);
    BOOST_REQUIRE(driver.run(read));
    BOOST_REQUIRE(read.ok);
    BOOST_TEST((back == bytes));
  }
  const ConnectionStatistics statistics = driver.connection().statistics();
  BOOST_TEST(statistics.reads == 8u);
  BOOST_TEST(statistics.writes == 8u);
  BOOST_TEST(statistics.read_bytes == statistics.written_bytes);
  BOOST_TEST(statistics.failures == 0u);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(compare_swap_swaps_only_the_expected_value, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({});
  Driver driver(world.node.address(), options_for(world.regions));
  Operation first = swap_of(region, 16, 0, 41);
  BOOST_REQUIRE(driver.run(first));
  BOOST_TEST(first.ok);
  BOOST_TEST(first.previous == 0u);
  Operation second = swap_of(region, 16, 0, 42);
  BOOST_REQUIRE(driver.run(second));
  BOOST_TEST(second.ok);
  BOOST_TEST(second.previous == 41u);
  std::uint64_t word;
  std::memcpy(&word, world.regions.memory(region) + 16, 8);
  BOOST_TEST(word == 41u);
  Operation crooked = swap_of(region, 12, 0, 1);
  BOOST_REQUIRE(driver.run(crooked));
  BOOST_TEST(!crooked.ok);
  BOOST_TEST((crooked.error == Errc::kInvalid));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(persist_asks_the_node_only_where_the_region_needs_it, T, Providers) {
  World world(T::kind);
  const RemoteRegion plain = world.regions.lease({});
  const RemoteRegion persistent = world.regions.lease({.durability = kNodePersists});
  Driver driver(world.node.address(), options_for(world.regions));
  Operation nothing = persist_of(plain);
  BOOST_REQUIRE(driver.run(nothing));
  BOOST_TEST(nothing.ok);
  BOOST_TEST(world.regions.persists == 0u);
  Operation asked = persist_of(persistent);
  BOOST_REQUIRE(driver.run(asked));
  BOOST_TEST(asked.ok);
  BOOST_TEST(world.regions.persists == 1u);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(an_operation_says_in_which_boot_of_its_node_it_was_done, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({.durability = kNodePersists});
  Driver driver(world.node.address(), options_for(world.regions));
  std::byte buffer[64] = {};
  world.regions.host_boot = 0x1234567890abcdefu;
  Operation written = write_of(region, 0, buffer, sizeof buffer);
  BOOST_REQUIRE(driver.run(written));
  BOOST_REQUIRE(written.ok);
  world.node.stop();
  world.regions.host_boot = 77;
  world.node.start();
  Operation persisted = persist_of(region);
  BOOST_REQUIRE(driver.run(persisted));
  BOOST_REQUIRE(persisted.ok);
  // Over shm both are on one host, and end together.
  const bool shared = T::kind == TransportKind::kShm;
  BOOST_TEST(written.boot == (shared ? 0u : 0x1234567890abcdefu));
  BOOST_TEST(persisted.boot == (shared ? 0u : 77u));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(bytes_outside_the_region_are_refused, T, Providers) {
  World world(T::kind);
  RemoteRegion region = world.regions.lease({.length = 8192});
  Driver driver(world.node.address(), options_for(world.regions));
  std::vector<std::byte> buffer(16384);
  const std::pair<std::uint64_t, std::size_t> bad[] = {
      {8192, 1}, {8191, 2}, {0, 8193}, {UINT64_MAX, 1}, {UINT64_MAX - 7, 16}};
  for (const bool honest : {true, false}) {
    // An agent that thinks the region larger is told by the node, or by what the node said about the region.
    if (!honest) region.length_bytes = UINT64_MAX;
    for (const auto& [offset, length] : bad) {
      Operation read = read_of(region, offset, buffer.data(), length);
      Operation write = write_of(region, offset, buffer.data(), length);
      BOOST_REQUIRE(driver.run(read));
      BOOST_REQUIRE(driver.run(write));
      BOOST_TEST((!read.ok && read.error == Errc::kOutOfBounds));
      BOOST_TEST((!write.ok && write.error == Errc::kOutOfBounds));
    }
  }
  Operation long_one = read_of(region, 0, buffer.data(), kMaxOperationBytes + 1);
  BOOST_REQUIRE(driver.run(long_one));
  BOOST_TEST((!long_one.ok && long_one.error == Errc::kInvalid));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_wrong_region_key_is_refused_and_the_right_one_still_works, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({});
  RemoteRegion forged = region;
  forged.key = AccessKey::random();
  Driver driver(world.node.address(), options_for(world.regions));
  std::byte buffer[64] = {};
  for (int i = 0; i < 2; ++i) {
    Operation bad = write_of(forged, 0, buffer, sizeof buffer);
    Operation good = write_of(region, 0, buffer, sizeof buffer);
    driver.post(bad);
    driver.post(good);
    BOOST_REQUIRE(driver.drain());
    BOOST_TEST((!bad.ok && bad.error == Errc::kRefused));
    BOOST_TEST(good.ok);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_wrong_file_system_key_fails_everything_at_once, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({});
  ConnectOptions options = options_for(world.regions);
  options.file_system_key = AccessKey::random();
  Driver driver(world.node.address(), options);
  std::byte buffer[64] = {};
  Operation one = write_of(region, 0, buffer, sizeof buffer);
  Operation two = read_of(region, 0, buffer, sizeof buffer);
  const TimePoint before = MonoClock::now();
  driver.post(one);
  driver.post(two);
  BOOST_REQUIRE(driver.drain());
  BOOST_TEST((!one.ok && one.error == Errc::kRefused));
  BOOST_TEST((!two.ok && two.error == Errc::kRefused));
  Operation three = read_of(region, 0, buffer, sizeof buffer);
  BOOST_TEST((driver.connection().post(three) == Posted::kCompleted));
  BOOST_TEST((!three.ok && three.error == Errc::kRefused));
  BOOST_TEST((MonoClock::now() - before < std::chrono::seconds(5)));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(an_older_epoch_is_fenced_at_the_handshake, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({});
  world.regions.raise_epoch(MountEpoch(5));
  Driver driver(world.node.address(), options_for(world.regions, 0, MountEpoch(4)));
  std::byte buffer[64] = {};
  Operation op = write_of(region, 0, buffer, sizeof buffer);
  BOOST_REQUIRE(driver.run(op));
  BOOST_TEST((!op.ok && op.error == Errc::kFenced));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_newer_mount_fences_an_older_one_that_is_connected, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({});
  Driver older(world.node.address(), options_for(world.regions, 0, MountEpoch(1)));
  Driver newer(world.node.address(), options_for(world.regions, 0, MountEpoch(2)));
  const auto ours = pattern(4096, 1), theirs = pattern(4096, 2);
  Operation before = write_of(region, 0, theirs.data(), theirs.size());
  BOOST_REQUIRE(older.run(before));
  BOOST_REQUIRE(before.ok);
  Operation takeover = write_of(region, 0, ours.data(), ours.size());
  BOOST_REQUIRE(newer.run(takeover));
  BOOST_REQUIRE(takeover.ok);
  Operation late = write_of(region, 0, theirs.data(), theirs.size());
  BOOST_REQUIRE(older.run(late));
  BOOST_TEST((!late.ok && late.error == Errc::kFenced));
  BOOST_TEST(std::memcmp(world.regions.memory(region), ours.data(), ours.size()) == 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_read_only_region_is_read_but_not_written, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({.writable = false});
  Driver driver(world.node.address(), options_for(world.regions));
  std::byte buffer[64] = {};
  Operation read = read_of(region, 0, buffer, sizeof buffer);
  Operation write = write_of(region, 0, buffer, sizeof buffer);
  Operation swap = swap_of(region, 0, 0, 1);
  BOOST_REQUIRE(driver.run(read));
  BOOST_REQUIRE(driver.run(write));
  BOOST_REQUIRE(driver.run(swap));
  BOOST_TEST(read.ok);
  BOOST_TEST((!write.ok && write.error == Errc::kNotPermitted));
  BOOST_TEST((!swap.ok && swap.error == Errc::kNotPermitted));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(another_generation_is_a_lost_region, T, Providers) {
  World world(T::kind);
  RemoteRegion region = world.regions.lease({});
  region.generation = region.generation.next();
  Driver driver(world.node.address(), options_for(world.regions));
  std::byte buffer[64] = {};
  for (int i = 0; i < 2; ++i) {
    Operation op = read_of(region, 0, buffer, sizeof buffer);
    BOOST_REQUIRE(driver.run(op));
    BOOST_TEST((!op.ok && op.error == Errc::kRegionLost));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_node_that_came_back_empty_has_lost_the_regions, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({});
  Driver driver(world.node.address(), options_for(world.regions));
  std::byte buffer[64] = {};
  Operation before = read_of(region, 0, buffer, sizeof buffer);
  BOOST_REQUIRE(driver.run(before));
  BOOST_REQUIRE(before.ok);
  world.node.stop();
  world.regions.start_over();
  world.node.start();
  const TimePoint limit = deadline_after_ms(5000);
  Operation after = read_of(region, 0, buffer, sizeof buffer);
  do {  // over shm the old mapping is good until the link is back
    after = read_of(region, 0, buffer, sizeof buffer);
    BOOST_REQUIRE(driver.run(after));
    driver.poll_once(10);
  } while (after.ok && MonoClock::now() < limit);
  BOOST_TEST((!after.ok && after.error == Errc::kRegionLost));
  const RemoteRegion fresh = world.regions.lease({});
  Operation works = write_of(fresh, 0, buffer, sizeof buffer);
  BOOST_REQUIRE(driver.run(works));
  BOOST_TEST(works.ok);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_node_that_does_not_answer_costs_the_deadline_and_no_more, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({});
  world.node.freeze();
  Driver driver(world.node.address(), options_for(world.regions));
  std::byte buffer[64] = {};
  Operation op = read_of(region, 0, buffer, sizeof buffer);
  const TimePoint before = MonoClock::now();
  op.deadline = deadline_after_ms(200);
  BOOST_REQUIRE(driver.run(op));
  const auto took = MonoClock::now() - before;
  BOOST_TEST((!op.ok && op.error == Errc::kDeadline));
  BOOST_TEST((took >= std::chrono::milliseconds(190)));
  BOOST_TEST((took < std::chrono::seconds(2)));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_node_that_is_not_there_costs_the_deadline, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({});
  world.node.stop();
  Driver driver(world.node.address(), options_for(world.regions));
  std::byte buffer[64] = {};
  Operation op = read_of(region, 0, buffer, sizeof buffer);
  op.deadline = deadline_after_ms(200);
  BOOST_REQUIRE(driver.run(op));
  BOOST_TEST((!op.ok && op.error == Errc::kDeadline));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(operations_wait_for_a_node_that_comes_later, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({});
  world.node.stop();
  Driver driver(world.node.address(), options_for(world.regions));
  std::byte buffer[64] = {};
  Operation op = write_of(region, 0, buffer, sizeof buffer);
  driver.post(op);
  driver.connection().submit();
  for (int i = 0; i < 10; ++i) driver.poll_once(10);
  BOOST_TEST(driver.completed() == 0u);
  world.node.start();
  BOOST_REQUIRE(driver.drain());
  BOOST_TEST(op.ok);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(streams_broken_in_the_middle_of_bursts_lose_nothing, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({.length = 8 << 20});
  Driver driver(world.node.address(), options_for(world.regions));
  constexpr std::size_t kCount = 64;
  constexpr std::size_t kSize = 40000;
  for (std::uint64_t round = 0; round < 10; ++round) {
    const auto bytes = pattern(kCount * kSize, round);
    std::vector<Operation> writes;
    for (std::size_t i = 0; i < kCount; ++i) {
      writes.push_back(write_of(region, i * kSize, bytes.data() + i * kSize, kSize));
    }
    for (auto& op : writes) driver.post(op);
    driver.connection().submit();
    for (std::uint64_t i = 0; i < round; ++i) driver.poll_once();
    world.node.break_streams();
    BOOST_REQUIRE(driver.drain());
    for (const auto& op : writes) BOOST_REQUIRE(op.ok);
    BOOST_TEST(std::memcmp(world.regions.memory(region), bytes.data(), bytes.size()) == 0);

    std::vector<std::byte> back(bytes.size());
    std::vector<Operation> reads;
    for (std::size_t i = 0; i < kCount; ++i)
      reads.push_back(read_of(region, i * kSize, back.data() + i * kSize, kSize));
    for (auto& op : reads) driver.post(op);
    driver.connection().submit();
    for (std::uint64_t i = 0; i < round; ++i) driver.poll_once();
    world.node.break_streams();
    BOOST_REQUIRE(driver.drain());
    for (const auto& op : reads) BOOST_REQUIRE(op.ok);
    BOOST_TEST((back == bytes));
  }
  for (int i = 0; i < 50 && driver.connection().statistics().reconnects == 0; ++i) driver.poll_once(20);
  BOOST_TEST(driver.connection().statistics().reconnects > 0u);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(what_is_unfinished_at_the_end_is_cancelled, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({});
  world.node.stop();
  std::byte buffer[64] = {};
  Operation op = read_of(region, 0, buffer, sizeof buffer);
  op.ok = true;
  {
    Driver driver(world.node.address(), options_for(world.regions));
    driver.post(op);
    driver.connection().submit();
  }
  BOOST_TEST((!op.ok && op.error == Errc::kCancelled));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(many_more_operations_than_may_be_outstanding_all_complete, T, Providers) {
  World world(T::kind);
  const RemoteRegion region = world.regions.lease({.length = 1 << 20});
  ConnectOptions options = options_for(world.regions);
  options.max_outstanding = 8;
  Driver driver(world.node.address(), options);
  const auto bytes = pattern(4096 * 64, 1);
  std::vector<Operation> ops;
  for (std::size_t i = 0; i < 2000; ++i) {
    const std::size_t at = i % 64 * 4096;
    ops.push_back(write_of(region, at, bytes.data() + at, 4096));
  }
  for (auto& op : ops) driver.post(op);
  BOOST_REQUIRE(driver.drain());
  for (const auto& op : ops) BOOST_REQUIRE(op.ok);
  BOOST_TEST(driver.connection().outstanding() == 0u);
  BOOST_TEST(std::memcmp(world.regions.memory(region), bytes.data(), bytes.size()) == 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(more_regions_than_a_stream_has_slots_all_work, T, Providers) {
  World world(T::kind);
  std::vector<RemoteRegion> leased;
  for (int i = 0; i < 4200; ++i) leased.push_back(world.regions.lease({.length = 4096, .durability = kNodePersists}));
  Driver driver(world.node.address(), options_for(world.regions));
  for (int round = 0; round < 2; ++round) {
    std::vector<std::uint64_t> words(leased.size());
    std::vector<Operation> ops;
    for (std::size_t i = 0; i < leased.size(); ++i) {
      words[i] = i * 7 + static_cast<std::uint64_t>(round);
      ops.push_back(write_of(leased[i], 8, reinterpret_cast<std::byte*>(&words[i]), 8));
    }
    for (auto& op : ops) driver.post(op);
    BOOST_REQUIRE(driver.drain(30000));
    std::vector<Operation> persists;
    for (const auto& region : leased) persists.push_back(persist_of(region));
    for (auto& op : persists) driver.post(op);
    BOOST_REQUIRE(driver.drain(30000));
    for (std::size_t i = 0; i < leased.size(); ++i) {
      BOOST_REQUIRE(ops[i].ok);
      BOOST_REQUIRE(persists[i].ok);
      BOOST_REQUIRE(std::memcmp(world.regions.memory(leased[i]) + 8, &words[i], 8) == 0);
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
