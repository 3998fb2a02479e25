// Reads a journal without writing: what recovery replays, what fsck and rmemfs-dump show. Never trusts a byte.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "journal/home.h"
#include "journal/journal.h"
#include "util/ids.h"
#include "util/pmem.h"

namespace rmemfs {

// What a slot (or the first slot of a longer transaction) is.
enum class SlotState : std::uint8_t {
  kEmpty,         // never used in this journal epoch
  kTorn,          // a header of this epoch whose checksum or structure does not hold
  kStale,         // valid, but of an older epoch or at or below the watermark
  kCommitted,     // valid and above the watermark
  kContinuation,  // holds a part of another slot's payload
};

struct SlotReport {
  std::uint32_t slot;
  SlotState state;
  CommitId id;
  CommitId persisted;
  std::uint64_t request_id;
  std::uint32_t modifications;
  std::uint32_t payload_bytes;
};

struct JournalScan {
  Uuid file_system;
  std::uint64_t epoch = 0;
  JournalGeometry geometry;
  std::vector<SlotReport> slots;         // every slot that is not kEmpty
  std::vector<std::uint32_t> committed;  // positions in `slots` of those that are kCommitted, ascending by id
  CommitId watermark;                    // as given to scan
  CommitId first, last;                  // the contiguous committed run above the watermark; last < first: none
  CommitId highest_persisted;            // highest persisted id seen in a valid header
  std::optional<CommitId> missing;       // a gap at or below highest_persisted: corruption (the first missing id)
  std::uint64_t discarded = 0;           // valid transactions after a harmless gap (the unpersisted tail)
};

// Errors: kCorrupt, kChecksum, kWrongFileSystem, kVersion, kUnsupportedFeature: of the journal's own superblock.
Result<JournalScan> scan_journal(const PersistentMemory& memory, const Uuid& file_system, CommitId watermark);

// The modifications of transaction `id` of a scan. The views point into `storage` (which is filled) or the memory.
Result<std::vector<Modification>> read_transaction(const PersistentMemory& memory, const JournalScan& scan, CommitId id,
                                                   std::string& storage);

struct RecoveryReport {
  std::uint64_t replayed = 0;
  std::uint64_t discarded = 0;
  CommitId last;
  double milliseconds = 0;
};

// J8. `accept_gap`: fsck's decision to go on although an id is missing; otherwise kCorrupt with the missing id named.
// With `accept_gap` the run before the gap is replayed and what stands behind it is discarded: the result is a state
// that the file system once had. Idempotent: a crash anywhere inside leaves a journal that the next call recovers to
// the same state.
Result<RecoveryReport> recover_journal(PersistentMemory& memory, const Uuid& file_system, Home& home, bool accept_gap);

}  // namespace rmemfs
