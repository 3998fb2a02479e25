// Fuzz target: the bytes of one data-plane stream as a node cuts and checks them, and the agent's decoders. The first
// byte says how the rest is cut, so that splits are explored too.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "transport/frame_parser.h"
#include "transport/wire_format.h"
#include "util/check.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kRegionBytes = 4096;

// What a node does with frames, on a region of a page: nothing may be stored outside.
void serve(std::span<const std::byte> stream, std::size_t piece) {
  FrameParser parser;
  std::vector<std::byte> region(kRegionBytes);
  std::size_t begin = 0, end = 0;
  std::uint64_t at = 0;
  bool dropping = true;
  for (;;) {
    const auto found = parser.next(stream.subspan(begin, end - begin));
    CHECK(found.used <= end - begin);
    switch (found.step) {
      case FrameParser::Step::kNeedMore:
        if (end == stream.size()) return;
        end = std::min(stream.size(), end + piece);
        break;
      case FrameParser::Step::kBroken:
        return;
      case FrameParser::Step::kHello:
        break;
      case FrameParser::Step::kRequest: {
        const wire::Request& request = parser.request();
        CHECK(request.slot < wire::kSlots);
        if (request.kind == wire::Kind::kAttach) break;
        dropping = !wire::check_bounds(request, kRegionBytes, true).ok;
        at = request.offset;
        if (!dropping) CHECK(request.offset + request.length <= kRegionBytes);
        break;
      }
      case FrameParser::Step::kPayload:
        CHECK(found.used > 0);
        if (!dropping) std::memcpy(region.data() + at, stream.data() + begin, found.used);
        at += found.used;
        break;
    }
    begin += found.used;
  }
}

template <std::size_t Size, typename Decode>
void decode(std::span<const std::byte> bytes, Decode decoder) {
  if (bytes.size() < Size) return;
  (void)decoder(bytes.template first<Size>());
}

// As above with checksums made right, so that the fuzzer gets behind them.
std::vector<std::byte> sealed(std::span<const std::byte> bytes) {
  std::vector<std::byte> out(bytes.begin(), bytes.end());
  if (out.size() < wire::kHelloBytes) return out;
  wire::Hello hello;
  hello.session.lane = static_cast<std::uint32_t>(out[0]);
  wire::encode_hello(hello, std::span<std::byte, wire::kHelloBytes>(out.data(), wire::kHelloBytes));
  std::size_t at = wire::kHelloBytes;
  while (out.size() - at >= wire::kRequestBytes) {
    using L = wire::RequestLayout;
    wire::Request request;
    request.kind = static_cast<wire::Kind>(1 + std::to_integer<unsigned>(out[at + L::kKind]) % 5);
    std::memcpy(&request.slot, out.data() + at + L::kSlot, 4);
    std::memcpy(&request.id, out.data() + at + L::kId, 8);
    std::memcpy(&request.offset, out.data() + at + L::kOffset, 8);
    std::memcpy(&request.length, out.data() + at + L::kLength, 8);
    std::memcpy(&request.expires_ns, out.data() + at + L::kArguments, 8);
    wire::encode_request(request, std::span<std::byte, wire::kRequestBytes>(out.data() + at, wire::kRequestBytes));
    at += wire::kRequestBytes;
    if (request.kind == wire::Kind::kWrite)
      at += static_cast<std::size_t>(std::min<std::uint64_t>(request.length, out.size() - at));
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  const std::size_t piece = std::size_t{data[0]} + 1;
  serve(bytes, piece);
  serve(sealed(bytes), piece);
  decode<wire::kHelloBytes>(bytes, wire::decode_hello);
  decode<wire::kRequestBytes>(bytes, wire::decode_request);
  decode<wire::kReplyBytes>(bytes, wire::decode_reply);
  for (const TransportKind transport : {TransportKind::kShm, TransportKind::kTcp}) {
    decode<wire::kHelloReplyBytes>(bytes, [&](auto header) { return wire::decode_hello_reply(transport, header); });
  }
  return 0;
}

}  // namespace rmemfs
