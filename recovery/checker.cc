// The order of a check. What is done before the passes changes nothing but a journal that was not applied:
//   1  superblock read; lock taken (shared for reading); superblock read again under the lock
//   2  pass 1 decides about the journal with everything opened for reading only
//   3  recover() opens the store; its journal is closed at once: the repairs are batches of their own
//   4  passes 2 to 8
//   5  the rest of the repairs is written and made durable; paths are looked up for the report
#include "recovery/checker.h"

#include <array>

#include "recovery/check_context.h"
#include "recovery/recover.h"

namespace rmemfs {
namespace {

Result<void> check_features(const CheckContext& context) {
  const std::uint64_t unknown = context.superblock.ro_compat & ~kKnownRoCompat;
  if (unknown == 0 || context.read_only()) return success();
  return Error(Errc::kUnsupportedFeature, "check",
               context.options.directory + ": ro_compat feature bit " + std::to_string(__builtin_ctzll(unknown)) +
                   "; it can be checked with -n only");
}

Result<void> open_store(CheckContext& context, bool accept_gap) {
  RecoverOptions options;
  options.metastore = context.options.metastore;
  options.read_only = context.read_only();
  options.accept_gap = accept_gap;
  options.raise_epoch = false;
  ASSIGN_OR_RETURN(RecoveredStore opened, recover(context.options.directory, options));
  context.report.replayed = opened.report.replayed;
  if (opened.report.replayed != 0) {
    context.notice("the journal held " + std::to_string(opened.report.replayed) +
                   " transactions that the metadata store did not have yet; they " +
                   (context.read_only() ? "are taken into account" : "were applied"));
  }
  if (opened.journal != nullptr) {
    RETURN_IF_ERROR(opened.journal->close());
    opened.journal.reset();
    ASSIGN_OR_RETURN(context.watermark, opened.metastore->make_durable());
  }
  context.store = std::move(opened.metastore);
  return success();
}

}  // namespace

Result<void> run_passes(CheckContext& context) {
  static constexpr std::array kPasses = {check_superblock, check_inodes, check_names,   check_links,
                                         check_extents,    check_space,  check_orphans, check_nodes};
  for (const auto& pass : kPasses) {
    RETURN_IF_ERROR(pass(context));
    if (context.incomplete) break;
  }
  return context.write_all();
}

Result<CheckReport> check_file_system(const CheckOptions& options) {
  CheckReport report;
  CheckContext context(options, report);
  // Before the lock, whose file must not be made in a directory that is no file system.
  ASSIGN_OR_RETURN(context.superblock, load_superblock(options.directory));
  const LockMode mode = context.read_only() ? LockMode::kShared : LockMode::kExclusive;
  ASSIGN_OR_RETURN(const UniqueFd lock, lock_directory(options.directory, mode, "checked by fsck.rmemfs"));
  ASSIGN_OR_RETURN(context.superblock, load_superblock(options.directory));
  RETURN_IF_ERROR(check_features(context));
  report.uuid = context.superblock.uuid;
  report.label = context.superblock.label;

  ASSIGN_OR_RETURN(const JournalVerdict verdict, check_journal(context));
  if (!verdict.usable) {
    context.notice("without its journal the file system was not checked further");
    return report;
  }
  RETURN_IF_ERROR(open_store(context, verdict.accept_gap));
  auto passed = run_passes(context);
  if (!passed.ok()) {
    if (passed.error().code != Errc::kCancelled) return passed.error();
    report.cancelled = true;
  }
  RETURN_IF_ERROR(context.write_all());
  if (!report.cancelled) RETURN_IF_ERROR(resolve_paths(context));
  return report;
}

}  // namespace rmemfs
