// Pass 7, orphan records: inodes without a name that wait to be removed (open when they were unlinked, or half
// removed).
//
// Checks: each record can be read and names an inode without links; each inode without links has a record.
// Leaves to others: removing them and freeing their blocks. The next mount does it, as after every crash; an orphan is
// no problem. Inodes with links and without a name went to lost+found (names).
#include "recovery/check_context.h"

namespace rmemfs {
namespace {

void check_record(CheckContext& context, std::string_view key, std::string_view value) {
  const auto ino = decode_inode_key(key);
  if (!ino.ok()) {
    if (context.found(ProblemCode::kOrphanDamaged, InodeNumber(), "")) context.erase(std::string(key));
    return;
  }
  InodeEntry* entry = context.find(*ino);
  if (entry == nullptr) {
    if (context.found(ProblemCode::kOrphanNoInode, *ino, "")) context.erase(std::string(key));
    return;
  }
  if (!entry->orphan && entry->type != 0) {
    if (context.found(ProblemCode::kOrphanLinked, *ino, "")) context.erase(std::string(key));
    return;
  }
  entry->recorded = true;
  if (!value.empty() && context.found(ProblemCode::kOrphanDamaged, *ino, "")) {
    context.put(std::string(key), std::string());
  }
}

}  // namespace

Result<void> check_orphans(CheckContext& context) {
  context.progress(CheckPass::kOrphans, 0, 1);
  auto it = context.store->iterate("O");
  for (; it->valid(); it->next()) {
    RETURN_IF_ERROR(context.settle());
    check_record(context, it->key(), it->value());
  }
  RETURN_IF_ERROR(it->status());
  for (InodeEntry& entry : context.inodes) {
    RETURN_IF_ERROR(context.settle());
    if (!entry.orphan || entry.recorded) continue;
    const InodeNumber ino(entry.ino);
    if (context.found(ProblemCode::kOrphanUnrecorded, ino, "")) context.put(orphan_key(ino), std::string());
  }
  context.progress(CheckPass::kOrphans, 1, 1);
  return success();
}

}  // namespace rmemfs
