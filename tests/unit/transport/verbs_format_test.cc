// The bytes of the verbs provider, and its arithmetic; needs no device.
#include <boost/test/unit_test.hpp>

#include <cstring>

#include "transport/verbs_format.h"
#include "transport/verbs_link.h"

namespace rmemfs {
namespace {

verbs::Reply region_of(std::uint64_t length, std::uint64_t piece_bytes) {
  verbs::Reply reply;
  reply.ok = reply.writable = true;
  reply.id = 7;
  reply.length = length;
  reply.piece_bytes = piece_bytes;
  for (std::uint64_t i = 0; i < verbs::pieces_of(length, piece_bytes); ++i) {
    reply.pieces.push_back({0x10000000 * (i + 1), static_cast<std::uint32_t>(100 + i)});
  }
  return reply;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(verbs_format)

BOOST_AUTO_TEST_CASE(a_hello_comes_back_and_zeros_behind_it_do_not_matter) {
  verbs::Hello hello;
  hello.session = {Uuid::random(), MountEpoch(77), 0xfffffffe};
  hello.key = AccessKey::random();
  hello.incarnation = 0x1122334455667788;
  std::array<std::byte, 196> bytes{};
  verbs::encode_hello(hello, std::span(bytes).first<verbs::kHelloBytes>());
  for (const std::size_t size : {verbs::kHelloBytes, bytes.size()}) {
    const auto back = verbs::decode_hello(std::span(bytes).first(size));
    BOOST_REQUIRE(back.ok());
    BOOST_TEST((back->session.file_system == hello.session.file_system && back->session.epoch == MountEpoch(77)));
    BOOST_TEST((back->session.lane == 0xfffffffe && back->incarnation == hello.incarnation));
    BOOST_TEST(back->key.matches(hello.key));
  }
  BOOST_TEST(!verbs::decode_hello(std::span(bytes).first(verbs::kHelloBytes - 1)).ok());
  bytes[100] = std::byte{1};
  BOOST_TEST(!verbs::decode_hello(bytes).ok());
  bytes[100] = std::byte{0};
  bytes[verbs::HelloLayout::kVersion] = std::byte{verbs::kVersion + 1};
  const auto other = verbs::decode_hello(bytes);
  BOOST_TEST((!other.ok() && other.error().code == Errc::kVersion));
}

BOOST_AUTO_TEST_CASE(an_answer_is_a_grant_or_a_reason) {
  std::array<std::byte, verbs::kAnswerBytes> bytes;
  verbs::encode_answer({.ok = true, .credits = 32, .instance = 9}, bytes);
  auto back = verbs::decode_answer(bytes);
  BOOST_TEST((back.ok() && back->ok && back->credits == 32 && back->instance == 9u));
  verbs::encode_answer({.ok = false, .status = Errc::kFenced}, bytes);
  back = verbs::decode_answer(bytes);
  BOOST_TEST((back.ok() && !back->ok && back->status == Errc::kFenced));
  verbs::encode_answer({.ok = true, .credits = 0, .instance = 9}, bytes);
  BOOST_TEST(!verbs::decode_answer(bytes).ok());
  verbs::encode_answer({.ok = true, .credits = 32, .instance = 0}, bytes);
  BOOST_TEST(!verbs::decode_answer(bytes).ok());
}

BOOST_AUTO_TEST_CASE(requests_of_both_kinds_come_back) {
  verbs::Request attach;
  attach.id = 5;
  attach.region = RegionId(6);
  attach.generation = Generation(7);
  attach.key = AccessKey::random();
  std::array<std::byte, verbs::kRequestBytes> bytes;
  verbs::encode_request(attach, bytes);
  auto back = verbs::decode_request(bytes);
  BOOST_TEST((back.ok() && back->kind == verbs::Kind::kAttach && back->region == RegionId(6)));
  BOOST_TEST((back->generation == Generation(7) && back->key.matches(attach.key)));
  verbs::Request persist;
  persist.kind = verbs::Kind::kPersist;
  persist.offset = 4096;
  persist.length = 8192;
  verbs::encode_request(persist, bytes);
  back = verbs::decode_request(bytes);
  BOOST_TEST((back.ok() && back->kind == verbs::Kind::kPersist && back->offset == 4096u && back->length == 8192u));
  bytes[0] = std::byte{3};
  BOOST_TEST(!verbs::decode_request(bytes).ok());
}

BOOST_AUTO_TEST_CASE(a_reply_s_pieces_cover_the_region_exactly) {
  std::array<std::byte, verbs::kMaxReplyBytes> bytes;
  const verbs::Reply region = region_of(5 << 20, 2 << 20);
  const std::size_t size = verbs::encode_reply(region, bytes);
  auto back = verbs::decode_reply(std::span(bytes).first(size));
  BOOST_REQUIRE((back.ok() && back->ok && back->pieces.size() == 3u));
  BOOST_TEST((back->pieces[2].rkey == 102u && back->writable && back->length == 5u << 20));
  BOOST_TEST(!verbs::decode_reply(std::span(bytes).first(size - 1)).ok());
  BOOST_TEST(!verbs::decode_reply(std::span(bytes).first(size - verbs::kPieceBytes)).ok());
  verbs::Reply short_of = region;
  short_of.pieces.pop_back();
  BOOST_TEST(!verbs::decode_reply(std::span(bytes).first(verbs::encode_reply(short_of, bytes))).ok());
  verbs::Reply failed;
  failed.status = Errc::kRegionLost;
  back = verbs::decode_reply(std::span(bytes).first(verbs::encode_reply(failed, bytes)));
  BOOST_TEST((back.ok() && !back->ok && back->status == Errc::kRegionLost));
}

BOOST_AUTO_TEST_CASE(parts_end_at_pieces_and_at_the_largest_message) {
  const verbs::Reply region = region_of(10000, 4096);
  verbs::Part part = verbs::first_part(region, 0, 10000, 1 << 20);
  BOOST_TEST((part.address == 0x10000000u && part.rkey == 100u && part.length == 4096u));
  part = verbs::first_part(region, 4095, 2, 1 << 20);
  BOOST_TEST((part.address == 0x10000fffu && part.length == 1u));
  part = verbs::first_part(region, 4096, 2, 1 << 20);
  BOOST_TEST((part.address == 0x20000000u && part.rkey == 101u && part.length == 2u));
  part = verbs::first_part(region, 8192, 1808, 1000);
  BOOST_TEST((part.address == 0x30000000u && part.length == 1000u));
}

BOOST_AUTO_TEST_CASE(pieces_grow_until_a_reply_holds_them) {
  BOOST_TEST(verbs::piece_size(64 << 20, 1 << 30) == 1u << 30);
  BOOST_TEST(verbs::piece_size(std::uint64_t{61} << 30, 1 << 30) == 1u << 30);
  BOOST_TEST(verbs::piece_size((std::uint64_t{61} << 30) + 1, 1 << 30) == std::uint64_t{2} << 30);
  BOOST_TEST(verbs::pieces_of(std::uint64_t{1} << 46, verbs::piece_size(std::uint64_t{1} << 46, 4096)) <=
             verbs::kMaxPieces);
}

BOOST_AUTO_TEST_CASE(resends_end_within_half_the_deadline) {
  for (const std::uint32_t deadline_ms : {100u, 1000u, 3000u, 10000u, 60000u}) {
    const std::uint8_t exponent = ack_timeout_for(deadline_ms);
    BOOST_TEST((exponent >= 8 && exponent <= 17));
    if (exponent > 8) BOOST_TEST((kRetries + 1) * (4096ull << exponent) <= std::uint64_t{deadline_ms} * 500'000);
  }
  BOOST_TEST(static_cast<int>(ack_timeout_for(10000)) == 17);
  BOOST_TEST(kRetries < 7);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
