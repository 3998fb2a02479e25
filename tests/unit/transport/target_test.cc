// The node's side against agents that are gone, hostile, slow or many.
#include <boost/test/unit_test.hpp>

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>

#include <cstring>
#include <random>

#include "tests/unit/transport/raw_stream.h"
#include "tests/unit/transport/test_node.h"

namespace rmemfs::test {
namespace {

bool wait_for_connections(const Target& target, std::size_t count) {
  for (int i = 0; i < 500; ++i) {
    if (target.connections() == count) return true;
    ::poll(nullptr, 0, 10);
  }
  return false;
}

long resident_kib() {
  rusage usage;
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(target)

BOOST_AUTO_TEST_CASE(a_write_cut_in_two_never_lands_after_its_session_is_back) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const RemoteRegion region = regions.lease({});
  const std::vector<std::byte> old_bytes(65536, std::byte{0x11}), new_bytes(65536, std::byte{0x22});
  for (std::uint64_t round = 0; round < 20; ++round) {
    const UniqueFd older = connect_raw(node.address());
    BOOST_REQUIRE(greet(older.get(), hello_of(regions, TransportKind::kTcp, 0, 2 * round + 1), TransportKind::kTcp).ok);
    send_attach(older.get(), region);
    wire::Request write;
    write.kind = wire::Kind::kWrite;
    write.id = 1;
    write.length = old_bytes.size();
    send_request(older.get(), write);
    send_all(older.get(), std::span(old_bytes).first(30000 + round * 1000));

    const UniqueFd newer = connect_raw(node.address());
    BOOST_REQUIRE(greet(newer.get(), hello_of(regions, TransportKind::kTcp, 0, 2 * round + 2), TransportKind::kTcp).ok);
    // From here on nothing of the older stream lands.
    std::memcpy(regions.memory(region), new_bytes.data(), new_bytes.size());
    send_all(older.get(), std::span(old_bytes).subspan(30000 + round * 1000));
    BOOST_TEST(ends(older.get(), 5000));
    BOOST_TEST(std::memcmp(regions.memory(region), new_bytes.data(), new_bytes.size()) == 0);
  }
}

BOOST_AUTO_TEST_CASE(an_older_stream_does_not_end_a_newer_one_of_its_session) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const UniqueFd newer = connect_raw(node.address());
  BOOST_REQUIRE(greet(newer.get(), hello_of(regions, TransportKind::kTcp, 0, 9), TransportKind::kTcp).ok);
  const UniqueFd older = connect_raw(node.address());
  send_all(older.get(), hello_of(regions, TransportKind::kTcp, 0, 8));
  BOOST_TEST(ends(older.get(), 5000));
  BOOST_TEST(!ends(newer.get(), 200));
}

BOOST_AUTO_TEST_CASE(a_stream_with_a_wrong_key_ends_nobody) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const UniqueFd honest = connect_raw(node.address());
  BOOST_REQUIRE(greet(honest.get(), hello_of(regions, TransportKind::kTcp, 0, 1), TransportKind::kTcp).ok);
  wire::Hello forged;
  forged.session = {regions.file_system, MountEpoch(1), 0};
  forged.key = AccessKey::random();
  forged.incarnation = 100;
  std::array<std::byte, wire::kHelloBytes> bytes;
  wire::encode_hello(forged, bytes);
  const UniqueFd intruder = connect_raw(node.address());
  const wire::HelloReply reply = greet(intruder.get(), bytes, TransportKind::kTcp);
  BOOST_TEST((!reply.ok && reply.status == Errc::kRefused));
  BOOST_TEST(ends(intruder.get(), 5000));
  BOOST_TEST(!ends(honest.get(), 200));
}

BOOST_AUTO_TEST_CASE(another_version_is_told_so) {
  TestRegions regions(8 << 20);
  for (const TransportKind transport : {TransportKind::kTcp, TransportKind::kShm}) {
    TestNode node(transport, regions);
    auto bytes = hello_of(regions, transport);
    bytes[wire::HelloLayout::kVersion] = std::byte{9};
    const UniqueFd stream = connect_raw(node.address());
    send_all(stream.get(), bytes);
    std::array<std::byte, wire::kHelloReplyBytes> answer;
    BOOST_REQUIRE(::recv(stream.get(), answer.data(), answer.size(), MSG_WAITALL) ==
                  static_cast<ssize_t>(answer.size()));
    const auto reply = wire::decode_hello_reply(transport, answer);
    BOOST_REQUIRE(reply.ok());
    BOOST_TEST((!reply->ok && reply->status == Errc::kVersion));
    BOOST_TEST(ends(stream.get(), 5000));
  }
}

