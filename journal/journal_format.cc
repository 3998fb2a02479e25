#include "journal/journal_format.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "journal/mutation.h"
#include "util/check.h"
#include "util/crc32c.h"

namespace rmemfs {
namespace {

constexpr char kMagic[8] = {'R', 'M', 'E', 'M', 'J', 'R', 'N', 'L'};
constexpr std::uint32_t kSlotMagic = 0x544c534a;          // "JSLT"
constexpr std::uint32_t kContinuationMagic = 0x4e4f434a;  // "JCON"
constexpr std::uint32_t kKnownIncompat = 0;
constexpr std::uint32_t kKnownRoCompat = 0;

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

std::uint32_t header_crc(const SlotHeader& header, std::uint32_t payload_crc) {
  if constexpr (mutated(Mutation::kHeaderCrcOnly)) payload_crc = 0;
  return crc32c(bytes_of(header).subspan(offsetof(SlotHeader, uuid)), payload_crc);
}

std::uint32_t epoch_crc(std::uint32_t epoch, const Uuid& file_system) {
  return crc32c(file_system.bytes, crc32c(bytes_of(epoch)));
}

}  // namespace

Result<void> check_geometry(const JournalGeometry& geometry) {
  if (!std::has_single_bit(geometry.slot_bytes) || geometry.slot_bytes < 256 || geometry.slot_bytes > 65536) {
    return Error(Errc::kInvalid, "journal geometry", "slot bytes must be a power of two from 256 to 65536");
  }
  if (geometry.slot_count < 2 || geometry.slot_count > 1048576) {
    return Error(Errc::kInvalid, "journal geometry", "the number of slots must be from 2 to 1048576");
  }
  return success();
}

std::uint32_t max_transaction_slots(const JournalGeometry& geometry) {
  // The list of continuations stands in the first slot.
  const auto listed = static_cast<std::uint32_t>(slot_payload_bytes(geometry) / sizeof(std::uint32_t));
  return std::min({geometry.slot_count, listed + 1, kMaxSlotsPerTransaction});
}

std::uint32_t transaction_slots(const JournalGeometry& geometry, std::size_t bytes) {
  const std::size_t first = slot_payload_bytes(geometry);
  if (bytes <= first) return 1;
  const std::size_t each = first - sizeof(std::uint32_t);
  const std::size_t slots = 1 + (bytes - first + each - 1) / each;
  return slots <= max_transaction_slots(geometry) ? static_cast<std::uint32_t>(slots) : 0;
}

void encode_superblock(std::span<std::byte> to, const Uuid& file_system, const JournalGeometry& geometry,
                       std::int64_t created) {
  CHECK(to.size() >= sizeof(JournalSuperblock));
  JournalSuperblock block{};
  std::memcpy(block.magic, kMagic, sizeof kMagic);
  block.version = kJournalVersion;
  std::memcpy(block.uuid, file_system.bytes.data(), sizeof block.uuid);
  block.slot_bytes = geometry.slot_bytes;
  block.slot_count = geometry.slot_count;
  block.created = created;
  block.crc = crc32c(bytes_of(block));
  std::memcpy(to.data(), &block, sizeof block);
}

Result<DecodedSuperblock> decode_superblock(std::span<const std::byte> media, const Uuid& file_system,
                                            bool for_writing) {
  constexpr const char* kWhere = "journal superblock";
  if (media.size() < kJournalSuperblockBytes) return Error(Errc::kCorrupt, kWhere, "the journal is too short");
  JournalSuperblock block;
  std::memcpy(&block, media.data(), sizeof block);
  if (std::memcmp(block.magic, kMagic, sizeof kMagic) != 0) return Error(Errc::kCorrupt, kWhere, "the magic is wrong");
  if (block.version != kJournalVersion) {
    return Error(Errc::kVersion, kWhere, "format version " + std::to_string(block.version));
  }
  const std::uint32_t crc = std::exchange(block.crc, 0);
  if (crc != crc32c(bytes_of(block))) return Error(Errc::kChecksum, kWhere);
  if (std::memcmp(block.uuid, file_system.bytes.data(), sizeof block.uuid) != 0) {
    return Error(Errc::kWrongFileSystem, kWhere);
  }
  if ((block.incompat & ~kKnownIncompat) != 0 || (for_writing && (block.ro_compat & ~kKnownRoCompat) != 0)) {
    return Error(Errc::kUnsupportedFeature, kWhere);
  }
  const JournalGeometry geometry{block.slot_bytes, block.slot_count};
  if (!check_geometry(geometry).ok()) return Error(Errc::kCorrupt, kWhere, "the geometry is impossible");
  if (media.size() < Journal::bytes_needed(geometry)) return Error(Errc::kCorrupt, kWhere, "the journal is cut short");
  if (block.reserved0 != 0 || !all_zero(block.reserved) ||
      !all_zero(media.subspan(sizeof block, kEpochOffset - sizeof block)) ||
      !all_zero(media.subspan(kEpochOffset + 8, kJournalSuperblockBytes - kEpochOffset - 8))) {
    return Error(Errc::kCorrupt, kWhere, "reserved bytes are not zero");
  }
  const auto word = load_le<std::uint64_t>(media.data() + kEpochOffset);
  const auto epoch = static_cast<std::uint32_t>(word);
  if (word != encode_epoch(epoch, file_system)) return Error(Errc::kChecksum, "journal epoch");
  return DecodedSuperblock{geometry, epoch, block.created};
}

std::uint64_t encode_epoch(std::uint32_t epoch, const Uuid& file_system) {
  return std::uint64_t{epoch_crc(epoch, file_system)} << 32 | epoch;
}

void seal_slot_header(SlotHeader& header, std::uint32_t payload_crc) {
  header.magic = kSlotMagic;
  header.crc = header_crc(header, payload_crc);
}

SlotHeader continuation_header(const Uuid& file_system, std::uint32_t epoch, std::uint32_t first_slot,
                               std::uint32_t index) {
  SlotHeader header{};
  header.magic = kContinuationMagic;
  std::memcpy(header.uuid, file_system.bytes.data(), sizeof header.uuid);
  header.epoch = epoch;
  header.length = first_slot;
  header.entry_count = index;
  header.crc = header_crc(header, 0);
  return header;
}

DecodedSlot decode_slot(std::span<const std::byte> media, const JournalGeometry& geometry, const Uuid& file_system,
                        std::uint32_t slot, std::string& storage) {
  DecodedSlot decoded;
  const std::size_t per_slot = slot_payload_bytes(geometry);
  const auto payload_of = [&](std::uint32_t number) {
    return media.subspan(slot_offset(geometry, number) + kSlotHeaderBytes, per_slot);
  };
  SlotHeader& header = decoded.header;
  std::memcpy(&header, media.data() + slot_offset(geometry, slot), sizeof header);
  if (header.magic != kSlotMagic && header.magic != kContinuationMagic) return decoded;
  if (std::memcmp(header.uuid, file_system.bytes.data(), sizeof header.uuid) != 0) return decoded;
  decoded.content = SlotContent::kDamaged;
  if (header.magic == kContinuationMagic) {
    if (header.crc == header_crc(header, 0)) decoded.content = SlotContent::kContinuation;
    return decoded;
  }

  if (header.continuation_count >= max_transaction_slots(geometry)) return decoded;
  const std::uint32_t slots = header.continuation_count + 1;
  if (transaction_slots(geometry, header.length) != slots) return decoded;
  const std::size_t list_bytes = header.continuation_count * sizeof(std::uint32_t);
  std::size_t left = list_bytes + header.length;  // of the payload, list included
  std::size_t part = std::min(left, per_slot);
  std::uint32_t crc = crc32c(payload_of(slot).first(part));
  if (slots == 1) {
    decoded.modifications = payload_of(slot).first(header.length);
  } else {
    storage.assign(as_text(payload_of(slot).first(part).subspan(list_bytes)));
    left -= part;
    for (std::uint32_t i = 0; i < header.continuation_count; ++i) {
      const auto number = load_le<std::uint32_t>(payload_of(slot).data() + i * sizeof(std::uint32_t));
      if (number >= geometry.slot_count || number == slot) return decoded;
      decoded.continuations.push_back(number);
      part = std::min(left, per_slot);
      crc = crc32c(payload_of(number).first(part), crc);
      storage.append(as_text(payload_of(number).first(part)));
      left -= part;
    }
    decoded.modifications = as_bytes(storage);
  }
  if (header.crc == header_crc(header, crc) && header.id != 0 && header.persisted <= header.id) {
    decoded.content = SlotContent::kTransaction;
  }
  return decoded;
}

Result<void> parse_modifications(std::span<const std::byte> payload, std::uint32_t count,
                                 std::vector<Modification>& out) {
  ByteReader reader(payload);
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto kind = reader.take<std::uint8_t>();
    const auto zero = reader.take<std::uint8_t>();
    const auto key_bytes = reader.take<std::uint16_t>();
    const auto value_bytes = reader.take<std::uint32_t>();
    const auto key = reader.take_bytes(key_bytes);
    const auto value = reader.take_bytes(value_bytes);
    const bool kind_known = kind >= static_cast<std::uint8_t>(ModificationKind::kPut) &&
                            kind <= static_cast<std::uint8_t>(ModificationKind::kMerge);
    const auto known = static_cast<ModificationKind>(kind);
    if (reader.failed() || !kind_known || zero != 0 || (known == ModificationKind::kErase && value_bytes != 0)) {
      return Error(Errc::kCorrupt, "journal payload", "modification " + std::to_string(i) + " does not parse");
    }
    out.push_back({known, as_text(key), as_text(value)});
  }
  if (!reader.done()) return Error(Errc::kCorrupt, "journal payload", "bytes behind the last modification");
  return success();
}

