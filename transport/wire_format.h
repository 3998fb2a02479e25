// The bytes on a data-plane stream, for tcp and for shm's unix socket. Little-endian, fixed width.
//
// A stream is: one Hello from the agent, one HelloReply from the node, then Requests one way and Replies the other,
// each followed by its payload. The agent sends nothing after the Hello before it has read an OK, so a node that
// refuses a stream has executed nothing of it.
//
//   tcp   all kinds of request. WRITE carries payload; the reply to a READ carries payload. Replies may come in any
//   order. shm   ATTACH and PERSIST only; the HelloReply carries the pool's descriptor (SCM_RIGHTS), its size and the
//   offset of
//         the epoch word; the reply to an ATTACH carries the region's pool offset. READ, WRITE and COMPARE_SWAP are
//         loads and stores of the agent, and no message.
//
// A region is named by a slot, a small number that the agent chooses and binds with ATTACH. An ATTACH with request id 0
// has no reply: when it failed, the operations on its slot fail with its error. Binding a slot again replaces what it
// was.
//
// The node tells its clock (nanoseconds, CLOCK_MONOTONIC) in the HelloReply and in every Reply, read when it made them.
// A WRITE or COMPARE_SWAP says until when, in that clock, it may touch memory (expires; 0: no limit); then it fails
// with kDeadline. NodeClock has how the agent computes it.
//
// Every header has a CRC32C over its bytes after the crc field; reserved bytes are zero and checked. The decoders take
// exactly the header's size and say kProtocol for anything that is not one (kVersion for a Hello of another version).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "transport/connection.h"
#include "util/ids.h"
#include "util/result.h"

