// The journal's media format: superblock, epoch word, slots. rmemfs-format(5) is the prose.
//
//   0      superblock, 128 bytes, written once by mkfs
//   2048   epoch word: 8 bytes {epoch, CRC32C of epoch and uuid}, stepped by one atomic store
//   4096   slot 0, slot 1, ...: each `slot_bytes`, of which the first 64 are a header
//
// A transaction has a first slot and, when its payload is longer than one slot, continuation slots. The payload is
// {slot number of each continuation, 4 bytes each} {modifications}, cut at the end of each slot; it starts after the
// first slot's header and goes on after the headers of the continuations. A continuation's header has another magic, so
// that no bytes of a user stand where a slot's header is looked for.
// A modification is {kind u8, zero u8, key length u16, value length u32, key, value}.
// The first slot's CRC32C covers the whole payload first, then its header from offset 8 on: so the long part is
// computed before the commit lock is taken, and a header is never valid over another payload (J1).
//
// All functions are pure: they take spans, check lengths and never trust a byte. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "journal/journal.h"
#include "util/bytes.h"
#include "util/ids.h"
#include "util/result.h"

namespace rmemfs {

inline constexpr std::size_t kJournalSuperblockBytes = 4096;
inline constexpr std::size_t kEpochOffset = 2048;
inline constexpr std::size_t kSlotHeaderBytes = 64;
inline constexpr std::size_t kModificationHeaderBytes = 8;
inline constexpr std::uint32_t kMaxSlotsPerTransaction = 256;
inline constexpr std::uint32_t kJournalVersion = 1;

struct JournalSuperblock {
  char magic[8];             // 0   "RMEMJRNL"
  std::uint32_t version;     // 8
  std::uint32_t crc;         // 12  CRC32C of the 128 bytes with this field zero
  std::byte uuid[16];        // 16
  std::uint32_t compat;      // 32  features that may be ignored
  std::uint32_t ro_compat;   // 36  features that must be known for writing
  std::uint32_t incompat;    // 40  features that must be known
  std::uint32_t slot_bytes;  // 44
  std::uint32_t slot_count;  // 48
  std::uint32_t reserved0;   // 52
  std::int64_t created;      // 56  seconds since 1970
  std::byte reserved[64];    // 64  zero
};
static_assert(sizeof(JournalSuperblock) == 128);
static_assert(offsetof(JournalSuperblock, uuid) == 16 && offsetof(JournalSuperblock, created) == 56);

struct SlotHeader {
  std::uint32_t magic;               // 0
  std::uint32_t crc;                 // 4   CRC32C of the payload, then of the bytes from 8 to 64
  std::byte uuid[16];                // 8
  std::uint32_t epoch;               // 24
  std::uint32_t length;              // 28  bytes of modifications (without the list of continuations)
  std::uint64_t id;                  // 32
  std::uint64_t persisted;           // 40  J7
  std::uint64_t request_id;          // 48  of FUSE; 0: none
  std::uint32_t entry_count;         // 56
  std::uint32_t continuation_count;  // 60
};
static_assert(sizeof(SlotHeader) == kSlotHeaderBytes, "a header is one cache line");
static_assert(offsetof(SlotHeader, epoch) == 24 && offsetof(SlotHeader, id) == 32 &&
              offsetof(SlotHeader, continuation_count) == 60);

// kInvalid, naming the bound that does not hold.
Result<void> check_geometry(const JournalGeometry& geometry);

inline std::size_t slot_offset(const JournalGeometry& geometry, std::uint32_t slot) {
  return kJournalSuperblockBytes + std::size_t{slot} * geometry.slot_bytes;
}
inline std::size_t slot_payload_bytes(const JournalGeometry& geometry) {
  return geometry.slot_bytes - kSlotHeaderBytes;
}
// Bytes of modifications that fit into `slots` slots.
inline std::size_t transaction_capacity(const JournalGeometry& geometry, std::uint32_t slots) {
  return slots * slot_payload_bytes(geometry) - (slots - 1) * sizeof(std::uint32_t);
}
std::uint32_t max_transaction_slots(const JournalGeometry& geometry);
// Slots that `bytes` of modifications need; 0 when they never fit.
std::uint32_t transaction_slots(const JournalGeometry& geometry, std::size_t bytes);

void encode_superblock(std::span<std::byte> to, const Uuid& file_system, const JournalGeometry& geometry,
                       std::int64_t created);
struct DecodedSuperblock {
  JournalGeometry geometry;
  std::uint32_t epoch;
  std::int64_t created;
};
// `media` is the whole journal. Errors as scan_journal(). `for_writing`: also unknown ro_compat features are refused.
Result<DecodedSuperblock> decode_superblock(std::span<const std::byte> media, const Uuid& file_system,
                                            bool for_writing);

std::uint64_t encode_epoch(std::uint32_t epoch, const Uuid& file_system);

// Fills magic and CRC. `payload_crc` is crc32c() of the payload in the order of the format.
void seal_slot_header(SlotHeader& header, std::uint32_t payload_crc);
SlotHeader continuation_header(const Uuid& file_system, std::uint32_t epoch, std::uint32_t first_slot,
                               std::uint32_t index);

// What stands in a slot.
enum class SlotContent : std::uint8_t { kNothing, kDamaged, kTransaction, kContinuation };
struct DecodedSlot {
  SlotContent content = SlotContent::kNothing;
  SlotHeader header{};                       // kTransaction, and whatever was found for kDamaged
  std::vector<std::uint32_t> continuations;  // kTransaction
  std::span<const std::byte> modifications;  // kTransaction: into the media, or into `storage`
};
// Reads the slot of `media` and what belongs to it. kNothing: no header of this file system; kDamaged: one whose
// structure or checksum does not hold. The epoch is not judged here. `storage` is used for several slots only.
DecodedSlot decode_slot(std::span<const std::byte> media, const JournalGeometry& geometry, const Uuid& file_system,
                        std::uint32_t slot, std::string& storage);

// Appends the `count` modifications of a payload, as views into it. kCorrupt when it does not parse to its last byte.
Result<void> parse_modifications(std::span<const std::byte> payload, std::uint32_t count,
                                 std::vector<Modification>& out);

}  // namespace rmemfs
