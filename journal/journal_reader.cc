// Classifies every slot and finds the run that recovery may replay.
//
// The run starts at the first id above the watermark and ends before the first id that no valid slot holds. If an id
// that some header calls persistent is missing, the journal is damaged; what stands behind a gap that nothing calls
// persistent is the tail of a group commit that never happened. A slot that is torn counts as missing: whether it
// matters follows from the same rule.
#include "journal/journal_reader.h"

#include <algorithm>

#include "journal/journal_format.h"
#include "journal/mutation.h"

namespace rmemfs {
namespace {

constexpr bool kIgnoresGaps =
    mutated(Mutation::kReplayPastGap) || mutated(Mutation::kReplayAll) || mutated(Mutation::kClearDescending);

SlotReport report_of(std::uint32_t slot, SlotState state, const DecodedSlot& decoded) {
  const SlotHeader& header = decoded.header;
  if (decoded.content != SlotContent::kTransaction) return {slot, state, {}, {}, 0, 0, 0};
  return {slot,         state, CommitId(header.id), CommitId(header.persisted), header.request_id, header.entry_count,
          header.length};
}

SlotState state_of(const DecodedSlot& decoded, std::uint32_t epoch, CommitId watermark) {
  const bool this_epoch = decoded.header.epoch == epoch;
  switch (decoded.content) {
    case SlotContent::kNothing:
      return SlotState::kEmpty;
    case SlotContent::kDamaged:
      return this_epoch ? SlotState::kTorn : SlotState::kEmpty;
    case SlotContent::kContinuation:
      return this_epoch ? SlotState::kContinuation : SlotState::kEmpty;
    case SlotContent::kTransaction:
      break;
  }
  if (!this_epoch || CommitId(decoded.header.id) <= watermark) return SlotState::kStale;
  return SlotState::kCommitted;
}

// Finds the contiguous run and what lies behind it. `committed` is sorted by id.
Result<void> find_run(JournalScan& scan) {
  scan.first = scan.watermark.next();
  scan.last = scan.watermark;
  CommitId before = scan.watermark;
  for (const std::uint32_t index : scan.committed) {
    const CommitId id = scan.slots[index].id;
    if (id == before) {
      return Error(Errc::kCorrupt, "journal scan", "two slots hold transaction " + std::to_string(id.value()));
    }
    before = id;
    if (id == scan.last.next() || kIgnoresGaps)
      scan.last = id;
    else
      ++scan.discarded;
  }
  if (scan.last < scan.highest_persisted && !kIgnoresGaps) scan.missing = scan.last.next();
  return success();
}

}  // namespace

Result<JournalScan> scan_journal(const PersistentMemory& memory, const Uuid& file_system, CommitId watermark) {
  const std::span<const std::byte> media(memory.data(), memory.size());
  ASSIGN_OR_RETURN(const DecodedSuperblock block, decode_superblock(media, file_system, false));
  JournalScan scan;
  scan.file_system = file_system;
  scan.epoch = block.epoch;
  scan.geometry = block.geometry;
  scan.watermark = watermark;
  std::string storage;
  for (std::uint32_t slot = 0; slot < block.geometry.slot_count; ++slot) {
    const DecodedSlot decoded = decode_slot(media, block.geometry, file_system, slot, storage);
    const SlotState state = state_of(decoded, block.epoch, watermark);
    if (state == SlotState::kEmpty) continue;
    scan.slots.push_back(report_of(slot, state, decoded));
    const SlotReport& report = scan.slots.back();
    if (decoded.content != SlotContent::kTransaction || decoded.header.epoch != block.epoch) continue;
    scan.highest_persisted = std::max(scan.highest_persisted, report.persisted);
    if (state == SlotState::kCommitted) scan.committed.push_back(static_cast<std::uint32_t>(scan.slots.size() - 1));
  }
  std::sort(scan.committed.begin(), scan.committed.end(),
            [&](std::uint32_t a, std::uint32_t b) { return scan.slots[a].id < scan.slots[b].id; });
  RETURN_IF_ERROR(find_run(scan));
  return scan;
}

Result<std::vector<Modification>> read_transaction(const PersistentMemory& memory, const JournalScan& scan, CommitId id,
                                                   std::string& storage) {
  const auto at = std::lower_bound(scan.committed.begin(), scan.committed.end(), id,
                                   [&](std::uint32_t index, CommitId wanted) { return scan.slots[index].id < wanted; });
  if (at == scan.committed.end() || scan.slots[*at].id != id) {
    return Error(Errc::kNotFound, "journal read", "transaction " + std::to_string(id.value()));
  }
  const std::span<const std::byte> media(memory.data(), memory.size());
  const DecodedSlot slot = decode_slot(media, scan.geometry, scan.file_system, scan.slots[*at].slot, storage);
  if (slot.content != SlotContent::kTransaction || slot.header.id != id.value()) {
    return Error(Errc::kChecksum, "journal read", "transaction " + std::to_string(id.value()));
  }
  std::vector<Modification> modifications;
  RETURN_IF_ERROR(parse_modifications(slot.modifications, slot.header.entry_count, modifications));
  return modifications;
}

}  // namespace rmemfs
