// Deadlines that the node keeps (C5): what an agent gave up is refused when it is found in a stream later.
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <thread>

#include "tests/unit/transport/raw_stream.h"
#include "tests/unit/transport/test_node.h"
#include "transport/node_clock.h"

namespace rmemfs::test {
namespace {

TimePoint at_ms(std::int64_t ms) { return TimePoint(std::chrono::milliseconds(ms)); }
constexpr std::uint64_t kMs = 1000000;

struct Stream {
  Stream() {
    const wire::HelloReply reply = greet(fd.get(), hello_of(regions, TransportKind::kTcp), TransportKind::kTcp);
    BOOST_REQUIRE(reply.ok);
    clock_ns = reply.clock_ns;
    send_attach(fd.get(), region);
  }
  wire::Request write(std::uint64_t length, std::uint64_t expires_ns) {
    wire::Request request;
    request.kind = wire::Kind::kWrite;
    request.id = 1;
    request.length = length;
    request.expires_ns = expires_ns;
    return request;
  }
  wire::Reply swap(std::uint64_t expires_ns) {
    wire::Request request;
    request.kind = wire::Kind::kCompareSwap;
    request.id = 1;
    request.length = 8;
    request.desired = 5;
    request.expires_ns = expires_ns;
    send_request(fd.get(), request);
    return receive_reply(fd.get());
  }
  bool holds(std::size_t from, std::size_t length, std::byte value) {
    const std::byte* const memory = regions.seen_from_outside(region) + from;
    return std::all_of(memory, memory + length, [&](std::byte b) { return b == value; });
  }
  bool soon_holds(std::size_t from, std::size_t length, std::byte value) {
    for (int i = 0; i < 500 && !holds(from, length, value); ++i) ::poll(nullptr, 0, 10);
    return holds(from, length, value);
  }
  TestRegions regions{16 << 20};
  TestNode node{TransportKind::kTcp, regions};
  const RemoteRegion region = regions.lease({.length = 8 << 20});
  const UniqueFd fd = connect_raw(node.address());
  std::uint64_t clock_ns = 0;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(target)

BOOST_AUTO_TEST_CASE(an_expired_write_touches_nothing_and_the_stream_goes_on) {
  Stream stream;
  for (const std::size_t size : {std::size_t{100}, std::size_t{20000}, std::size_t{3} << 20}) {
    const std::vector<std::byte> bytes(size, std::byte{7});
    send_request(stream.fd.get(), stream.write(size, stream.clock_ns));
    send_all(stream.fd.get(), bytes);
    const wire::Reply late = receive_reply(stream.fd.get());
    BOOST_TEST((!late.ok && late.status == Errc::kDeadline));
    BOOST_TEST(late.clock_ns >= stream.clock_ns);
    BOOST_TEST(stream.holds(0, size, std::byte{0}));
  }
  for (const std::uint64_t expires : {std::uint64_t{0}, stream.clock_ns + 60000 * kMs}) {
    const std::vector<std::byte> bytes(3 << 20, static_cast<std::byte>(8 + expires % 8));
    send_request(stream.fd.get(), stream.write(bytes.size(), expires));
    send_all(stream.fd.get(), bytes);
    BOOST_TEST(receive_reply(stream.fd.get()).ok);
    BOOST_TEST(stream.holds(0, bytes.size(), bytes[0]));
  }
}

BOOST_AUTO_TEST_CASE(a_write_that_expires_between_its_pieces_lands_no_further) {
  Stream stream;
  for (const std::size_t size : {std::size_t{8000}, std::size_t{1} << 20}) {
    std::memset(stream.regions.seen_from_outside(stream.region), 0, size);
    const std::vector<std::byte> bytes(size, std::byte{7});
    const std::uint64_t expires = node_clock_ns() + 2000 * kMs;  // the node is this process
    send_request(stream.fd.get(), stream.write(size, expires));
    send_all(stream.fd.get(), std::span(bytes).first(size / 2));
    BOOST_TEST(stream.soon_holds(0, size / 2, std::byte{7}));
    while (node_clock_ns() < expires) ::poll(nullptr, 0, 10);
    std::memset(stream.regions.seen_from_outside(stream.region), 9, size);  // another lane's newer bytes
    send_all(stream.fd.get(), std::span(bytes).subspan(size / 2));
    const wire::Reply late = receive_reply(stream.fd.get());
    BOOST_TEST((!late.ok && late.status == Errc::kDeadline));
    BOOST_TEST(stream.holds(0, size, std::byte{9}));
  }
}

BOOST_AUTO_TEST_CASE(an_expired_compare_swap_does_not_swap) {
  Stream stream;
  const wire::Reply late = stream.swap(stream.clock_ns);
  BOOST_TEST((!late.ok && late.status == Errc::kDeadline));
  BOOST_TEST(stream.holds(0, 8, std::byte{0}));
  const wire::Reply done = stream.swap(stream.clock_ns + 60000 * kMs);
  BOOST_TEST((done.ok && done.value == 0u));
  const wire::Reply timeless = stream.swap(0);
  BOOST_TEST((timeless.ok && timeless.value == 5u));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(tcp_connection)

BOOST_AUTO_TEST_CASE(a_write_given_up_at_a_frozen_node_does_not_overwrite_newer_bytes_when_it_is_thawed) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions, {.threads = 1});
  const RemoteRegion region = regions.lease({.durability = {Durability::kPersistent, PersistMethod::kNodeFlush}});
  Driver writer(node.address(), options_for(regions, 0)), freezer(node.address(), options_for(regions, 1));
  std::vector<std::byte> bytes(65536, std::byte{1});
  Operation before = write_of(region, 0, bytes.data(), bytes.size());
  BOOST_REQUIRE(writer.run(before));
  BOOST_REQUIRE(before.ok);

