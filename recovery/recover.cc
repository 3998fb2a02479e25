// Order of the steps, each of which a crash may interrupt and the next recovery repeats with the same result:
//   1  superblock            read
//   2  journal               its superblock is read: a missing, damaged or foreign one ends here, before anything
//   changed 3  metadata store        opened; its uuid must be the superblock's 4  journal               committed
//   transactions above the store's watermark are applied, the store made durable, the
//                            journal's epoch stepped (recover_journal)
//   5  superblock            mount epoch raised and stored, before any node hears of it: an epoch is never used twice
// A read-only opening stops after laying the journal's transactions over the store in memory.
#include "recovery/recover.h"

#include <utility>

#include "util/log.h"
#include "util/pmem.h"

namespace rmemfs {
namespace {

// The committed run above the watermark, laid over the store in memory.
Result<RecoveryReport> replay_in_memory(const PersistentMemory& memory, const Superblock& superblock,
                                        Metastore& metastore, bool accept_gap) {
  ASSIGN_OR_RETURN(const JournalScan scan, scan_journal(memory, superblock.uuid, metastore.durable_watermark()));
  if (scan.missing && !accept_gap) {
    return Error(Errc::kCorrupt, "journal recovery",
                 "transaction " + std::to_string(scan.missing->value()) + " is missing");
  }
  RecoveryReport report;
  report.discarded = scan.discarded;
  report.last = scan.watermark;
  for (CommitId id = scan.first; id <= scan.last; id = id.next()) {
    std::string storage;
    ASSIGN_OR_RETURN(const auto modifications, read_transaction(memory, scan, id, storage));
    RETURN_IF_ERROR(metastore.overlay_replay(modifications));
    ++report.replayed;
    report.last = id;
  }
  return report;
}

Result<void> check_features(const Superblock& superblock, bool read_only) {
  const std::uint64_t unknown = superblock.ro_compat & ~kKnownRoCompat;
  if (unknown == 0 || read_only) return success();
  return Error(Errc::kUnsupportedFeature, "recovery",
               "ro_compat feature bit " + std::to_string(__builtin_ctzll(unknown)) +
                   "; fsck.rmemfs -n and rmemfs-dump can read it");
}

}  // namespace

Result<RecoveredStore> recover(const std::string& directory, const RecoverOptions& options) {
  RecoveredStore out;
  ASSIGN_OR_RETURN(out.superblock, load_superblock(directory));
  RETURN_IF_ERROR(check_features(out.superblock, options.read_only));
  PmemOptions mapping;
  mapping.read_only = options.read_only;
  mapping.force_pmem = options.force_pmem;
  ASSIGN_OR_RETURN(auto memory, map_persistent(journal_path_of(directory, out.superblock), mapping));
  if (options.journal_memory) memory = options.journal_memory(std::move(memory));
  // Every id is at or below this watermark, so that only the journal's own superblock can be found wrong.
  RETURN_IF_ERROR(scan_journal(*memory, out.superblock.uuid, CommitId(UINT64_MAX)));
  const auto mode = options.read_only ? Metastore::Mode::kReadOnly : Metastore::Mode::kReadWrite;
  ASSIGN_OR_RETURN(out.metastore, Metastore::open(directory + "/db", mode, out.superblock.uuid, options.metastore));
  if (options.read_only) {
    ASSIGN_OR_RETURN(out.report, replay_in_memory(*memory, out.superblock, *out.metastore, options.accept_gap));
    return out;
  }
  ASSIGN_OR_RETURN(out.report, recover_journal(*memory, out.superblock.uuid, *out.metastore, options.accept_gap));
  if (out.report.replayed != 0 || out.report.discarded != 0) {
    log::info("recovery: {} transactions replayed, {} not persistent before the crash and discarded, {:.1f} ms",
              out.report.replayed, out.report.discarded, out.report.milliseconds);
  }
  if (options.raise_epoch) {
    out.superblock.epoch = out.superblock.epoch.next();
    // From here on there may be what older versions do not know.
    out.superblock.incompat |= kIncompatExtended;
    RETURN_IF_ERROR(store_superblock(directory, out.superblock));
  }
  ASSIGN_OR_RETURN(out.journal, Journal::open(std::move(memory), out.superblock.uuid, *out.metastore, options.journal));
  return out;
}

}  // namespace rmemfs
