// What one provider alone promises, and the decorator that makes faults.
#include <boost/test/unit_test.hpp>

#include <poll.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <set>

#include "tests/support/faulty_connection.h"
#include "tests/unit/transport/test_node.h"
#include "transport/region_slots.h"

namespace rmemfs::test {

BOOST_AUTO_TEST_SUITE(shm_connection)

BOOST_AUTO_TEST_CASE(a_dead_node_does_not_stop_operations_on_attached_regions) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kShm, regions);
  const RemoteRegion attached = regions.lease({});
  const RemoteRegion other = regions.lease({});
  Driver driver(node.address(), options_for(regions));
  std::uint64_t word = 7, back = 0;
  Operation first = write_of(attached, 0, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_REQUIRE(driver.run(first));
  node.stop();
  driver.poll_once(100);
  for (word = 8; word < 20; ++word) {
    Operation write = write_of(attached, 8, reinterpret_cast<std::byte*>(&word), 8);
    Operation read = read_of(attached, 8, reinterpret_cast<std::byte*>(&back), 8);
    BOOST_TEST((driver.connection().post(write) == Posted::kCompleted));
    BOOST_TEST((driver.connection().post(read) == Posted::kCompleted));
    BOOST_TEST((write.ok && read.ok && back == word));
  }
  Operation unknown = read_of(other, 0, reinterpret_cast<std::byte*>(&back), 8);
  unknown.deadline = deadline_after_ms(100);
  BOOST_REQUIRE(driver.run(unknown));
  BOOST_TEST((!unknown.ok && unknown.error == Errc::kDeadline));
  node.start();  // the same regions: the node re-adopted its pool
  Operation again = read_of(other, 0, reinterpret_cast<std::byte*>(&back), 8);
  BOOST_REQUIRE(driver.run(again));
  BOOST_TEST(again.ok);
  BOOST_TEST(driver.connection().statistics().reconnects == 1u);
}

BOOST_AUTO_TEST_CASE(a_pool_shorter_than_the_node_says_is_refused) {
  TestRegions regions(8 << 20);
  regions.claimed_size = 1 << 30;
  TestNode node(TransportKind::kShm, regions);
  const RemoteRegion region = regions.lease({});
  Driver driver(node.address(), options_for(regions));
  std::uint64_t word = 0;
  Operation op = read_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_REQUIRE(driver.run(op));
  BOOST_TEST((!op.ok && op.error == Errc::kProtocol));
}

BOOST_AUTO_TEST_CASE(a_region_beyond_the_pool_breaks_the_protocol_and_nothing_else) {
  TestRegions regions(8 << 20);
  regions.claimed_size = 8192;  // true, but the region lies behind it
  TestNode node(TransportKind::kShm, regions);
  const RemoteRegion region = regions.lease({.length = 1 << 20});
  Driver driver(node.address(), options_for(regions));
  std::uint64_t word = 0;
  Operation op = read_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  op.deadline = deadline_after_ms(300);
  BOOST_REQUIRE(driver.run(op));
  BOOST_TEST((!op.ok && op.error == Errc::kDeadline));
}

BOOST_AUTO_TEST_CASE(a_socket_with_a_long_path_is_reached) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kShm, regions);
  const std::string folder = "/tmp/rmemfs-unit-" + std::to_string(::getpid()) + "-" + std::string(120, 'd');
  BOOST_REQUIRE(::mkdir(folder.c_str(), 0700) == 0);
  NodeAddress address = node.address();
  address.path = folder + "/rmemd.sock";
  std::error_code error;
  std::filesystem::create_hard_link(node.address().path, address.path, error);
  BOOST_REQUIRE(!error);
  const RemoteRegion region = regions.lease({});
  Driver driver(address, options_for(regions));
  std::uint64_t word = 0;
  Operation op = read_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_CHECK(driver.run(op));
  BOOST_TEST(op.ok);
  std::filesystem::remove_all(folder, error);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(tcp_connection)

BOOST_AUTO_TEST_CASE(a_host_name_is_looked_up) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions);
  NodeAddress address = node.address();
  address.host = "localhost";
  const RemoteRegion region = regions.lease({});
  Driver driver(address, options_for(regions));
  std::uint64_t word = 0;
  Operation op = read_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_REQUIRE(driver.run(op));
  BOOST_TEST(op.ok);
}

BOOST_AUTO_TEST_CASE(a_given_up_read_never_writes_to_its_buffer) {
  TestRegions regions(64 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const RemoteRegion region = regions.lease({.length = 16 << 20});
  std::memset(regions.memory(region), 0x55, region.length_bytes);
  Driver driver(node.address(), options_for(regions));
  std::uint64_t word = 0;
  Operation warm = read_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_REQUIRE(driver.run(warm));
  std::vector<std::byte> buffer(kMaxOperationBytes), small(4096);
  Operation late = read_of(region, 0, buffer.data(), buffer.size());
  late.deadline = deadline_after_ms(20);
  Operation other = read_of(region, 0, small.data(), small.size());  // shares the stream and outlives it
  driver.post(late);
  driver.post(other);
  driver.connection().submit();
  ::poll(nullptr, 0, 10);
  driver.poll_once();      // takes what has arrived, up to a bound
  ::poll(nullptr, 0, 30);  // the deadline passes with the rest under way
  const std::size_t before = driver.completed();
  while (driver.completed() == before) driver.poll_once(100);
  if (!late.ok) {
    BOOST_TEST((late.error == Errc::kDeadline));
    std::fill(buffer.begin(), buffer.end(), std::byte{0});
    BOOST_REQUIRE(driver.drain());
    BOOST_TEST(std::all_of(buffer.begin(), buffer.end(), [](std::byte b) { return b == std::byte{0}; }));
  }
  BOOST_REQUIRE(driver.drain());
  BOOST_TEST(other.ok);
}

BOOST_AUTO_TEST_CASE(a_swap_whose_stream_broke_is_unreachable_and_others_are_posted_again) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const RemoteRegion region = regions.lease({});
  Driver driver(node.address(), options_for(regions));
  std::uint64_t word = 1;
  Operation warm = write_of(region, 64, reinterpret_cast<std::byte*>(&word), 8);
  BOOST_REQUIRE(driver.run(warm));
  node.freeze();  // what connects from now on gets no answer
  node.break_streams();
  ::poll(nullptr, 0, 50);
  Operation swap = swap_of(region, 0, 0, 1);
  Operation write = write_of(region, 64, reinterpret_cast<std::byte*>(&word), 8);
  driver.post(swap);
  driver.post(write);
  driver.connection().submit();  // into a stream that is broken already, or finds out now
  for (int i = 0; i < 10; ++i) driver.poll_once(10);
  BOOST_TEST(!write.ok);
  node.stop();
  node.start();
  BOOST_REQUIRE(driver.drain());
  BOOST_TEST(write.ok);
  if (!swap.ok) BOOST_TEST((swap.error == Errc::kUnreachable));
}

