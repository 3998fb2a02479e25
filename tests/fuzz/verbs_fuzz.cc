// Fuzz target: what agent and node read from each other over verbs. The first byte says which of the four it is. What a
// decoder accepts is encoded to the same bytes, and an accepted region is walked through as an agent does.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include "transport/verbs_format.h"
#include "util/check.h"

namespace rmemfs {
namespace {

template <std::size_t Size>
void same(std::span<const std::byte, Size> encoded, std::span<const std::byte> from) {
  CHECK(from.size() >= Size && std::memcmp(encoded.data(), from.data(), Size) == 0);
}

void walk(const verbs::Reply& region, std::uint64_t seed) {
  if (region.pieces.empty()) return;
  const std::uint64_t offset = seed % region.length;
  std::uint64_t left = std::min<std::uint64_t>(region.length - offset, 1 << 20), at = offset;
  for (int steps = 0; left > 0 && steps < 64; ++steps) {
    const verbs::Part part = verbs::first_part(region, at, left, 1 << 16);
    CHECK(part.length > 0 && part.length <= left);
    const std::size_t index = at / region.piece_bytes;
    CHECK(part.address - region.pieces[index].address + part.length <= region.piece_bytes);
    at += part.length;
    left -= part.length;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data + 1), size - 1);
  switch (data[0] % 4) {
    case 0:
      if (const auto hello = verbs::decode_hello(bytes); hello.ok()) {
        std::array<std::byte, verbs::kHelloBytes> again;
        verbs::encode_hello(*hello, again);
        same(std::span<const std::byte, verbs::kHelloBytes>(again), bytes);
      }
      break;
    case 1:
      if (const auto answer = verbs::decode_answer(bytes); answer.ok() && answer->ok) {
        std::array<std::byte, verbs::kAnswerBytes> again;
        verbs::encode_answer(*answer, again);
        same(std::span<const std::byte, verbs::kAnswerBytes>(again), bytes);
      }
      break;
    case 2:
      if (const auto request = verbs::decode_request(bytes); request.ok()) {
        std::array<std::byte, verbs::kRequestBytes> again;
        verbs::encode_request(*request, again);
        same(std::span<const std::byte, verbs::kRequestBytes>(again), bytes);
      }
      break;
    default:
      if (const auto reply = verbs::decode_reply(bytes); reply.ok() && reply->ok) {
        std::array<std::byte, verbs::kMaxReplyBytes> again;
        CHECK(verbs::encode_reply(*reply, again) == bytes.size());
        CHECK(std::memcmp(again.data(), bytes.data(), bytes.size()) == 0);
        walk(*reply, reply->id);
      }
  }
  return 0;
}

}  // namespace rmemfs