namespace rmemfs::wire {

inline constexpr std::uint16_t kVersion = 1;
inline constexpr std::size_t kMagicBytes = 8;
inline constexpr std::size_t kHelloBytes = 96;
inline constexpr std::size_t kHelloReplyBytes = 40;
inline constexpr std::size_t kRequestBytes = 64;
inline constexpr std::size_t kReplyBytes = 40;
inline constexpr std::uint32_t kSlots = 4096;  // region slots of one stream

// Field offsets. Hello: magic, crc over [12, 96), version, session, key, incarnation.
struct HelloLayout {
  static constexpr std::size_t kMagic = 0;         // 8 bytes
  static constexpr std::size_t kCrc = 8;           // u32
  static constexpr std::size_t kVersion = 12;      // u16, here in every version
  static constexpr std::size_t kReserved0 = 14;    // 2 bytes
  static constexpr std::size_t kFileSystem = 16;   // 16 bytes
  static constexpr std::size_t kEpoch = 32;        // u64
  static constexpr std::size_t kLane = 40;         // u32
  static constexpr std::size_t kReserved1 = 44;    // 4 bytes
  static constexpr std::size_t kKey = 48;          // 16 bytes
  static constexpr std::size_t kIncarnation = 64;  // u64, grows with each stream of a session
  static constexpr std::size_t kReserved2 = 72;    // 24 bytes
  static constexpr std::size_t kEnd = 96;
};
static_assert(HelloLayout::kEnd == kHelloBytes);

struct HelloReplyLayout {
  static constexpr std::size_t kMagic = 0;         // 8 bytes
  static constexpr std::size_t kCrc = 8;           // u32 over [12, 40)
  static constexpr std::size_t kVersion = 12;      // u16, the node's
  static constexpr std::size_t kStatus = 14;       // u16
  static constexpr std::size_t kPoolSize = 16;     // u64, shm; else 0
  static constexpr std::size_t kEpochOffset = 24;  // u64, shm
  static constexpr std::size_t kBoot = 24;         // u64, tcp: RegionSource::boot()
  static constexpr std::size_t kClock = 32;        // u64, the node's clock; not 0 in an OK
  static constexpr std::size_t kEnd = 40;
};
static_assert(HelloReplyLayout::kEnd == kHelloReplyBytes);

struct RequestLayout {
  static constexpr std::size_t kCrc = 0;         // u32 over [4, 64)
  static constexpr std::size_t kKind = 4;        // u8
  static constexpr std::size_t kReserved = 5;    // 3 bytes
  static constexpr std::size_t kSlot = 8;        // u32, below kSlots
  static constexpr std::size_t kReserved1 = 12;  // u32
  static constexpr std::size_t kId = 16;         // u64, the reply repeats it; 0 only in ATTACH
  static constexpr std::size_t kOffset = 24;     // u64; ATTACH: region id
  static constexpr std::size_t kLength = 32;     // u64; ATTACH: generation; COMPARE_SWAP: 8
  // 24 bytes. WRITE: expires u64, zero; COMPARE_SWAP: expected u64, desired u64, expires u64; ATTACH: key 16, zero.
  static constexpr std::size_t kArguments = 40;
  static constexpr std::size_t kEnd = 64;
};
static_assert(RequestLayout::kEnd == kRequestBytes);

struct ReplyLayout {
  static constexpr std::size_t kCrc = 0;      // u32 over [4, 40)
  static constexpr std::size_t kStatus = 4;   // u16
  static constexpr std::size_t kFlags = 6;    // u16, kReplyWritable
  static constexpr std::size_t kId = 8;       // u64
  static constexpr std::size_t kLength = 16;  // u64, payload that follows; ATTACH: the region's length, without payload
  static constexpr std::size_t kValue = 24;   // u64; COMPARE_SWAP: the value found; ATTACH: pool offset
  static constexpr std::size_t kClock = 32;   // u64, the node's clock
  static constexpr std::size_t kEnd = 40;
};
static_assert(ReplyLayout::kEnd == kReplyBytes);
inline constexpr std::uint16_t kReplyWritable = 1;  // ATTACH: the region may be written

enum class Kind : std::uint8_t { kAttach = 1, kRead = 2, kWrite = 3, kPersist = 4, kCompareSwap = 5 };

using Magic = std::array<char, kMagicBytes>;
Magic magic_of(TransportKind transport);  // kShm or kTcp

struct Hello {
  TransportKind transport = TransportKind::kTcp;
  SessionId session;
  AccessKey key;
  std::uint64_t incarnation = 0;
};
struct HelloReply {
  std::uint16_t version = kVersion;
  Errc status = Errc::kProtocol;  // meaningful when !ok
  bool ok = false;
  std::uint64_t pool_size = 0;
  std::uint64_t epoch_offset = 0;  // shm
  std::uint64_t boot = 0;          // tcp
  std::uint64_t clock_ns = 0;
};
struct Request {
  Kind kind = Kind::kRead;
  std::uint32_t slot = 0;
  std::uint64_t id = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t expected = 0;
  std::uint64_t desired = 0;
  std::uint64_t expires_ns = 0;  // kWrite, kCompareSwap
  RegionId region;               // kAttach
  Generation generation;         // kAttach
  AccessKey key;                 // kAttach
};
struct Reply {
  bool ok = false;
  Errc status = Errc::kProtocol;  // meaningful when !ok
  bool writable = false;
  std::uint64_t id = 0;
  std::uint64_t length = 0;
  std::uint64_t value = 0;
  std::uint64_t clock_ns = 0;
};

void encode_hello(const Hello& hello, std::span<std::byte, kHelloBytes> to);
Result<Hello> decode_hello(std::span<const std::byte, kHelloBytes> from);
void encode_hello_reply(TransportKind transport, const HelloReply& reply, std::span<std::byte, kHelloReplyBytes> to);
Result<HelloReply> decode_hello_reply(TransportKind transport, std::span<const std::byte, kHelloReplyBytes> from);
void encode_request(const Request& request, std::span<std::byte, kRequestBytes> to);
Result<Request> decode_request(std::span<const std::byte, kRequestBytes> from);
void encode_reply(const Reply& reply, std::span<std::byte, kReplyBytes> to);
Result<Reply> decode_reply(std::span<const std::byte, kReplyBytes> from);

// Status numbers are the wire's own: 0 is OK, and an unknown one decodes as kProtocol. A code that no peer can act on
// (a local file's error, say) is sent as kUnreachable.
std::uint16_t status_of(Errc code);
Errc errc_of(std::uint16_t status);  // status != 0

// May the operation be done on a region of this length? The node's whole check of numbers from the wire.
struct Verdict {
  bool ok;
  Errc error;
};
Verdict check_bounds(const Request& request, std::uint64_t region_length, bool writable);

}  // namespace rmemfs::wire