  regions.persists_held = true;
  Operation freeze = persist_of(region);
  freezer.post(freeze);
  freezer.connection().submit();
  for (int i = 0; i < 500 && regions.persists == 0; ++i) freezer.poll_once(10);
  BOOST_REQUIRE(regions.persists == 1u);
  std::fill(bytes.begin(), bytes.end(), std::byte{2});
  Operation late = write_of(region, 0, bytes.data(), bytes.size());
  late.deadline = deadline_after_ms(100);
  BOOST_REQUIRE(writer.run(late));
  BOOST_REQUIRE((!late.ok && late.error == Errc::kDeadline));
  std::memset(regions.seen_from_outside(region), 3, bytes.size());  // another lane's newer bytes

  regions.persists_held = false;
  BOOST_REQUIRE(freezer.drain());
  BOOST_TEST(freeze.ok);
  for (int i = 0; i < 500 && node.target().connections() > 1; ++i) ::poll(nullptr, 0, 10);
  BOOST_TEST(node.target().connections() == 1u);  // the node has read the given-up stream to its end
  const std::byte* const memory = regions.seen_from_outside(region);
  BOOST_TEST(std::all_of(memory, memory + bytes.size(), [](std::byte b) { return b == std::byte{3}; }));
}

BOOST_AUTO_TEST_CASE(operations_without_a_deadline_work) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const RemoteRegion region = regions.lease({});
  Driver driver(node.address(), options_for(regions));
  std::uint64_t word = 4;
  Operation write = write_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
  Operation swap = swap_of(region, 0, 4, 5);
  write.deadline = swap.deadline = kNoDeadline;
  BOOST_REQUIRE(driver.run(write));
  BOOST_REQUIRE(driver.run(swap));
  BOOST_TEST((write.ok && swap.ok && swap.previous == 4u));
}

// A node whose clock seems to have stood at 1 in its hello, as one looks after a very long silence.
BOOST_AUTO_TEST_CASE(a_refusal_with_a_fresh_clock_sends_the_operation_once_more) {
  for (const bool then_done : {true, false}) {
    TestRegions regions(8 << 20);
    const RemoteRegion region = regions.lease({});
    TestNode node(TransportKind::kTcp, regions);
    node.freeze();
    Driver driver(node.address(), options_for(regions));
    std::vector<std::uint64_t> expiries;
    const std::uint64_t clock_ns = 3600'000 * kMs;
    std::thread peer([&] {
      UniqueFd fd = node.take_frozen();
      limit_waiting(fd.get());
      std::array<std::byte, wire::kHelloBytes> hello;
      std::array<std::byte, wire::kHelloReplyBytes> greeting;
      wire::encode_hello_reply(TransportKind::kTcp, {.ok = true, .clock_ns = 1}, greeting);
      ::recv(fd.get(), hello.data(), hello.size(), MSG_WAITALL);
      send_all(fd.get(), greeting);
      std::array<std::byte, wire::kRequestBytes> bytes;
      while (expiries.size() < 2) {
        if (::recv(fd.get(), bytes.data(), bytes.size(), MSG_WAITALL) != static_cast<ssize_t>(bytes.size())) return;
        const auto request = wire::decode_request(bytes);
        if (!request.ok()) return;
        if (request->kind != wire::Kind::kWrite) continue;
        std::array<std::byte, 8> payload;
        ::recv(fd.get(), payload.data(), payload.size(), MSG_WAITALL);
        expiries.push_back(request->expires_ns);
        std::array<std::byte, wire::kReplyBytes> reply;
        wire::encode_reply({.ok = then_done && expiries.size() == 2,
                            .status = Errc::kDeadline,
                            .id = request->id,
                            .clock_ns = clock_ns},
                           reply);
        send_all(fd.get(), reply);
      }
      ends(fd.get(), 5000);
    });
    std::uint64_t word = 4;
    Operation write = write_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
    const bool completed = driver.run(write);
    driver = Driver(node.address(), options_for(regions));  // ends the stream
    peer.join();
    BOOST_REQUIRE(completed);
    BOOST_TEST(write.ok == then_done);
    if (!then_done) BOOST_TEST((write.error == Errc::kDeadline));
    BOOST_REQUIRE(expiries.size() == 2u);
    BOOST_TEST(expiries[0] < clock_ns);
    BOOST_TEST(expiries[1] > clock_ns);
    BOOST_TEST(expiries[1] <= clock_ns + 10000 * kMs);
  }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(node_clock)

BOOST_AUTO_TEST_CASE(a_deadline_is_moved_to_the_node_s_clock_and_never_later) {
  const NodeClock clock(5000 * kMs, at_ms(1000));
  const std::uint64_t expires = clock.expires_ns(at_ms(3000));
  BOOST_TEST(expires <= 7000 * kMs - 2 * kMs);
  BOOST_TEST(expires >= 7000 * kMs - 2 * kMs - 1);
  const NodeClock behind(10 * kMs, at_ms(1000));
  BOOST_TEST(behind.expires_ns(at_ms(3000)) < 2010 * kMs);
  BOOST_TEST(behind.expires_ns(at_ms(3000)) > 2007 * kMs);
}

BOOST_AUTO_TEST_CASE(no_deadline_never_expires_and_a_passed_one_has_expired) {
  const NodeClock clock(5000 * kMs, at_ms(1000));
  BOOST_TEST(clock.expires_ns(kNoDeadline) == 0u);
  BOOST_TEST(clock.expires_ns(at_ms(500)) == 5000 * kMs);
  BOOST_TEST(clock.expires_ns(TimePoint::min()) == 5000 * kMs);
  BOOST_TEST(NodeClock(1, at_ms(5000)).expires_ns(at_ms(5000)) > 0u);
  BOOST_TEST(NodeClock(kMaxClockNs, at_ms(0)).expires_ns(TimePoint(std::chrono::nanoseconds(kMaxClockNs - 1))) > 0u);
}

BOOST_AUTO_TEST_CASE(the_highest_bound_is_kept_until_drift_makes_it_the_lower_one) {
  NodeClock clock(5000 * kMs, at_ms(1000));  // 4000 ms ahead
  clock.learn(5900 * kMs, at_ms(2000));      // on its way for 100 ms
  BOOST_TEST(clock.expires_ns(at_ms(3000)) > 6997 * kMs);
  clock.learn(0, at_ms(2000));
  BOOST_TEST(clock.expires_ns(at_ms(3000)) > 6997 * kMs);
  clock.learn((4000 + 3600'000 - 500) * kMs, at_ms(3600'000));  // an hour's drift is more than 500 ms
  const std::uint64_t expires = clock.expires_ns(at_ms(3601'000));
  BOOST_TEST(expires <= (4000 + 3601'000 - 500 - 1) * kMs);
  BOOST_TEST(expires > (4000 + 3601'000 - 500 - 2) * kMs);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