BOOST_AUTO_TEST_CASE(a_revoked_region_is_lost_and_quiesce_makes_it_still) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const RemoteRegion region = regions.lease({});
  Driver driver(node.address(), options_for(regions));
  std::vector<std::byte> bytes(65536, std::byte{1});
  Operation before = write_of(region, 0, bytes.data(), bytes.size());
  BOOST_REQUIRE(driver.run(before));
  BOOST_REQUIRE(before.ok);
  std::vector<Operation> ops;
  for (int i = 0; i < 64; ++i) ops.push_back(write_of(region, 0, bytes.data(), bytes.size()));
  for (auto& op : ops) driver.post(op);
  driver.connection().submit();
  regions.revoke(region);
  node.target().quiesce();
  std::memset(regions.memory(region), 0, bytes.size());
  BOOST_REQUIRE(driver.drain());
  // Those that the node had done before are done; the others are refused, and so is every later one.
  for (const Operation& op : ops) BOOST_TEST((op.ok || op.error == Errc::kRegionLost));
  Operation after = write_of(region, 0, bytes.data(), bytes.size());
  BOOST_REQUIRE(driver.run(after));
  BOOST_TEST((!after.ok && after.error == Errc::kRegionLost));
  const std::vector<std::byte> zeros(bytes.size());
  BOOST_TEST(std::memcmp(regions.memory(region), zeros.data(), zeros.size()) == 0);
  Operation read = read_of(region, 0, bytes.data(), bytes.size());
  BOOST_REQUIRE(driver.run(read));
  BOOST_TEST((!read.ok && read.error == Errc::kRegionLost));
}

BOOST_AUTO_TEST_CASE(a_read_that_was_answered_in_part_shows_nothing_after_the_revocation) {
  TestRegions regions(32 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const RemoteRegion region = regions.lease({.length = 16 << 20});
  std::memset(regions.memory(region), 0x33, region.length_bytes);
  const UniqueFd stream = connect_raw(node.address());
  BOOST_REQUIRE(greet(stream.get(), hello_of(regions, TransportKind::kTcp), TransportKind::kTcp).ok);
  send_attach(stream.get(), region);
  wire::Request read;
  read.kind = wire::Kind::kRead;
  read.length = kMaxOperationBytes;
  for (read.id = 1; read.id < 9; ++read.id) send_request(stream.get(), read);
  ::poll(nullptr, 0, 100);  // the node fills the socket's buffers
  regions.revoke(region);
  node.target().quiesce();
  std::memset(regions.memory(region), 0x44, region.length_bytes);  // somebody else's bytes
  std::vector<std::byte> sink(1 << 20);
  std::size_t foreign = 0, total = 0;
  for (;;) {  // to the end of the stream, or to the last refusal if the node had sent nothing yet
    pollfd polled{stream.get(), POLLIN, 0};
    if (::poll(&polled, 1, 2000) == 0) break;
    const ssize_t n = ::recv(stream.get(), sink.data(), sink.size(), 0);
    if (n <= 0) break;
    total += static_cast<std::size_t>(n);
    for (std::size_t i = 0; i + 16 <= static_cast<std::size_t>(n); i += 16) {
      foreign +=
          std::all_of(sink.begin() + static_cast<std::ptrdiff_t>(i), sink.begin() + static_cast<std::ptrdiff_t>(i + 16),
                      [](std::byte b) { return b == std::byte{0x44}; });
    }
  }
  BOOST_TEST(total > 0u);
  BOOST_TEST(foreign == 0u);
}

BOOST_AUTO_TEST_CASE(random_bytes_and_cut_hellos_are_survived) {
  TestRegions regions(8 << 20);
  std::mt19937_64 random(7);
  for (const TransportKind transport : {TransportKind::kTcp, TransportKind::kShm}) {
    TestNode node(transport, regions, {.handshake_timeout_ms = 300});
    const auto hello = hello_of(regions, transport);
    std::vector<UniqueFd> silent;
    for (std::size_t i = 0; i < 200; ++i) {
      UniqueFd stream = connect_raw(node.address());
      std::vector<std::byte> bytes(random() % 4096);
      for (auto& byte : bytes) byte = static_cast<std::byte>(random());
      if (i % 4 == 0) {  // a cut hello, and then silence
        send_all(stream.get(), std::span(hello).first(i % wire::kHelloBytes));
        silent.push_back(std::move(stream));
      } else if (i % 4 == 1) {  // a good hello, then noise
        send_all(stream.get(), hello);
        send_all(stream.get(), bytes);
      } else if (i % 4 == 2) {  // a damaged hello
        auto damaged = hello;
        damaged[8 + random() % (wire::kHelloBytes - 8)] ^= static_cast<std::byte>(1 + random() % 255);
        send_all(stream.get(), damaged);
      } else {
        send_all(stream.get(), bytes);
      }
    }
    for (const UniqueFd& stream : silent) BOOST_TEST(ends(stream.get(), 5000));
    const RemoteRegion region = regions.lease({});
    Driver driver(node.address(), options_for(regions, 77));
    std::byte buffer[64] = {};
    Operation op = write_of(region, 0, buffer, sizeof buffer);
    BOOST_REQUIRE(driver.run(op));
    BOOST_TEST(op.ok);
    BOOST_TEST(wait_for_connections(node.target(), 1));
  }
}

BOOST_AUTO_TEST_CASE(good_headers_with_hostile_numbers_are_answered_or_closed) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const RemoteRegion region = regions.lease({.length = 65536, .writable = false});
  std::mt19937_64 random(11);
  const std::uint64_t numbers[] = {0,
                                   1,
                                   8,
                                   65535,
                                   65536,
                                   65537,
                                   kMaxOperationBytes,
                                   kMaxOperationBytes + 1,
                                   UINT64_MAX,
                                   UINT64_MAX - 7,
                                   std::uint64_t{1} << 63};
  for (std::uint64_t i = 0; i < 400; ++i) {
    const UniqueFd stream = connect_raw(node.address());
    BOOST_REQUIRE(greet(stream.get(), hello_of(regions, TransportKind::kTcp, 0, i + 1), TransportKind::kTcp).ok);
    send_attach(stream.get(), region, static_cast<std::uint32_t>(random() % wire::kSlots));
    for (int j = 0; j < 4; ++j) {
      wire::Request request;
      request.kind = static_cast<wire::Kind>(1 + random() % 5);
      request.slot = static_cast<std::uint32_t>(random() % 2 == 0 ? 0 : random() % (2 * wire::kSlots));
      request.id = random() % 3;
      request.offset = numbers[random() % std::size(numbers)];
      request.length = numbers[random() % std::size(numbers)];
      send_request(stream.get(), request);
    }
  }
  BOOST_TEST(node.target().connections() <= 2u + 400u);
}

