// FrameParser: cuts the bytes that a node receives on one stream into hello, requests and payload. Pure: no descriptor,
// no memory of its own beyond one header, so a fuzzer drives it alone. Not thread-safe.
//
// Invariants:
//   - nothing is reported that has not passed wire_format's checks; after kBroken it says kBroken for ever;
//   - kPayload never reports more than the WRITE's length, and a request only follows a complete payload;
//   - `used` is never more than the bytes given, and no progress (used == 0) is only said with kNeedMore or kBroken.
#pragma once

#include <cstdint>
#include <span>

#include "transport/wire_format.h"

namespace rmemfs {

class FrameParser {
 public:
  enum class Step : std::uint8_t { kNeedMore, kHello, kRequest, kPayload, kBroken };
  struct Found {
    Step step;
    std::size_t used;  // kPayload: bytes.first(used) belong to request()
  };

  // Looks at the front of `bytes`, which the caller then drops `used` of. With kNeedMore it calls again with the same
  // bytes and more behind them; no header is longer than kHelloBytes.
  Found next(std::span<const std::byte> bytes);

  const wire::Hello& hello() const { return hello_; }
  const wire::Request& request() const { return request_; }
  std::uint64_t payload_left() const { return payload_left_; }
  // The caller received this much of the payload by itself, straight to its place.
  void skip_payload(std::uint64_t bytes);
  const Error& error() const { return error_; }  // of kBroken

 private:
  Found broken(Error error);

  bool greeted_ = false;
  bool broken_ = false;
  std::uint64_t payload_left_ = 0;
  wire::Hello hello_;
  wire::Request request_;
  Error error_{Errc::kProtocol};
};

}  // namespace rmemfs
