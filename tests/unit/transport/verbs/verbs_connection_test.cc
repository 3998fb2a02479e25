// What verbs alone promises, over a real RDMA device.
#include <boost/test/unit_test.hpp>

#include <poll.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <thread>

#include "tests/unit/transport/test_node.h"
#include "transport/local_memory.h"
#include "transport/verbs_target.h"

namespace rmemfs::test {
namespace {

struct World {
  explicit World(Target::Options options = {}) : node(TransportKind::kVerbs, regions, options) {}
  TestRegions regions{64 << 20};
  TestNode node;
};

// Memory as a lane announces it: units that a device registers when they are first used.
struct Arena {
  static constexpr std::size_t kUnit = 1 << 20;
  Arena() {
    void* const data = ::mmap(nullptr, 4 * kUnit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    BOOST_REQUIRE(data != MAP_FAILED);
    bytes = {static_cast<std::byte*>(data), 4 * kUnit};
    memory->announce(bytes, kUnit);
  }
  ~Arena() {
    memory->withdraw(bytes);
    ::munmap(bytes.data(), bytes.size());
  }
  std::byte* unit(std::size_t index) { return bytes.data() + index * kUnit; }
  const std::shared_ptr<LocalMemory> memory = std::make_shared<LocalMemory>();
  std::span<std::byte> bytes;
};

void fill(std::byte* bytes, std::size_t size, unsigned seed) {
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 31 + seed) >> (i % 3));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(verbs_connection)

BOOST_AUTO_TEST_CASE(operations_that_cross_pieces_are_split_and_lose_nothing) {
  World world({.piece_bytes = 64 << 10});
  const RemoteRegion region = world.regions.lease({.length = 1 << 20});
  Driver driver(world.node.address(), options_for(world.regions));
  std::vector<std::byte> bytes(300000), back(300000);
  fill(bytes.data(), bytes.size(), 5);
  for (const std::uint64_t offset :
       {std::uint64_t{0}, std::uint64_t{65535}, std::uint64_t{65536}, std::uint64_t{700000}}) {
    Operation write = write_of(region, offset, bytes.data(), bytes.size());
    BOOST_REQUIRE(driver.run(write));
    BOOST_REQUIRE(write.ok);
    BOOST_TEST(std::memcmp(world.regions.memory(region) + offset, bytes.data(), bytes.size()) == 0);
    Operation read = read_of(region, offset, back.data(), back.size());
    BOOST_REQUIRE(driver.run(read));
    BOOST_REQUIRE(read.ok);
    BOOST_TEST((back == bytes));
  }
  std::uint64_t word = 9;
  Operation last = write_of(region, region.length_bytes - 8, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_REQUIRE(driver.run(last));
  Operation swap = swap_of(region, region.length_bytes - 8, 9, 10);
  BOOST_REQUIRE(driver.run(swap));
  BOOST_TEST((last.ok && swap.ok && swap.previous == 9u));
}

BOOST_AUTO_TEST_CASE(announced_memory_is_one_request_for_a_megabyte_and_a_burst_one_doorbell_and_completion) {
  World world;
  const RemoteRegion region = world.regions.lease({.length = 8 << 20});
  Arena arena;
  ConnectOptions options = options_for(world.regions);
  options.local_memory = arena.memory;
  Driver driver(world.node.address(), options);
  std::uint64_t word = 0;
  Operation attach = read_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_REQUIRE(driver.run(attach));
  BOOST_REQUIRE(attach.ok);

  fill(arena.unit(1), Arena::kUnit, 1);
  const ConnectionStatistics before = driver.connection().statistics();
  Operation write = write_of(region, 4096, arena.unit(1), Arena::kUnit);
  BOOST_REQUIRE(driver.run(write));
  BOOST_REQUIRE(write.ok);
  const ConnectionStatistics one = driver.connection().statistics();
  BOOST_TEST(one.work_requests - before.work_requests == 1u);
  BOOST_TEST(one.doorbells - before.doorbells == 1u);
  BOOST_TEST(one.signalled - before.signalled == 1u);
  BOOST_TEST(std::memcmp(world.regions.memory(region) + 4096, arena.unit(1), Arena::kUnit) == 0);

  std::vector<Operation> burst;
  for (std::size_t i = 0; i < 16; ++i) burst.push_back(read_of(region, i * 4096, arena.unit(2) + i * 4096, 4096));
  for (Operation& op : burst) driver.post(op);
  BOOST_REQUIRE(driver.drain());
  const ConnectionStatistics many = driver.connection().statistics();
  BOOST_TEST(many.work_requests - one.work_requests == 16u);
  BOOST_TEST(many.doorbells - one.doorbells == 1u);
  BOOST_TEST(many.signalled - one.signalled <= 2u);
  BOOST_TEST(std::memcmp(world.regions.memory(region), arena.unit(2), 16 * 4096) == 0);
  for (const Operation& op : burst) BOOST_TEST(op.ok);
}

BOOST_AUTO_TEST_CASE(memory_that_was_withdrawn_is_copied_instead) {
  World world;
  const RemoteRegion region = world.regions.lease({});
  Arena arena;
  ConnectOptions options = options_for(world.regions);
  options.local_memory = arena.memory;
  Driver driver(world.node.address(), options);
  for (unsigned round = 0; round < 2; ++round) {
    fill(arena.unit(0), 300000, round);
    Operation write = write_of(region, 0, arena.unit(0), 300000);
    BOOST_REQUIRE(driver.run(write));
    BOOST_TEST(write.ok);
    BOOST_TEST(std::memcmp(world.regions.memory(region), arena.unit(0), 300000) == 0);
    arena.memory->withdraw(arena.bytes);
  }
}

BOOST_AUTO_TEST_CASE(a_read_behind_the_writes_makes_them_persistent_without_the_node) {
  World world;
  const RemoteRegion region =
      world.regions.lease({.durability = {Durability::kPersistent, PersistMethod::kReadAfterWrite}});
  const RemoteRegion flushed =
      world.regions.lease({.durability = {Durability::kPersistent, PersistMethod::kNativeFlush}});
  Driver driver(world.node.address(), options_for(world.regions));
  std::uint64_t word = 3;
  Operation write = write_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_REQUIRE(driver.run(write));
  const ConnectionStatistics before = driver.connection().statistics();
  Operation persist = persist_of(region);
  BOOST_REQUIRE(driver.run(persist));
  BOOST_TEST((write.ok && persist.ok));
  BOOST_TEST(driver.connection().statistics().work_requests - before.work_requests == 1u);
  BOOST_TEST(world.regions.persists == 0u);
  // This library has no native FLUSH: the node is asked, which promises as much.
  Operation native = persist_of(flushed);
  BOOST_REQUIRE(driver.run(native));
  BOOST_TEST(native.ok);
  BOOST_TEST(world.regions.persists == 1u);
}

BOOST_AUTO_TEST_CASE(what_an_older_queue_pair_wrote_is_made_persistent_by_the_node) {
  World world;
  const DurabilityDescriptor by_read{Durability::kPersistent, PersistMethod::kReadAfterWrite};
  const RemoteRegion region = world.regions.lease({.durability = by_read});
  const RemoteRegion clean = world.regions.lease({.durability = by_read});
  Driver driver(world.node.address(), options_for(world.regions));
  std::uint64_t word = 3;
  const auto write = [&](const RemoteRegion& where, std::uint64_t offset) {
    Operation op = write_of(where, offset, reinterpret_cast<std::byte*>(&word), 8);
    BOOST_REQUIRE(driver.run(op));
    BOOST_REQUIRE(op.ok);
  };
  const auto persists = [&](const RemoteRegion& where, std::uint64_t offset, std::size_t length) {
    Operation op = persist_of(where);
    op.offset = offset;
    op.length_bytes = length;
    const std::uint64_t before = world.regions.persists;
    BOOST_REQUIRE(driver.run(op));
    BOOST_REQUIRE(op.ok);
    return world.regions.persists - before;  // by the node's processor
  };
  const auto reconnect = [&] {
    const std::uint64_t before = driver.connection().statistics().reconnects;
    world.node.break_streams();
    const TimePoint limit = deadline_after_ms(10000);
    while (driver.connection().statistics().reconnects == before && MonoClock::now() < limit) {
      Operation read = read_of(clean, 0, reinterpret_cast<std::byte*>(&word), 8);
      BOOST_REQUIRE(driver.run(read));
    }
    BOOST_REQUIRE(driver.connection().statistics().reconnects > before);
  };
  write(region, 0);
  write(clean, 0);
  BOOST_TEST(persists(clean, 0, 0) == 0u);
  reconnect();
  BOOST_TEST(persists(clean, 0, 0) == 0u);      // covered before the break
  BOOST_TEST(persists(region, 4096, 8) == 1u);  // not covered; strays are taken wherever they are
  BOOST_TEST(world.regions.last_persisted == region.length_bytes);
  BOOST_TEST(persists(region, 0, 0) == 0u);  // nothing is astray any more
  write(region, 8);
  BOOST_TEST(persists(region, 0, 0) == 0u);  // the same queue pair
  // A COMPARE_SWAP is a write too, and one that came after the PERSIST is not covered by it.
  Operation swap = swap_of(region, 64, 0, 1);
  BOOST_REQUIRE(driver.run(swap));
  BOOST_REQUIRE(swap.ok);
  reconnect();
  reconnect();
  write(region, 16);
  BOOST_TEST(persists(region, 0, 0) == 1u);
  BOOST_TEST(persists(region, 0, 0) == 0u);
}

BOOST_AUTO_TEST_CASE(a_revoked_region_is_out_of_reach_once_the_target_is_quiet) {
  World world;
  const RemoteRegion region = world.regions.lease({});
  const RemoteRegion other = world.regions.lease({});
  Driver driver(world.node.address(), options_for(world.regions));
  std::vector<std::byte> ones(65536, std::byte{1}), twos(65536, std::byte{2});
  Operation before = write_of(region, 0, ones.data(), ones.size());
  BOOST_REQUIRE(driver.run(before));
  BOOST_REQUIRE(before.ok);
  world.regions.revoke(region);
  world.node.target().quiesce();
  Operation late = write_of(region, 0, twos.data(), twos.size());
  Operation fine = write_of(other, 0, twos.data(), twos.size());
  driver.post(late);
  driver.post(fine);
  BOOST_REQUIRE(driver.drain());
  BOOST_TEST((!late.ok && late.error == Errc::kRegionLost));
  BOOST_TEST(fine.ok);
  BOOST_TEST(std::memcmp(world.regions.memory(region), ones.data(), ones.size()) == 0);
}

BOOST_AUTO_TEST_CASE(a_file_system_that_is_gone_keeps_no_domain) {
  World world;
  const auto& target = dynamic_cast<const VerbsTarget&>(world.node.target());
  const RemoteRegion region = world.regions.lease({.length = 1 << 20});
  const auto use = [&] {
    Driver driver(world.node.address(), options_for(world.regions));
    std::uint64_t word = 1;
    Operation write = write_of(region, 0, reinterpret_cast<std::byte*>(&word), sizeof word);
    BOOST_REQUIRE(driver.run(write));
    BOOST_REQUIRE(write.ok);
    BOOST_TEST(target.domains() == 1u);
  };
  const auto comes_to = [&](std::size_t connections, std::size_t domains) {
    const TimePoint limit = deadline_after_ms(5000);
    while (MonoClock::now() < limit) {
      if (target.connections() == connections && target.domains() == domains) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  };
  use();
  BOOST_TEST(comes_to(0, 1));  // its region is registered: whoever comes back finds it so
  {
    Driver driver(world.node.address(), options_for(world.regions));
    std::uint64_t word = 2;
    Operation write = write_of(region, 0, reinterpret_cast<std::byte*>(&word), sizeof word);
    BOOST_REQUIRE(driver.run(write));
    world.regions.revoke(region);
    world.node.target().quiesce();
    BOOST_TEST(target.domains() == 1u);  // it is connected
  }
  BOOST_TEST(comes_to(0, 0));
}

BOOST_AUTO_TEST_CASE(a_region_revoked_under_a_storm_of_writes_does_not_change_after_quiesce) {
  World world;
  const RemoteRegion region = world.regions.lease({});
  Driver driver(world.node.address(), options_for(world.regions));
  std::vector<std::byte> bytes(65536, std::byte{7});
  std::vector<Operation> writes;
  for (int i = 0; i < 200; ++i) writes.push_back(write_of(region, 0, bytes.data(), bytes.size()));
  for (Operation& op : writes) driver.post(op);
  driver.connection().submit();
  while (driver.completed() == 0) driver.poll_once(5);
  world.regions.revoke(region);
  world.node.target().quiesce();
  std::memset(world.regions.memory(region), 0, region.length_bytes);
  BOOST_REQUIRE(driver.drain(30000));
  const std::byte* const memory = world.regions.memory(region);
  BOOST_TEST(std::all_of(memory, memory + bytes.size(), [](std::byte b) { return b == std::byte{0}; }));
  BOOST_TEST((!writes.back().ok && writes.back().error == Errc::kRegionLost));
}

BOOST_AUTO_TEST_CASE(nothing_of_an_older_epoch_lands_after_its_sessions_were_ended) {
  World world;
  const RemoteRegion region = world.regions.lease({});
  Driver driver(world.node.address(), options_for(world.regions));
  std::vector<std::byte> bytes(65536, std::byte{7});
  std::vector<Operation> writes;
  for (int i = 0; i < 200; ++i) writes.push_back(write_of(region, 0, bytes.data(), bytes.size()));
  for (Operation& op : writes) driver.post(op);
  driver.connection().submit();
  while (driver.completed() == 0) driver.poll_once(5);
  world.regions.raise_epoch(MountEpoch(2));
  world.node.target().end_sessions(world.regions.file_system, MountEpoch(2));
  std::memset(world.regions.memory(region), 0, region.length_bytes);
  BOOST_REQUIRE(driver.drain(30000));
  const std::byte* const memory = world.regions.memory(region);
  BOOST_TEST(std::all_of(memory, memory + bytes.size(), [](std::byte b) { return b == std::byte{0}; }));
  BOOST_TEST((!writes.back().ok && writes.back().error == Errc::kFenced));
}

BOOST_AUTO_TEST_CASE(ended_queue_pairs_are_destroyed_behind_the_scenes_and_all_of_them) {
  World world;
  const auto& target = dynamic_cast<const VerbsTarget&>(world.node.target());
  const RemoteRegion region = world.regions.lease({});
  std::vector<std::byte> bytes(65536, std::byte{7});
  std::vector<std::unique_ptr<Driver>> drivers;
  std::vector<Operation> writes;
  for (std::uint32_t lane = 0; lane < 12; ++lane) {
    drivers.push_back(std::make_unique<Driver>(world.node.address(), options_for(world.regions, lane)));
  }
  for (std::size_t i = 0; i < 10 * drivers.size(); ++i) {
    writes.push_back(write_of(region, 0, bytes.data(), bytes.size()));
  }
  for (std::size_t i = 0; i < writes.size(); ++i) drivers[i % drivers.size()]->post(writes[i]);
  for (const auto& driver : drivers) driver->connection().submit();
  while (drivers.back()->completed() == 0) {
    for (const auto& driver : drivers) driver->poll_once(1);
  }
  BOOST_TEST(target.connections() == drivers.size());
  world.regions.raise_epoch(MountEpoch(2));
  world.node.target().end_sessions(world.regions.file_system, MountEpoch(2));
  std::memset(world.regions.memory(region), 0, region.length_bytes);
  BOOST_TEST(target.connections() == 0u);
  for (const auto& driver : drivers) BOOST_REQUIRE(driver->drain(30000));
  const TimePoint limit = deadline_after_ms(20000);
  while ((target.ending() > 0 || target.domains() != 1) && MonoClock::now() < limit) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  BOOST_TEST(target.ending() == 0u);
  const std::byte* const memory = world.regions.memory(region);
  BOOST_TEST(std::all_of(memory, memory + bytes.size(), [](std::byte b) { return b == std::byte{0}; }));
}

BOOST_AUTO_TEST_CASE(a_session_s_new_connection_ends_its_older_one) {
  World world;
  const RemoteRegion region = world.regions.lease({});
  Driver older(world.node.address(), options_for(world.regions));
  Driver lane(world.node.address(), options_for(world.regions, 1));
  std::uint64_t word = 1;
  Operation first = write_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  Operation second = write_of(region, 8, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_REQUIRE((older.run(first) && lane.run(second)));
  BOOST_TEST(world.node.target().connections() == 2u);
  Driver newer(world.node.address(), options_for(world.regions));
  Operation third = write_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_REQUIRE(newer.run(third));
  BOOST_TEST((first.ok && second.ok && third.ok));
  BOOST_TEST(world.node.target().connections() == 2u);
}

BOOST_AUTO_TEST_CASE(a_key_that_became_stale_is_asked_for_again) {
  // The node forgets and registers the region anew, as if it had been leased again in between: the agent finds out by a
  // refusal of the device, and the operation succeeds all the same.
  World world;
  const RemoteRegion region = world.regions.lease({});
  Driver driver(world.node.address(), options_for(world.regions));
  std::uint64_t word = 1;
  Operation first = write_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_REQUIRE(driver.run(first));
  world.regions.reopen(region);
  world.node.target().quiesce();
  for (const bool swaps : {false, true}) {
    Operation next = swaps ? swap_of(region, 0, 2, 3) : write_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
    word = 2;
    BOOST_REQUIRE(driver.run(next));
    BOOST_TEST(next.ok);
    if (swaps) BOOST_TEST(next.previous == 2u);
    if (!swaps) continue;
    world.regions.reopen(region);
    world.node.target().quiesce();
  }
  BOOST_TEST(driver.connection().statistics().reconnects >= 1u);
}

BOOST_AUTO_TEST_CASE(a_read_given_up_at_its_deadline_never_writes_to_its_buffer) {
  // Unannounced memory is read through buffers of a bounded size, so a long READ is begun and not done when the first
  // completions are looked at, however fast the device was.
  World world;
  const RemoteRegion region = world.regions.lease({.length = 16 << 20});
  std::memset(world.regions.memory(region), 0x55, region.length_bytes);
  Driver driver(world.node.address(), options_for(world.regions));
  std::uint64_t word = 0;
  Operation warm = read_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_REQUIRE(driver.run(warm));
  std::vector<std::byte> buffer(kMaxOperationBytes), small(4096);
  Operation late = read_of(region, 0, buffer.data(), buffer.size());
  late.deadline = deadline_after_ms(20);
  Operation other = read_of(region, 0, small.data(), small.size());  // outlives the queue pair
  driver.post(late);
  driver.post(other);
  driver.connection().submit();
  ::poll(nullptr, 0, 30);
  while (driver.completed() < 2) driver.poll_once();
  BOOST_REQUIRE((!late.ok && late.error == Errc::kDeadline));
  std::fill(buffer.begin(), buffer.end(), std::byte{0});
  BOOST_REQUIRE(driver.drain());
  ::poll(nullptr, 0, 100);
  driver.poll_once();
  BOOST_TEST(std::all_of(buffer.begin(), buffer.end(), [](std::byte b) { return b == std::byte{0}; }));
  BOOST_TEST(other.ok);
}

BOOST_AUTO_TEST_CASE(nobody_listening_and_no_route_are_told_apart_from_silence) {
  World world;
  NodeAddress nobody = world.node.address();
  world.node.stop();
  const Result<void> silent = probe_verbs(nobody, options_for(world.regions), 3000);
  BOOST_TEST((!silent.ok() && silent.error().code == Errc::kNotSupported));
  nobody.host = "127.0.0.1";
  const Result<void> routeless = probe_verbs(nobody, options_for(world.regions), 3000);
  BOOST_TEST((!routeless.ok() && routeless.error().code == Errc::kNotSupported));
  world.node.start();
  BOOST_TEST(probe_verbs(world.node.address(), options_for(world.regions), 3000).ok());
  world.node.freeze();
  const Result<void> frozen = probe_verbs(world.node.address(), options_for(world.regions), 500);
  BOOST_TEST((!frozen.ok() && frozen.error().code == Errc::kDeadline));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
