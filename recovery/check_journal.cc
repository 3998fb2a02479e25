// Pass 1, the journal. Runs before the store is opened for writing.
//
// Checks: the journal file is there and its own header holds; no transaction is missing at or below the highest one
// known to be persistent. Leaves to others: a journal of another file system, another version or an unknown feature is
// no damage but a mistake: it ends the check with an error and nothing is changed. Torn and stale slots are what every
// crash leaves; recovery (recover_journal) deals with them. Whether the metadata fits together is for the later passes.
#include "journal/journal_reader.h"
#include "recovery/check_context.h"
#include "util/pmem.h"

#include <unistd.h>

namespace rmemfs {
namespace {

// A new, empty journal in place of the damaged one. Commit ids go on from the store's watermark when it is opened.
Result<void> remake(const CheckContext& context, const std::string& path) {
  const Superblock& superblock = context.superblock;
  const std::string fresh = path + ".new";
  ::unlink(fresh.c_str());
  PmemOptions options;
  options.create = true;
  options.size = Journal::bytes_needed(superblock.journal);
  {
    ASSIGN_OR_RETURN(auto memory, map_persistent(fresh, options));
    RETURN_IF_ERROR(Journal::format(*memory, superblock.uuid, superblock.journal));
    RETURN_IF_ERROR(memory->sync());
  }
  if (::rename(fresh.c_str(), path.c_str()) != 0) {
    return Error(errc_from_errno(errno), "journal", path);
  }
  return success();
}

Result<JournalVerdict> damaged(CheckContext& context, ProblemCode code, const std::string& path) {
  JournalVerdict verdict;
  if (!context.found(code, InodeNumber(), path)) {
    verdict.usable = false;
    return verdict;
  }
  if (context.read_only()) {
    verdict.usable = false;  // the metadata cannot be opened as it would be after the repair
    return verdict;
  }
  RETURN_IF_ERROR(remake(context, path));
  return verdict;
}

}  // namespace

Result<JournalVerdict> check_journal(CheckContext& context) {
  context.progress(CheckPass::kJournal, 0, 1);
  const std::string path = journal_path_of(context.options.directory, context.superblock);
  // Opened for reading only: the uuid must fit before anything else is believed.
  ASSIGN_OR_RETURN(const auto store, Metastore::open(context.options.directory + "/db", Metastore::Mode::kReadOnly,
                                                     context.superblock.uuid, context.options.metastore));
  PmemOptions mapping;
  mapping.read_only = true;
  auto memory = map_persistent(path, mapping);
  if (!memory.ok()) {
    if (memory.error().code == Errc::kNotFound) return damaged(context, ProblemCode::kJournalMissing, path);
    return memory.error();
  }
  const auto scan = scan_journal(**memory, context.superblock.uuid, store->durable_watermark());
  if (!scan.ok()) {
    const Errc code = scan.error().code;
    if (code != Errc::kCorrupt && code != Errc::kChecksum) return scan.error();
    return damaged(context, ProblemCode::kJournalDamaged, path);
  }
  JournalVerdict verdict;
  if (scan->missing) {
    verdict.accept_gap = context.found(ProblemCode::kJournalGap, InodeNumber(),
                                       "transaction " + std::to_string(scan->missing->value()) + " is missing, " +
                                           std::to_string(scan->highest_persisted.value()) + " was persistent");
    verdict.usable = verdict.accept_gap;
  }
  context.progress(CheckPass::kJournal, 1, 1);
  return verdict;
}

}  // namespace rmemfs
