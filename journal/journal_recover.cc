// J8. Replays the contiguous run above the watermark, makes the home durable, then steps the journal epoch.
//
// Why a crash anywhere inside is harmless: until the home is durable nothing of the journal has changed, so the next
// call does the same again from the watermark that it finds. Once it is durable, every replayed id is at or below the
// watermark, and the next call replays nothing. The epoch steps by one atomic store: before it the slots mean what they
// meant, after it no slot is valid, also none of a discarded tail. It is persistent before anybody commits again.
//
// The epoch steps even when nothing was replayed: a slot that is torn today must not be completed by a later
// transaction.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "journal/coalescer.h"
#include "journal/journal_format.h"
#include "journal/journal_reader.h"
#include "journal/mutation.h"
#include "util/clock.h"
#include "util/log.h"

namespace rmemfs {
namespace {

// Bounds of one home batch.
constexpr std::size_t kReplayTransactions = 16384;
constexpr std::size_t kReplayBytes = std::size_t{8} << 20;

constexpr bool kIgnoresWatermark = mutated(Mutation::kReplayAll) || mutated(Mutation::kClearDescending);

Result<void> step_epoch(PersistentMemory& memory, const Uuid& file_system, std::uint32_t epoch) {
  if (epoch == std::numeric_limits<std::uint32_t>::max()) {
    return Error(Errc::kUnsupportedFeature, "journal epoch", "the epochs of this journal are used up");
  }
  auto* word = reinterpret_cast<std::uint64_t*>(memory.data() + kEpochOffset);
  std::atomic_ref(*word).store(encode_epoch(epoch + 1, file_system), std::memory_order_release);
  memory.persist(word, sizeof *word);
  return memory.sync();
}

void clear_descending(PersistentMemory& memory, const JournalScan& scan) {
  for (auto at = scan.committed.rbegin(); at != scan.committed.rend(); ++at) {
    std::byte* const header = memory.data() + slot_offset(scan.geometry, scan.slots[*at].slot);
    std::memset(header, 0, kSlotHeaderBytes);
    memory.persist(header, kSlotHeaderBytes);
  }
}

// Applies the run of `scan` in batches.
Result<std::uint64_t> replay(const PersistentMemory& memory, const Uuid& file_system, const JournalScan& scan,
                             Home& home, [[maybe_unused]] CommitId watermark) {
  const std::span<const std::byte> media(memory.data(), memory.size());
  Coalescer coalescer;
  std::vector<Modification> parsed;
  std::uint64_t replayed = 0;
  std::size_t transactions = 0;
  std::size_t bytes = 0;
  for (const std::uint32_t index : scan.committed) {
    const SlotReport& report = scan.slots[index];
    if (report.id > scan.last) break;
    const DecodedSlot slot = decode_slot(media, scan.geometry, file_system, report.slot, coalescer.storage());
    if (slot.content != SlotContent::kTransaction || slot.header.id != report.id.value()) {
      return Error(Errc::kChecksum, "journal recovery", "transaction " + std::to_string(report.id.value()));
    }
    parsed.clear();
    RETURN_IF_ERROR(parse_modifications(slot.modifications, slot.header.entry_count, parsed));
    coalescer.add(parsed);
    ++replayed;
    ++transactions;
    bytes += report.payload_bytes;
    if (report.id == scan.last || transactions == kReplayTransactions || bytes >= kReplayBytes) {
      CommitId to = report.id;
      if constexpr (kIgnoresWatermark) to = std::max(to, watermark);
      RETURN_IF_ERROR(home.apply(coalescer.coalesced(), to));
      coalescer.clear();
      transactions = bytes = 0;
    }
  }
  return replayed;
}

}  // namespace

Result<RecoveryReport> recover_journal(PersistentMemory& memory, const Uuid& file_system, Home& home, bool accept_gap) {
  const TimePoint start = MonoClock::now();
  ASSIGN_OR_RETURN(const DecodedSuperblock block, decode_superblock({memory.data(), memory.size()}, file_system, true));
  // The home says what it has at opening; if an earlier attempt in this process applied more, make_durable() says that.
  ASSIGN_OR_RETURN(const CommitId now_durable, home.make_durable());
  const CommitId watermark = std::max(home.durable_watermark(), now_durable);
  ASSIGN_OR_RETURN(const JournalScan scan,
                   scan_journal(memory, file_system, kIgnoresWatermark ? CommitId{} : watermark));
  if (scan.missing && !accept_gap && !kIgnoresWatermark) {
    return Error(Errc::kCorrupt, "journal recovery",
                 "transaction " + std::to_string(scan.missing->value()) + " is missing though it was persistent");
  }

  RecoveryReport report;
  report.discarded = scan.discarded;
  report.last = std::max(watermark, scan.last);
  ASSIGN_OR_RETURN(report.replayed, replay(memory, file_system, scan, home, watermark));
  if constexpr (mutated(Mutation::kEpochStepBeforeDurable)) {
    RETURN_IF_ERROR(step_epoch(memory, file_system, block.epoch));
  }
  ASSIGN_OR_RETURN(const CommitId durable, home.make_durable());
  if (report.replayed != 0 && durable < report.last) {
    return Error(Errc::kStore, "journal recovery", "the metadata store did not keep what was replayed");
  }
  if constexpr (mutated(Mutation::kClearDescending)) {
    clear_descending(memory, scan);
  } else if constexpr (!mutated(Mutation::kNoEpochStep) && !mutated(Mutation::kEpochStepBeforeDurable)) {
    RETURN_IF_ERROR(step_epoch(memory, file_system, block.epoch));
  }
  report.milliseconds = std::chrono::duration<double, std::milli>(MonoClock::now() - start).count();
  if (scan.missing) log::warn("journal: transaction {} is missing; recovery stopped before it", scan.missing->value());
  return report;
}

}  // namespace rmemfs