BOOST_AUTO_TEST_CASE(an_agent_that_reads_no_replies_is_held_back_in_bounded_memory) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const RemoteRegion region = regions.lease({.length = 1 << 20});
  const UniqueFd stream = connect_raw(node.address());
  BOOST_REQUIRE(greet(stream.get(), hello_of(regions, TransportKind::kTcp), TransportKind::kTcp).ok);
  send_attach(stream.get(), region);
  ::fcntl(stream.get(), F_SETFL, O_NONBLOCK);
  const long before = resident_kib();
  wire::Request read;
  read.kind = wire::Kind::kRead;
  read.length = 1 << 20;
  std::array<std::byte, wire::kRequestBytes> bytes;
  std::size_t blocked = 0, sent = 0;
  for (read.id = 1; blocked < 50 && sent < 1000000; ++read.id) {
    wire::encode_request(read, bytes);
    const ssize_t n = ::send(stream.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n > 0)
      ++sent;
    else if (errno == EAGAIN)
      ++blocked, ::poll(nullptr, 0, 5);
    else
      break;
  }
  BOOST_TEST(blocked == 50u);  // the node stopped reading
  BOOST_TEST(resident_kib() - before < 32 * 1024);
  // Others are served meanwhile.
  Driver driver(node.address(), options_for(regions, 5));
  std::byte buffer[64] = {};
  Operation op = write_of(region, 0, buffer, sizeof buffer);
  BOOST_REQUIRE(driver.run(op));
  BOOST_TEST(op.ok);
}

BOOST_AUTO_TEST_CASE(a_held_back_agent_gets_every_reply_once_it_reads) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const RemoteRegion region = regions.lease({.length = 1 << 20});
  const UniqueFd stream = connect_raw(node.address());
  BOOST_REQUIRE(greet(stream.get(), hello_of(regions, TransportKind::kTcp), TransportKind::kTcp).ok);
  send_attach(stream.get(), region);
  constexpr std::uint64_t kCount = 3000;
  constexpr std::size_t kSize = 8192;
  std::thread sender([&] {
    wire::Request read;
    read.kind = wire::Kind::kRead;
    read.length = kSize;
    std::array<std::byte, wire::kRequestBytes> bytes;
    for (read.id = 1; read.id <= kCount; ++read.id) {
      wire::encode_request(read, bytes);
      send_all(stream.get(), bytes);
    }
  });
  ::poll(nullptr, 0, 200);
  std::vector<std::byte> payload(kSize);
  for (std::uint64_t id = 1; id <= kCount; ++id) {
    const wire::Reply reply = receive_reply(stream.get());
    BOOST_REQUIRE(reply.ok);
    BOOST_REQUIRE(reply.id == id);
    BOOST_REQUIRE(::recv(stream.get(), payload.data(), kSize, MSG_WAITALL) == static_cast<ssize_t>(kSize));
  }
  sender.join();
}

