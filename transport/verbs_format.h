// The bytes that agent and node exchange over verbs, besides the one-sided operations themselves. Little-endian, fixed
// width.
//
// Connecting (rdma_cm): the connect request carries a VerbsHello, which is all of the 56 bytes that InfiniBand leaves
// an application; accept and reject carry a VerbsAnswer. A connection manager may give the receiver more bytes than
// were sent, filled with zeros.
//
// On the queue pair, by SEND: VerbsRequests one way and a VerbsReply for each the other way, in any order.
//
//   ATTACH   {region, generation, key}: may this session use the region, and where is it? The reply has its length and
//            its pieces: the region is registered in pieces of `piece_bytes`, the last one shorter, each with an
//            address and an rkey. They are good on every queue pair of this file system to the same instance of the
//            node's domain, which an accept names, until the region is given back.
//   PERSIST  {region, offset, length} of an attached region: the node makes what was written there persistent.
//
// No CRC of our own: the reliable transport carries one over every packet (ICRC). The decoders check lengths, kinds,
// and that reserved bytes are zero, and say kProtocol for what is not theirs (kVersion for another version's hello).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "transport/connection.h"
#include "util/ids.h"
#include "util/result.h"

namespace rmemfs::verbs {

inline constexpr std::uint16_t kMagic = 0x5652;  // "RV"
inline constexpr std::uint16_t kVersion = 2;
inline constexpr std::size_t kHelloBytes = 56;
inline constexpr std::size_t kAnswerBytes = 24;
inline constexpr std::size_t kRequestBytes = 64;
inline constexpr std::size_t kReplyHeadBytes = 40;
inline constexpr std::size_t kPieceBytes = 16;
inline constexpr std::size_t kMaxPieces = 61;
inline constexpr std::size_t kMaxReplyBytes = kReplyHeadBytes + kMaxPieces * kPieceBytes;
inline constexpr std::uint16_t kMaxCredits = 1024;

struct HelloLayout {
  static constexpr std::size_t kMagic = 0;         // u16
  static constexpr std::size_t kVersion = 2;       // u16, here in every version
  static constexpr std::size_t kLane = 4;          // u32
  static constexpr std::size_t kEpoch = 8;         // u64
  static constexpr std::size_t kIncarnation = 16;  // u64, grows with each connection of a session
  static constexpr std::size_t kFileSystem = 24;   // 16 bytes
  static constexpr std::size_t kKey = 40;          // 16 bytes
  static constexpr std::size_t kEnd = 56;
};
static_assert(HelloLayout::kEnd == kHelloBytes);

struct AnswerLayout {
  static constexpr std::size_t kMagic = 0;     // u16
  static constexpr std::size_t kVersion = 2;   // u16, the node's
  static constexpr std::size_t kStatus = 4;    // u16, wire::status_of; 0 in an accept
  static constexpr std::size_t kCredits = 6;   // u16, requests that may be unanswered; 0 in a reject
  static constexpr std::size_t kInstance = 8;  // u64, of the domain; 0 in a reject
  static constexpr std::size_t kBoot = 16;     // u64, RegionSource::boot(); 0 in a reject
  static constexpr std::size_t kEnd = 24;
};
static_assert(AnswerLayout::kEnd == kAnswerBytes);

struct RequestLayout {
  static constexpr std::size_t kKind = 0;         // u8
  static constexpr std::size_t kReserved = 1;     // 7 bytes
  static constexpr std::size_t kId = 8;           // u64, the reply repeats it
  static constexpr std::size_t kRegion = 16;      // u64
  static constexpr std::size_t kGeneration = 24;  // u64; PERSIST: 0
  static constexpr std::size_t kKey = 32;         // 16 bytes; PERSIST: zero
  static constexpr std::size_t kOffset = 48;      // u64; ATTACH: 0
  static constexpr std::size_t kLength = 56;      // u64; ATTACH: 0
  static constexpr std::size_t kEnd = 64;
};
static_assert(RequestLayout::kEnd == kRequestBytes);

struct ReplyLayout {
  static constexpr std::size_t kStatus = 0;       // u16, wire::status_of; 0: OK
  static constexpr std::size_t kFlags = 2;        // u16, kReplyWritable
  static constexpr std::size_t kPieces = 4;       // u32, how many follow
  static constexpr std::size_t kId = 8;           // u64
  static constexpr std::size_t kLength = 16;      // u64, of the region
  static constexpr std::size_t kPieceBytes = 24;  // u64, of every piece but the last
  static constexpr std::size_t kReserved = 32;    // 8 bytes
  static constexpr std::size_t kEnd = 40;         // pieces: address u64, rkey u32, 4 bytes reserved
};
static_assert(ReplyLayout::kEnd == kReplyHeadBytes);
inline constexpr std::uint16_t kReplyWritable = 1;

enum class Kind : std::uint8_t { kAttach = 1, kPersist = 2 };

struct Hello {
  SessionId session;
  AccessKey key;
  std::uint64_t incarnation = 0;
};
struct Answer {
  bool ok = false;
  Errc status = Errc::kProtocol;  // meaningful when !ok
  std::uint16_t credits = 0;      // meaningful when ok
  std::uint64_t instance = 0;     // meaningful when ok; not 0
  std::uint64_t boot = 0;         // meaningful when ok
};
struct Request {
  Kind kind = Kind::kAttach;
  std::uint64_t id = 0;
  RegionId region;
  Generation generation;     // kAttach
  AccessKey key;             // kAttach
  std::uint64_t offset = 0;  // kPersist
  std::uint64_t length = 0;  // kPersist
};
struct Piece {
  std::uint64_t address = 0;
  std::uint32_t rkey = 0;
};
struct Reply {
  bool ok = false;
  Errc status = Errc::kProtocol;  // meaningful when !ok
  bool writable = false;
  std::uint64_t id = 0;
  std::uint64_t length = 0;
  std::uint64_t piece_bytes = 0;  // not 0 when there are pieces
  std::vector<Piece> pieces;      // an ATTACH's; exactly ceil(length / piece_bytes)
};

void encode_hello(const Hello& hello, std::span<std::byte, kHelloBytes> to);
// Of a hello that is longer, the rest is zeros.
Result<Hello> decode_hello(std::span<const std::byte> from);
void encode_answer(const Answer& answer, std::span<std::byte, kAnswerBytes> to);
Result<Answer> decode_answer(std::span<const std::byte> from);
void encode_request(const Request& request, std::span<std::byte, kRequestBytes> to);
Result<Request> decode_request(std::span<const std::byte> from);                        // exactly kRequestBytes
std::size_t encode_reply(const Reply& reply, std::span<std::byte, kMaxReplyBytes> to);  // the bytes used
Result<Reply> decode_reply(std::span<const std::byte> from);

// How many pieces of `piece_bytes` cover `length`.
inline std::uint64_t pieces_of(std::uint64_t length, std::uint64_t piece_bytes) {
  return length == 0 ? 0 : (length - 1) / piece_bytes + 1;
}
// The size of a region's pieces: `wanted` (a power of two), doubled until kMaxPieces cover the region.
std::uint64_t piece_size(std::uint64_t length, std::uint64_t wanted);

// The part of [offset, offset + length) that one work request can do: within one piece and not above `most`.
struct Part {
  std::uint64_t address;
  std::uint32_t rkey;
  std::uint64_t length;
};
Part first_part(const Reply& region, std::uint64_t offset, std::uint64_t length, std::uint64_t most);

}  // namespace rmemfs::verbs
