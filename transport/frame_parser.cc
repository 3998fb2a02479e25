#include "transport/frame_parser.h"

#include <algorithm>
#include <cstring>

#include "transport/target.h"
#include "util/check.h"

namespace rmemfs {

FrameParser::Found FrameParser::broken(Error error) {
  broken_ = true;
  error_ = std::move(error);
  return {Step::kBroken, 0};
}

FrameParser::Found FrameParser::next(std::span<const std::byte> bytes) {
  if (broken_) return {Step::kBroken, 0};
  if (bytes.empty()) return {Step::kNeedMore, 0};
  if (!greeted_) {
    // A stream of another kind is refused by its first wrong byte; it may never send as many as a hello has.
    const std::size_t seen = std::min(bytes.size(), wire::kMagicBytes);
    if (std::memcmp(bytes.data(), kTcpMagic, seen) != 0 && std::memcmp(bytes.data(), kShmMagic, seen) != 0) {
      return broken(Error(Errc::kProtocol, "hello: magic"));
    }
    if (bytes.size() < wire::kHelloBytes) return {Step::kNeedMore, 0};
    auto hello = wire::decode_hello(bytes.first<wire::kHelloBytes>());
    if (!hello.ok()) return broken(std::move(hello).error());
    hello_ = *hello;
    greeted_ = true;
    return {Step::kHello, wire::kHelloBytes};
  }
  if (payload_left_ > 0) {
    const std::size_t used = static_cast<std::size_t>(std::min<std::uint64_t>(payload_left_, bytes.size()));
    payload_left_ -= used;
    return {Step::kPayload, used};
  }
  if (bytes.size() < wire::kRequestBytes) return {Step::kNeedMore, 0};
  auto request = wire::decode_request(bytes.first<wire::kRequestBytes>());
  if (!request.ok()) return broken(std::move(request).error());
  request_ = *request;
  if (request_.kind == wire::Kind::kWrite) payload_left_ = request_.length;
  return {Step::kRequest, wire::kRequestBytes};
}

void FrameParser::skip_payload(std::uint64_t bytes) {
  CHECK(bytes <= payload_left_);
  payload_left_ -= bytes;
}

}  // namespace rmemfs