void TransactionBuilder::append(ModificationKind kind, std::string_view key, std::string_view value) {
  CHECK(key.size() <= UINT16_MAX && value.size() <= UINT32_MAX);
  const std::size_t at = payload_.size();
  payload_.resize(at + kModificationHeaderBytes + key.size() + value.size());
  auto* to = reinterpret_cast<std::byte*>(payload_.data() + at);
  store_le(to, static_cast<std::uint8_t>(kind));
  store_le(to + 1, std::uint8_t{0});
  store_le(to + 2, static_cast<std::uint16_t>(key.size()));
  store_le(to + 4, static_cast<std::uint32_t>(value.size()));
  if (!key.empty()) std::memcpy(to + kModificationHeaderBytes, key.data(), key.size());
  if (!value.empty()) std::memcpy(to + kModificationHeaderBytes + key.size(), value.data(), value.size());
  ++count_;
}
void TransactionBuilder::put(std::string_view key, std::string_view value) {
  append(ModificationKind::kPut, key, value);
}
void TransactionBuilder::erase(std::string_view key) { append(ModificationKind::kErase, key, {}); }
void TransactionBuilder::merge(std::string_view key, std::string_view operand) {
  append(ModificationKind::kMerge, key, operand);
}
void TransactionBuilder::clear() {
  payload_.clear();
  count_ = 0;
}

}  // namespace rmemfs
