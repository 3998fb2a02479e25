#include <boost/test/unit_test.hpp>

#include <cstring>
#include <random>

#include "transport/frame_parser.h"
#include "transport/wire_format.h"
#include "util/bytes.h"
#include "util/crc32c.h"

namespace rmemfs {
namespace {

std::array<std::byte, wire::kHelloBytes> some_hello() {
  wire::Hello hello;
  hello.session = {Uuid::random(), MountEpoch(7), 3};
  hello.key = AccessKey::random();
  hello.incarnation = 99;
  std::array<std::byte, wire::kHelloBytes> bytes;
  wire::encode_hello(hello, bytes);
  return bytes;
}

wire::Request some_request(wire::Kind kind) {
  wire::Request request;
  request.kind = kind;
  request.slot = 5;
  request.id = 0x1234;
  if (kind == wire::Kind::kAttach) {
    request.region = RegionId(77);
    request.generation = Generation(8);
    request.key = AccessKey::random();
  } else {
    request.offset = 4096;
    request.length = kind == wire::Kind::kCompareSwap ? 8 : 100;
    if (kind == wire::Kind::kCompareSwap) request.expected = 1, request.desired = 2;
    if (kind == wire::Kind::kCompareSwap || kind == wire::Kind::kWrite) request.expires_ns = 0x1122334455667788;
  }
  return request;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(wire_format)

BOOST_AUTO_TEST_CASE(headers_come_back_as_they_were) {
  wire::Hello hello;
  hello.transport = TransportKind::kShm;
  hello.session = {Uuid::random(), MountEpoch(7), 3};
  hello.key = AccessKey::random();
  hello.incarnation = 99;
  std::array<std::byte, wire::kHelloBytes> bytes;
  wire::encode_hello(hello, bytes);
  const auto back = wire::decode_hello(bytes);
  BOOST_REQUIRE(back.ok());
  BOOST_TEST((back->transport == hello.transport && back->session.file_system == hello.session.file_system));
  BOOST_TEST((back->session.epoch == hello.session.epoch && back->session.lane == hello.session.lane));
  BOOST_TEST((back->key.bytes == hello.key.bytes && back->incarnation == hello.incarnation));
  for (int k = 1; k <= 5; ++k) {
    const wire::Request request = some_request(static_cast<wire::Kind>(k));
    std::array<std::byte, wire::kRequestBytes> header;
    wire::encode_request(request, header);
    const auto decoded = wire::decode_request(header);
    BOOST_REQUIRE(decoded.ok());
    BOOST_TEST((decoded->kind == request.kind && decoded->slot == request.slot && decoded->id == request.id));
    BOOST_TEST((decoded->offset == request.offset && decoded->length == request.length));
    BOOST_TEST((decoded->expected == request.expected && decoded->desired == request.desired));
    BOOST_TEST(decoded->expires_ns == request.expires_ns);
    BOOST_TEST((decoded->region == request.region && decoded->generation == request.generation));
    BOOST_TEST((decoded->key.bytes == request.key.bytes));
  }
}

BOOST_AUTO_TEST_CASE(the_node_s_clock_comes_through_and_must_be_one) {
  std::array<std::byte, wire::kReplyBytes> reply;
  wire::encode_reply({.ok = true, .clock_ns = 77}, reply);
  BOOST_TEST(wire::decode_reply(reply)->clock_ns == 77u);
  wire::encode_reply({.ok = true, .clock_ns = UINT64_MAX}, reply);
  BOOST_TEST(!wire::decode_reply(reply).ok());
  std::array<std::byte, wire::kHelloReplyBytes> greeting;
  for (const TransportKind transport : {TransportKind::kTcp, TransportKind::kShm}) {
    wire::encode_hello_reply(transport, {.ok = true, .clock_ns = 78}, greeting);
    BOOST_TEST(wire::decode_hello_reply(transport, greeting)->clock_ns == 78u);
    for (const std::uint64_t none : {std::uint64_t{0}, UINT64_MAX}) {
      wire::encode_hello_reply(transport, {.ok = true, .clock_ns = none}, greeting);
      BOOST_TEST(!wire::decode_hello_reply(transport, greeting).ok());
    }
  }
}

BOOST_AUTO_TEST_CASE(arguments_that_a_kind_does_not_have_are_refused) {
  for (const wire::Kind kind : {wire::Kind::kRead, wire::Kind::kWrite, wire::Kind::kPersist, wire::Kind::kAttach}) {
    std::array<std::byte, wire::kRequestBytes> header;
    wire::encode_request(some_request(kind), header);
    header[wire::RequestLayout::kArguments + 16] = std::byte{1};
    store_le(header.data(), crc32c(std::span(header).subspan(4)));
    BOOST_TEST(!wire::decode_request(header).ok());
  }
}

BOOST_AUTO_TEST_CASE(any_changed_byte_is_noticed) {
  const auto hello = some_hello();
  for (std::size_t i = 0; i < hello.size(); ++i) {
    auto damaged = hello;
    damaged[i] ^= std::byte{0x40};
    BOOST_TEST(!wire::decode_hello(damaged).ok());
  }
  std::array<std::byte, wire::kRequestBytes> request;
  wire::encode_request(some_request(wire::Kind::kWrite), request);
  for (std::size_t i = 0; i < request.size(); ++i) {
    auto damaged = request;
    damaged[i] ^= std::byte{0x40};
    BOOST_TEST(!wire::decode_request(damaged).ok());
  }
  std::array<std::byte, wire::kReplyBytes> reply;
  wire::encode_reply({.ok = true, .id = 4, .length = 5}, reply);
  for (std::size_t i = 0; i < reply.size(); ++i) {
    auto damaged = reply;
    damaged[i] ^= std::byte{0x40};
    BOOST_TEST(!wire::decode_reply(damaged).ok());
  }
}

BOOST_AUTO_TEST_CASE(impossible_numbers_are_refused_though_the_checksum_fits) {
  const auto refused = [](const wire::Request& request) {
    std::array<std::byte, wire::kRequestBytes> header;
    wire::encode_request(request, header);
    return !wire::decode_request(header).ok();
  };
  wire::Request request = some_request(wire::Kind::kWrite);
  request.length = kMaxOperationBytes + 1;
  BOOST_TEST(refused(request));
  request = some_request(wire::Kind::kRead);
  request.slot = wire::kSlots;
  BOOST_TEST(refused(request));
  request = some_request(wire::Kind::kRead);
  request.id = 0;
  BOOST_TEST(refused(request));
  request = some_request(wire::Kind::kCompareSwap);
  request.length = 16;
  BOOST_TEST(refused(request));
  request = some_request(wire::Kind::kRead);
  request.kind = static_cast<wire::Kind>(6);
  BOOST_TEST(refused(request));
}

BOOST_AUTO_TEST_CASE(statuses_survive_the_wire_or_become_unreachable) {
  for (const Errc code : {Errc::kVersion, Errc::kRefused, Errc::kFenced, Errc::kRegionLost, Errc::kNotFound,
                          Errc::kOutOfBounds, Errc::kNotPermitted, Errc::kInvalid}) {
    BOOST_TEST((wire::errc_of(wire::status_of(code)) == code));
  }
  BOOST_TEST((wire::errc_of(wire::status_of(Errc::kStore)) == Errc::kUnreachable));
  BOOST_TEST((wire::errc_of(60000) == Errc::kProtocol));
}

BOOST_AUTO_TEST_CASE(bounds_hold_at_the_edges) {
  wire::Request request = some_request(wire::Kind::kWrite);
  request.offset = 100;
  request.length = 28;
  BOOST_TEST(wire::check_bounds(request, 128, true).ok);
  BOOST_TEST(!wire::check_bounds(request, 127, true).ok);
  BOOST_TEST(!wire::check_bounds(request, 128, false).ok);
  request.offset = UINT64_MAX;
  BOOST_TEST(!wire::check_bounds(request, 128, true).ok);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(frame_parser)

BOOST_AUTO_TEST_CASE(the_same_frames_are_found_however_the_stream_is_cut) {
  std::vector<std::byte> stream;
  const auto append = [&](std::span<const std::byte> bytes) {
    stream.insert(stream.end(), bytes.begin(), bytes.end());
  };
  append(some_hello());
  std::array<std::byte, wire::kRequestBytes> header;
  for (const wire::Kind kind : {wire::Kind::kAttach, wire::Kind::kWrite, wire::Kind::kRead, wire::Kind::kWrite}) {
    wire::encode_request(some_request(kind), header);
    append(header);
    if (kind == wire::Kind::kWrite) append(std::vector<std::byte>(100, std::byte{0xee}));
  }
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    FrameParser parser;
    std::size_t begin = 0, end = 0, hellos = 0, requests = 0, payload = 0;
    while (begin < stream.size()) {
      const auto found = parser.next(std::span(stream).subspan(begin, end - begin));
      begin += found.used;
      if (found.step == FrameParser::Step::kNeedMore) {
        BOOST_REQUIRE(end < stream.size());
        end = std::min(stream.size(), end + 1 + random() % 90);
      }
      hellos += found.step == FrameParser::Step::kHello;
      requests += found.step == FrameParser::Step::kRequest;
      payload += found.step == FrameParser::Step::kPayload ? found.used : 0;
      BOOST_REQUIRE((found.step != FrameParser::Step::kBroken));
    }
    BOOST_TEST(hellos == 1u);
    BOOST_TEST(requests == 4u);
    BOOST_TEST(payload == 200u);
  }
}

BOOST_AUTO_TEST_CASE(a_foreign_stream_is_broken_at_its_first_byte_and_stays_broken) {
  FrameParser parser;
  const std::byte byte{'P'};
  BOOST_TEST((parser.next(std::span(&byte, 1)).step == FrameParser::Step::kBroken));
  BOOST_TEST((parser.next(some_hello()).step == FrameParser::Step::kBroken));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
