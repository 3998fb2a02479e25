#include "transport/verbs_format.h"

#include <algorithm>
#include <cstring>

#include "transport/wire_format.h"
#include "util/bytes.h"
#include "util/check.h"

namespace rmemfs::verbs {
namespace {

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

Error broken(const char* what) { return Error(Errc::kProtocol, what); }

template <typename Number>
Number load(std::span<const std::byte> from, std::size_t at) {
  return load_le<Number>(from.data() + at);
}

}  // namespace

void encode_hello(const Hello& hello, std::span<std::byte, kHelloBytes> to) {
  store_le(to.data() + HelloLayout::kMagic, kMagic);
  store_le(to.data() + HelloLayout::kVersion, kVersion);
  store_le(to.data() + HelloLayout::kLane, hello.session.lane);
  store_le(to.data() + HelloLayout::kEpoch, hello.session.epoch.value());
  store_le(to.data() + HelloLayout::kIncarnation, hello.incarnation);
  std::memcpy(to.data() + HelloLayout::kFileSystem, hello.session.file_system.bytes.data(), 16);
  std::memcpy(to.data() + HelloLayout::kKey, hello.key.bytes.data(), 16);
}

Result<Hello> decode_hello(std::span<const std::byte> from) {
  if (from.size() < kHelloBytes) return broken("hello: short");
  if (load<std::uint16_t>(from, HelloLayout::kMagic) != kMagic) return broken("hello: magic");
  if (load<std::uint16_t>(from, HelloLayout::kVersion) != kVersion) return Error(Errc::kVersion, "hello");
  if (!all_zero(from.subspan(kHelloBytes))) return broken("hello: bytes behind it");
  Hello hello;
  hello.session.lane = load<std::uint32_t>(from, HelloLayout::kLane);
  hello.session.epoch = MountEpoch(load<std::uint64_t>(from, HelloLayout::kEpoch));
  hello.incarnation = load<std::uint64_t>(from, HelloLayout::kIncarnation);
  std::memcpy(hello.session.file_system.bytes.data(), from.data() + HelloLayout::kFileSystem, 16);
  std::memcpy(hello.key.bytes.data(), from.data() + HelloLayout::kKey, 16);
  return hello;
}

void encode_answer(const Answer& answer, std::span<std::byte, kAnswerBytes> to) {
  std::fill(to.begin(), to.end(), std::byte{0});
  store_le(to.data() + AnswerLayout::kMagic, kMagic);
  store_le(to.data() + AnswerLayout::kVersion, kVersion);
  if (!answer.ok) store_le(to.data() + AnswerLayout::kStatus, wire::status_of(answer.status));
  if (answer.ok) store_le(to.data() + AnswerLayout::kCredits, answer.credits);
  if (answer.ok) store_le(to.data() + AnswerLayout::kInstance, answer.instance);
  if (answer.ok) store_le(to.data() + AnswerLayout::kBoot, answer.boot);
}

Result<Answer> decode_answer(std::span<const std::byte> from) {
  if (from.size() < kAnswerBytes) return broken("answer: short");
  if (load<std::uint16_t>(from, AnswerLayout::kMagic) != kMagic) return broken("answer: magic");
  if (load<std::uint16_t>(from, AnswerLayout::kVersion) != kVersion) return Error(Errc::kVersion, "answer");
  if (!all_zero(from.subspan(kAnswerBytes))) return broken("answer: bytes behind it");
  Answer answer;
  const auto status = load<std::uint16_t>(from, AnswerLayout::kStatus);
  answer.ok = status == 0;
  answer.credits = load<std::uint16_t>(from, AnswerLayout::kCredits);
  answer.instance = load<std::uint64_t>(from, AnswerLayout::kInstance);
  answer.boot = load<std::uint64_t>(from, AnswerLayout::kBoot);
  if (answer.ok != (answer.instance != 0)) return broken("answer: instance");
  if (!answer.ok && answer.boot != 0) return broken("answer: boot");
  if (answer.ok && (answer.credits == 0 || answer.credits > kMaxCredits)) return broken("answer: credits");
  if (!answer.ok) {
    if (answer.credits != 0) return broken("answer: credits");
    answer.status = wire::errc_of(status);
  }
  return answer;
}

void encode_request(const Request& request, std::span<std::byte, kRequestBytes> to) {
  std::fill(to.begin(), to.end(), std::byte{0});
  store_le(to.data() + RequestLayout::kKind, static_cast<std::uint8_t>(request.kind));
  store_le(to.data() + RequestLayout::kId, request.id);
  store_le(to.data() + RequestLayout::kRegion, request.region.value());
  if (request.kind == Kind::kAttach) {
    store_le(to.data() + RequestLayout::kGeneration, request.generation.value());
    std::memcpy(to.data() + RequestLayout::kKey, request.key.bytes.data(), 16);
  } else {
    store_le(to.data() + RequestLayout::kOffset, request.offset);
    store_le(to.data() + RequestLayout::kLength, request.length);
  }
}

Result<Request> decode_request(std::span<const std::byte> from) {
  if (from.size() != kRequestBytes) return broken("request: length");
  if (!all_zero(from.subspan(RequestLayout::kReserved, 7))) return broken("request: reserved bytes");
  Request request;
  request.id = load<std::uint64_t>(from, RequestLayout::kId);
  request.region = RegionId(load<std::uint64_t>(from, RequestLayout::kRegion));
  switch (load<std::uint8_t>(from, RequestLayout::kKind)) {
    case static_cast<std::uint8_t>(Kind::kAttach):
      request.kind = Kind::kAttach;
      if (!all_zero(from.subspan(RequestLayout::kOffset))) return broken("request: reserved bytes");
      request.generation = Generation(load<std::uint64_t>(from, RequestLayout::kGeneration));
      std::memcpy(request.key.bytes.data(), from.data() + RequestLayout::kKey, 16);
      return request;
    case static_cast<std::uint8_t>(Kind::kPersist):
      request.kind = Kind::kPersist;
      if (!all_zero(from.subspan(RequestLayout::kGeneration, 24))) return broken("request: reserved bytes");
      request.offset = load<std::uint64_t>(from, RequestLayout::kOffset);
      request.length = load<std::uint64_t>(from, RequestLayout::kLength);
      return request;
    default:
      return broken("request: kind");
  }
}

std::size_t encode_reply(const Reply& reply, std::span<std::byte, kMaxReplyBytes> to) {
  CHECK(reply.pieces.size() <= kMaxPieces);
  std::fill(to.begin(), to.end(), std::byte{0});
  if (!reply.ok) store_le(to.data() + ReplyLayout::kStatus, wire::status_of(reply.status));
  store_le(to.data() + ReplyLayout::kFlags, static_cast<std::uint16_t>(reply.writable ? kReplyWritable : 0));
  store_le(to.data() + ReplyLayout::kPieces, static_cast<std::uint32_t>(reply.pieces.size()));
  store_le(to.data() + ReplyLayout::kId, reply.id);
  store_le(to.data() + ReplyLayout::kLength, reply.length);
  store_le(to.data() + ReplyLayout::kPieceBytes, reply.piece_bytes);
  std::size_t at = kReplyHeadBytes;
  for (const Piece& piece : reply.pieces) {
    store_le(to.data() + at, piece.address);
    store_le(to.data() + at + 8, piece.rkey);
    at += kPieceBytes;
  }
  return at;
}

Result<Reply> decode_reply(std::span<const std::byte> from) {
  if (from.size() < kReplyHeadBytes) return broken("reply: short");
  if (!all_zero(from.subspan(ReplyLayout::kReserved, 8))) return broken("reply: reserved bytes");
  Reply reply;
  const auto status = load<std::uint16_t>(from, ReplyLayout::kStatus);
  const auto flags = load<std::uint16_t>(from, ReplyLayout::kFlags);
  const auto count = load<std::uint32_t>(from, ReplyLayout::kPieces);
  reply.id = load<std::uint64_t>(from, ReplyLayout::kId);
  reply.length = load<std::uint64_t>(from, ReplyLayout::kLength);
  reply.piece_bytes = load<std::uint64_t>(from, ReplyLayout::kPieceBytes);
  reply.ok = status == 0;
  reply.writable = (flags & kReplyWritable) != 0;
  if ((flags & ~kReplyWritable) != 0) return broken("reply: flags");
  if (count > kMaxPieces || from.size() != kReplyHeadBytes + count * kPieceBytes) return broken("reply: length");
  if (!reply.ok) {
    if (flags != 0 || count != 0 || reply.length != 0 || reply.piece_bytes != 0) return broken("reply: a failed one");
    reply.status = wire::errc_of(status);
    return reply;
  }
  if (count == 0) {
    if (flags != 0 || reply.length != 0 || reply.piece_bytes != 0) return broken("reply: a region without pieces");
    return reply;
  }
  if (reply.piece_bytes == 0 || pieces_of(reply.length, reply.piece_bytes) != count) return broken("reply: pieces");
  for (std::size_t at = kReplyHeadBytes; at < from.size(); at += kPieceBytes) {
    Piece piece;
    piece.address = load<std::uint64_t>(from, at);
    piece.rkey = load<std::uint32_t>(from, at + 8);
    if (!all_zero(from.subspan(at + 12, 4))) return broken("reply: reserved bytes");
    if (piece.address > UINT64_MAX - reply.piece_bytes) return broken("reply: an address");
    reply.pieces.push_back(piece);
  }
  return reply;
}

std::uint64_t piece_size(std::uint64_t length, std::uint64_t wanted) {
  CHECK(wanted != 0);
  while (pieces_of(length, wanted) > kMaxPieces) wanted *= 2;
  return wanted;
}

Part first_part(const Reply& region, std::uint64_t offset, std::uint64_t length, std::uint64_t most) {
  CHECK(length > 0 && offset < region.length && length <= region.length - offset);
  const std::uint64_t index = offset / region.piece_bytes;
  const std::uint64_t within = offset % region.piece_bytes;
  const Piece& piece = region.pieces[index];
  return {piece.address + within, piece.rkey, std::min({length, region.piece_bytes - within, most})};
}

}  // namespace rmemfs::verbs