BOOST_AUTO_TEST_CASE(an_expired_operation_that_was_never_sent_leaves_the_others_alone) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const RemoteRegion region = regions.lease({});
  const RemoteRegion second = regions.lease({});
  ConnectOptions options = options_for(regions);
  Driver driver(node.address(), options);
  std::uint64_t word = 3;
  Operation expired = write_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  expired.deadline = MonoClock::now();
  Operation fine = write_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  Operation other = write_of(second, 0, reinterpret_cast<std::byte*>(&word), 8);
  driver.post(expired);
  driver.post(fine);
  driver.post(other);
  BOOST_REQUIRE(driver.drain());
  BOOST_TEST((!expired.ok && expired.error == Errc::kDeadline));
  BOOST_TEST((fine.ok && other.ok));
  BOOST_TEST(driver.connection().statistics().reconnects == 0u);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(region_slots)

BOOST_AUTO_TEST_CASE(the_oldest_binding_makes_room_and_a_forgotten_one_is_fresh) {
  RegionSlots slots;
  RemoteRegion region;
  std::set<std::uint32_t> used;
  for (std::uint64_t i = 0; i < wire::kSlots; ++i) {
    region.id = RegionId(i);
    const auto binding = slots.bind(region);
    BOOST_REQUIRE(binding.fresh);
    used.insert(binding.slot);
  }
  BOOST_TEST(used.size() == wire::kSlots);
  BOOST_TEST(*used.rbegin() == wire::kSlots - 1);
  region.id = RegionId(0);
  BOOST_TEST(!slots.bind(region).fresh);
  region.id = RegionId(wire::kSlots);
  BOOST_TEST(slots.bind(region).fresh);
  region.id = RegionId(0);  // was the oldest
  BOOST_TEST(slots.bind(region).fresh);
  region.id = RegionId(100);
  BOOST_TEST(!slots.bind(region).fresh);
  slots.forget(region);
  BOOST_TEST(slots.bind(region).fresh);
  BOOST_TEST(!slots.bind(region).fresh);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(faulty_connection)

BOOST_AUTO_TEST_CASE(every_operation_completes_once_whatever_goes_wrong) {
  for (const TransportKind transport : {TransportKind::kShm, TransportKind::kTcp}) {
    TestRegions regions(8 << 20);
    TestNode node(transport, regions);
    const RemoteRegion region = regions.lease({});
    FaultyConnection::Faults faults;
    faults.seed = 42;
    faults.drop = 50;
    faults.tear = 100;
    faults.delay = 200;
    faults.reorder = 300;
    faults.fail_nth = 17;
    auto made = make_connection(node.address(), options_for(regions));
    BOOST_REQUIRE(made.ok());
    auto faulty = std::make_unique<FaultyConnection>(std::move(*made), faults);
    FaultyConnection& connection = *faulty;
    Driver driver(std::move(faulty));
    constexpr std::size_t kCount = 500, kSize = 512;
    std::vector<std::vector<std::byte>> buffers;
    std::vector<Operation> ops(kCount);
    for (std::size_t i = 0; i < kCount; ++i) {
      buffers.emplace_back(kSize, static_cast<std::byte>(1 + i % 255));
      ops[i] = write_of(region, i * kSize, buffers[i].data(), kSize);
      ops[i].deadline = deadline_after_ms(300);
    }
    for (auto& op : ops) driver.post(op);
    BOOST_REQUIRE(driver.drain());
    const auto done = driver.take_done();
    BOOST_TEST(done.size() == kCount);
    BOOST_TEST(std::set<Operation*>(done.begin(), done.end()).size() == kCount);
    BOOST_TEST(connection.faults() > 100u);
    std::set<Errc> seen;
    std::size_t torn = 0;
    for (std::size_t i = 0; i < kCount; ++i) {
      const std::byte* const landed = regions.memory(region) + i * kSize;
      if (ops[i].ok) {
        BOOST_REQUIRE(std::memcmp(landed, buffers[i].data(), kSize) == 0);
      } else {
        seen.insert(ops[i].error);
        torn += landed[0] == buffers[i][0] && landed[kSize - 1] == std::byte{0};
      }
    }
    BOOST_TEST(seen.count(Errc::kDeadline) == 1u);
    BOOST_TEST(seen.count(Errc::kUnreachable) == 1u);
    BOOST_TEST(torn > 0u);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