BOOST_AUTO_TEST_CASE(streams_that_end_right_behind_their_last_request_do_not_stay) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const RemoteRegion region = regions.lease({});
  for (std::uint32_t i = 0; i < 100; ++i) {
    const UniqueFd stream = connect_raw(node.address());
    BOOST_REQUIRE(greet(stream.get(), hello_of(regions, TransportKind::kTcp, i), TransportKind::kTcp).ok);
    send_attach(stream.get(), region);
    ::shutdown(stream.get(), SHUT_WR);  // one event for both, as often as not
  }
  BOOST_TEST(wait_for_connections(node.target(), 0));
}

BOOST_AUTO_TEST_CASE(more_streams_than_allowed_are_closed) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions, {.max_connections = 4});
  std::vector<UniqueFd> streams;
  for (std::uint32_t i = 0; i < 4; ++i) {
    streams.push_back(connect_raw(node.address()));
    BOOST_REQUIRE(greet(streams.back().get(), hello_of(regions, TransportKind::kTcp, i), TransportKind::kTcp).ok);
  }
  const UniqueFd fifth = connect_raw(node.address());
  BOOST_TEST(ends(fifth.get(), 5000));
  streams.clear();
  BOOST_TEST(wait_for_connections(node.target(), 0));
  const UniqueFd next = connect_raw(node.address());
  BOOST_TEST(greet(next.get(), hello_of(regions, TransportKind::kTcp), TransportKind::kTcp).ok);
}

BOOST_AUTO_TEST_CASE(a_thousand_connections_work_at_once) {
  rlimit files;
  BOOST_REQUIRE(::getrlimit(RLIMIT_NOFILE, &files) == 0);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  BOOST_REQUIRE(files.rlim_cur > 7000u);
  constexpr std::size_t kCount = 1000;
  TestRegions regions(16 << 20);
  TestNode node(TransportKind::kTcp, regions);
  const RemoteRegion region = regions.lease({.length = kCount * 4096});
  std::vector<std::unique_ptr<Driver>> drivers;
  std::vector<std::uint64_t> words(kCount), back(kCount);
  std::vector<Operation> ops(kCount);
  for (std::uint32_t i = 0; i < kCount; ++i) {
    words[i] = i * 3 + 1;
    drivers.push_back(std::make_unique<Driver>(node.address(), options_for(regions, i)));
    ops[i] = write_of(region, i * 4096, reinterpret_cast<std::byte*>(&words[i]), 8);
    ops[i].deadline = deadline_after_ms(60000);
    drivers[i]->post(ops[i]);
    drivers[i]->connection().submit();
  }
  for (auto& driver : drivers) BOOST_REQUIRE(driver->drain(60000));
  for (const auto& op : ops) BOOST_REQUIRE(op.ok);
  BOOST_TEST(node.target().connections() == kCount);
  for (std::uint32_t i = 0; i < kCount; ++i) {
    ops[i] = read_of(region, i * 4096, reinterpret_cast<std::byte*>(&back[i]), 8);
    ops[i].deadline = deadline_after_ms(60000);
    drivers[i]->post(ops[i]);
    drivers[i]->connection().submit();
  }
  for (auto& driver : drivers) BOOST_REQUIRE(driver->drain(60000));
  BOOST_TEST((words == back));
}

BOOST_AUTO_TEST_CASE(a_spinning_target_serves_as_well) {
  TestRegions regions(8 << 20);
  TestNode node(TransportKind::kTcp, regions, {.threads = 1, .spin_us = 500});
  const RemoteRegion region = regions.lease({});
  Driver one(node.address(), options_for(regions, 0)), two(node.address(), options_for(regions, 1));
  std::uint64_t word = 5, back = 0;
  for (std::uint64_t i = 0; i < 200; ++i) {
    word = i;
    Operation write = write_of(region, 0, reinterpret_cast<std::byte*>(&word), 8);
    Operation read = read_of(region, 0, reinterpret_cast<std::byte*>(&back), 8);
    BOOST_REQUIRE((one.run(write) && two.run(read)));
    BOOST_REQUIRE((write.ok && read.ok && back == i));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
