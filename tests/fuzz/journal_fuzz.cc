// The journal's reader and recovery: no bytes crash them, and what is recovered once is recovered.
//
// Input: the slots of a journal of 4 slots of 256 bytes. The superblock and the epoch are right, and checksums are made
// right wherever a header has the slot's magic and its first byte asks for it: otherwise nothing behind a checksum
// would ever be reached. Without that byte the raw bytes stand, superblock included.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "journal/journal_format.h"
#include "journal/journal_reader.h"
#include "util/check.h"
#include "util/crc32c.h"

namespace rmemfs {
namespace {

constexpr JournalGeometry kGeometry{256, 4};
constexpr std::size_t kBytes = kJournalSuperblockBytes + 4 * 256;

class Memory final : public PersistentMemory {
 public:
  Memory(std::byte* data, std::size_t size) : PersistentMemory(data, size, Backing::kForced) {}
  void flush(const void*, std::size_t) override {}
  void drain() override {}
  Result<void> sync() override { return success(); }
};

class CountingHome final : public Home {
 public:
  Result<void> apply(std::span<const Modification> modifications, CommitId applied) override {
    CHECK(applied > applied_);
    applied_ = applied;
    for (const Modification& m : modifications) bytes_ += m.key.size() + m.value.size();
    return success();
  }
  Result<CommitId> make_durable() override { return applied_; }
  CommitId durable_watermark() const override { return {}; }

 private:
  CommitId applied_;
  std::size_t bytes_ = 0;
};

// Makes the header of a slot, and its payload's checksum, right. Only a transaction of one slot: others keep theirs.
void repair(std::byte* slot, const Uuid& file_system) {
  SlotHeader header;
  std::memcpy(&header, slot, sizeof header);
  if (header.length > kGeometry.slot_bytes - kSlotHeaderBytes) return;
  std::memcpy(header.uuid, file_system.bytes.data(), sizeof header.uuid);
  header.epoch = 1;
  seal_slot_header(header, crc32c({slot + kSlotHeaderBytes, header.length}));
  std::memcpy(slot, &header, sizeof header);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Uuid file_system = {{std::byte{1}}};
  alignas(4096) static std::byte bytes[kBytes];
  std::memset(bytes, 0, sizeof bytes);
  const bool raw = (data[0] & 1) != 0;
  std::size_t length = kBytes;
  if (raw) {
    length = std::min(size - 1, kBytes);
    std::memcpy(bytes, data + 1, length);
  } else {
    encode_superblock(bytes, file_system, kGeometry, 0);
    store_le(bytes + kEpochOffset, encode_epoch(1, file_system));
    std::memcpy(bytes + kJournalSuperblockBytes, data + 1, std::min<std::size_t>(size - 1, 4 * 256));
    for (std::uint32_t slot = 0; slot < 4; ++slot) {
      if ((data[0] >> (slot + 1) & 1) != 0) repair(bytes + slot_offset(kGeometry, slot), file_system);
    }
  }
  Memory memory(bytes, length);
  const auto scan = scan_journal(memory, file_system, {});
  if (!scan.ok()) return 0;
  std::string storage;
  for (const std::uint32_t index : scan->committed) {
    (void)read_transaction(memory, *scan, scan->slots[index].id, storage);
  }
  CountingHome home;
  if (recover_journal(memory, file_system, home, (data[0] & 0x80) != 0).ok()) {
    const auto again = recover_journal(memory, file_system, home, false);
    CHECK(again.ok() && again->replayed == 0);
  }
  return 0;
}

}  // namespace rmemfs
