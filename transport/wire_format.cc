#include "transport/wire_format.h"

#include <algorithm>
#include <cstring>

#include "transport/node_clock.h"
#include "transport/target.h"
#include "util/bytes.h"
#include "util/check.h"
#include "util/crc32c.h"

namespace rmemfs::wire {
namespace {

struct StatusRow {
  std::uint16_t status;
  Errc code;
};
constexpr StatusRow kStatuses[] = {
    {1, Errc::kVersion},      {2, Errc::kRefused},     {3, Errc::kFenced},       {4, Errc::kRegionLost},
    {5, Errc::kNotFound},     {6, Errc::kOutOfBounds}, {7, Errc::kNotPermitted}, {8, Errc::kInvalid},
    {9, Errc::kNotSupported}, {10, Errc::kTooMany},    {11, Errc::kUnreachable}, {12, Errc::kProtocol},
    {13, Errc::kNoMemory},    {14, Errc::kBusy},       {15, Errc::kDeadline},
};

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

template <std::size_t Size>
void seal(std::span<std::byte, Size> header, std::size_t crc_at) {
  store_le(header.data() + crc_at, crc32c(header.subspan(crc_at + 4)));
}
template <std::size_t Size>
bool sealed(std::span<const std::byte, Size> header, std::size_t crc_at) {
  return load_le<std::uint32_t>(header.data() + crc_at) == crc32c(header.subspan(crc_at + 4));
}

// Of the 24 argument bytes, those that say something.
std::size_t argument_bytes(Kind kind) {
  switch (kind) {
    case Kind::kAttach:
      return 16;
    case Kind::kWrite:
      return 8;
    case Kind::kCompareSwap:
      return 24;
    case Kind::kRead:
    case Kind::kPersist:
      return 0;
  }
  return 0;
}

Error broken(const char* what) { return Error(Errc::kProtocol, what); }

}  // namespace

Magic magic_of(TransportKind transport) {
  static_assert(sizeof kTcpMagic == kMagicBytes + 1 && sizeof kShmMagic == kMagicBytes + 1);
  CHECK(transport != TransportKind::kVerbs);
  Magic magic;
  std::memcpy(magic.data(), transport == TransportKind::kTcp ? kTcpMagic : kShmMagic, kMagicBytes);
  return magic;
}

std::uint16_t status_of(Errc code) {
  for (const StatusRow& row : kStatuses) {
    if (row.code == code) return row.status;
  }
  return status_of(Errc::kUnreachable);
}

Errc errc_of(std::uint16_t status) {
  for (const StatusRow& row : kStatuses) {
    if (row.status == status) return row.code;
  }
  return Errc::kProtocol;
}

void encode_hello(const Hello& hello, std::span<std::byte, kHelloBytes> to) {
  using L = HelloLayout;
  std::memset(to.data(), 0, to.size());
  std::memcpy(to.data() + L::kMagic, magic_of(hello.transport).data(), kMagicBytes);
  store_le<std::uint16_t>(to.data() + L::kVersion, kVersion);
  std::memcpy(to.data() + L::kFileSystem, hello.session.file_system.bytes.data(), 16);
  store_le(to.data() + L::kEpoch, hello.session.epoch.value());
  store_le(to.data() + L::kLane, hello.session.lane);
  std::memcpy(to.data() + L::kKey, hello.key.bytes.data(), 16);
  store_le(to.data() + L::kIncarnation, hello.incarnation);
  seal(to, L::kCrc);
}

Result<Hello> decode_hello(std::span<const std::byte, kHelloBytes> from) {
  using L = HelloLayout;
  Hello hello;
  if (std::memcmp(from.data() + L::kMagic, kTcpMagic, kMagicBytes) == 0)
    hello.transport = TransportKind::kTcp;
  else if (std::memcmp(from.data() + L::kMagic, kShmMagic, kMagicBytes) == 0)
    hello.transport = TransportKind::kShm;
  else
    return broken("hello: magic");
  // Before the checksum: another version may lay out everything after the version differently.
  if (load_le<std::uint16_t>(from.data() + L::kVersion) != kVersion) return Error(Errc::kVersion, "hello");
  if (!sealed(from, L::kCrc)) return broken("hello: checksum");
  if (!all_zero(from.subspan(L::kReserved0, 2)) || !all_zero(from.subspan(L::kReserved1, 4)) ||
      !all_zero(from.subspan(L::kReserved2, 24))) {
    return broken("hello: reserved bytes");
  }
  std::memcpy(hello.session.file_system.bytes.data(), from.data() + L::kFileSystem, 16);
  hello.session.epoch = MountEpoch(load_le<std::uint64_t>(from.data() + L::kEpoch));
  hello.session.lane = load_le<std::uint32_t>(from.data() + L::kLane);
  std::memcpy(hello.key.bytes.data(), from.data() + L::kKey, 16);
  hello.incarnation = load_le<std::uint64_t>(from.data() + L::kIncarnation);
  return hello;
}

void encode_hello_reply(TransportKind transport, const HelloReply& reply, std::span<std::byte, kHelloReplyBytes> to) {
  using L = HelloReplyLayout;
  std::memset(to.data(), 0, to.size());
  std::memcpy(to.data() + L::kMagic, magic_of(transport).data(), kMagicBytes);
  store_le(to.data() + L::kVersion, reply.version);
  store_le<std::uint16_t>(to.data() + L::kStatus, reply.ok ? 0 : status_of(reply.status));
  store_le(to.data() + L::kPoolSize, reply.pool_size);
  if (transport == TransportKind::kShm) store_le(to.data() + L::kEpochOffset, reply.epoch_offset);
  if (transport == TransportKind::kTcp) store_le(to.data() + L::kBoot, reply.boot);
  store_le(to.data() + L::kClock, reply.clock_ns);
  seal(to, L::kCrc);
}

Result<HelloReply> decode_hello_reply(TransportKind transport, std::span<const std::byte, kHelloReplyBytes> from) {
  using L = HelloReplyLayout;
  if (std::memcmp(from.data() + L::kMagic, magic_of(transport).data(), kMagicBytes) != 0) {
    return broken("hello reply: magic");
  }
  HelloReply reply;
  reply.version = load_le<std::uint16_t>(from.data() + L::kVersion);
  if (reply.version != kVersion) return Error(Errc::kVersion, "hello reply");
  if (!sealed(from, L::kCrc)) return broken("hello reply: checksum");
  const auto status = load_le<std::uint16_t>(from.data() + L::kStatus);
  reply.ok = status == 0;
  if (!reply.ok) reply.status = errc_of(status);
  reply.pool_size = load_le<std::uint64_t>(from.data() + L::kPoolSize);
  if (transport == TransportKind::kShm) reply.epoch_offset = load_le<std::uint64_t>(from.data() + L::kEpochOffset);
  if (transport == TransportKind::kTcp) reply.boot = load_le<std::uint64_t>(from.data() + L::kBoot);
  reply.clock_ns = load_le<std::uint64_t>(from.data() + L::kClock);
  if (reply.clock_ns > kMaxClockNs || (reply.ok && reply.clock_ns == 0)) return broken("hello reply: clock");
  return reply;
}

void encode_request(const Request& request, std::span<std::byte, kRequestBytes> to) {
  using L = RequestLayout;
  std::memset(to.data(), 0, to.size());
  to[L::kKind] = static_cast<std::byte>(request.kind);
  store_le(to.data() + L::kSlot, request.slot);
  store_le(to.data() + L::kId, request.id);
  if (request.kind == Kind::kAttach) {
    store_le(to.data() + L::kOffset, request.region.value());
    store_le(to.data() + L::kLength, request.generation.value());
    std::memcpy(to.data() + L::kArguments, request.key.bytes.data(), 16);
  } else {
    store_le(to.data() + L::kOffset, request.offset);
    store_le(to.data() + L::kLength, request.length);
    std::byte* const arguments = to.data() + L::kArguments;
    if (request.kind == Kind::kWrite) {
      store_le(arguments, request.expires_ns);
    } else if (request.kind == Kind::kCompareSwap) {
      store_le(arguments, request.expected);
      store_le(arguments + 8, request.desired);
      store_le(arguments + 16, request.expires_ns);
    }
  }
  seal(to, L::kCrc);
}

Result<Request> decode_request(std::span<const std::byte, kRequestBytes> from) {
  using L = RequestLayout;
  if (!sealed(from, L::kCrc)) return broken("request: checksum");
  const auto kind = std::to_integer<std::uint8_t>(from[L::kKind]);
  if (kind < 1 || kind > 5) return broken("request: kind");
  if (!all_zero(from.subspan(L::kReserved, 3)) || !all_zero(from.subspan(L::kReserved1, 4)) ||
      !all_zero(from.subspan(L::kArguments).subspan(argument_bytes(static_cast<Kind>(kind))))) {
    return broken("request: reserved bytes");
  }
  Request request;
  request.kind = static_cast<Kind>(kind);
  request.slot = load_le<std::uint32_t>(from.data() + L::kSlot);
  request.id = load_le<std::uint64_t>(from.data() + L::kId);
  if (request.slot >= kSlots) return broken("request: slot");
  if (request.kind == Kind::kAttach) {
    request.region = RegionId(load_le<std::uint64_t>(from.data() + L::kOffset));
    request.generation = Generation(load_le<std::uint64_t>(from.data() + L::kLength));
    std::memcpy(request.key.bytes.data(), from.data() + L::kArguments, 16);
    return request;
  }
  request.offset = load_le<std::uint64_t>(from.data() + L::kOffset);
  request.length = load_le<std::uint64_t>(from.data() + L::kLength);
  const std::byte* const arguments = from.data() + L::kArguments;
  if (request.kind == Kind::kWrite) {
    request.expires_ns = load_le<std::uint64_t>(arguments);
  } else if (request.kind == Kind::kCompareSwap) {
    request.expected = load_le<std::uint64_t>(arguments);
    request.desired = load_le<std::uint64_t>(arguments + 8);
    request.expires_ns = load_le<std::uint64_t>(arguments + 16);
  }
  if (request.id == 0) return broken("request: id");
  // A length that cannot be is a broken stream and not a failed operation: nobody knows where the next header is.
  if ((request.kind == Kind::kRead || request.kind == Kind::kWrite) && request.length > kMaxOperationBytes) {
    return broken("request: length");
  }
  if (request.kind == Kind::kCompareSwap && request.length != 8) return broken("request: length");
  return request;
}

void encode_reply(const Reply& reply, std::span<std::byte, kReplyBytes> to) {
  using L = ReplyLayout;
  std::memset(to.data(), 0, to.size());
  store_le<std::uint16_t>(to.data() + L::kStatus, reply.ok ? 0 : status_of(reply.status));
  store_le<std::uint16_t>(to.data() + L::kFlags, reply.writable ? kReplyWritable : 0);
  store_le(to.data() + L::kId, reply.id);
  store_le(to.data() + L::kLength, reply.length);
  store_le(to.data() + L::kValue, reply.value);
  store_le(to.data() + L::kClock, reply.clock_ns);
  seal(to, L::kCrc);
}

Result<Reply> decode_reply(std::span<const std::byte, kReplyBytes> from) {
  using L = ReplyLayout;
  if (!sealed(from, L::kCrc)) return broken("reply: checksum");
  Reply reply;
  const auto status = load_le<std::uint16_t>(from.data() + L::kStatus);
  reply.ok = status == 0;
  if (!reply.ok) reply.status = errc_of(status);
  const auto flags = load_le<std::uint16_t>(from.data() + L::kFlags);
  if ((flags & ~kReplyWritable) != 0) return broken("reply: flags");
  reply.writable = (flags & kReplyWritable) != 0;
  reply.id = load_le<std::uint64_t>(from.data() + L::kId);
  reply.length = load_le<std::uint64_t>(from.data() + L::kLength);
  reply.value = load_le<std::uint64_t>(from.data() + L::kValue);
  reply.clock_ns = load_le<std::uint64_t>(from.data() + L::kClock);
  if (reply.clock_ns > kMaxClockNs) return broken("reply: clock");
  return reply;
}

Verdict check_bounds(const Request& request, std::uint64_t region_length, bool writable) {
  if (request.offset > region_length || request.length > region_length - request.offset) {
    return {false, Errc::kOutOfBounds};
  }
  if (request.kind == Kind::kCompareSwap && request.offset % 8 != 0) return {false, Errc::kInvalid};
  if ((request.kind == Kind::kWrite || request.kind == Kind::kCompareSwap) && !writable) {
    return {false, Errc::kNotPermitted};
  }
  return {true, Errc::kInvalid};
}

}  // namespace rmemfs::wire
