// Pass 3, inode records and link targets.
//
// Checks: each record can be read; sizes are possible for the type; fields of other types are not set; the root exists
// and is a directory; each symbolic link has a target, and each target a link; each record of extended attributes can
// be read and belongs to an inode that says how long it is. Leaves to others: names, parents, link and entry counts
// (names), allocated blocks (extents), what nlink 0 means (orphans), the inode counters (space). Modes, owners and
// times are the user's: every value that can be stored is right.
#include <dirent.h>
#include <sys/stat.h>

#include "recovery/check_context.h"

namespace rmemfs {
namespace {

constexpr ProblemCode kDamaged = ProblemCode::kInodeDamaged;

Attributes fresh_root() {
  Attributes root;
  root.ino = kRootInode;
  root.mode = S_IFDIR | 0755;
  root.nlink = 2;
  root.size = kDirectoryBytes;
  root.parent = kRootInode;
  root.atime = root.mtime = root.ctime = root.btime = now_timestamp();
  return root;
}

void remember(CheckContext& context, const Attributes& a) {
  InodeEntry entry;
  entry.ino = a.ino.value();
  entry.blocks = a.blocks;
  entry.nlink = a.nlink;
  entry.type = static_cast<std::uint8_t>((a.mode & S_IFMT) >> 12);
  if (S_ISDIR(a.mode)) {
    DirectoryInfo directory;
    directory.ino = a.ino.value();
    directory.stored_parent = a.parent.value();
    directory.stored_entries = a.entries;
    context.directories.push_back(directory);
    entry.directory = static_cast<std::uint32_t>(context.directories.size());
  }
  context.inodes.push_back(entry);
}

void check_fields(CheckContext& context, Attributes& a) {
  const bool device = S_ISCHR(a.mode) || S_ISBLK(a.mode);
  std::string detail;
  if (!device && a.rdev != 0) detail = "a device number";
  if (!S_ISREG(a.mode) && a.blocks != 0) detail = "allocated blocks";
  if (!detail.empty() && context.found(ProblemCode::kInodeFieldBad, a.ino, detail)) {
    if (!device) a.rdev = 0;
    if (!S_ISREG(a.mode)) a.blocks = 0;
    context.put(inode_key(a.ino), encode(a));
  }
  const bool sized = S_ISREG(a.mode) || S_ISLNK(a.mode) || S_ISDIR(a.mode);
  if (!sized && a.size != 0 &&
      context.found(ProblemCode::kInodeSizeBad, a.ino, std::to_string(a.size) + ", should be 0")) {
    a.size = 0;
    context.put(inode_key(a.ino), encode(a));
  }
}

bool usable_target(std::string_view target) {
  return !target.empty() && target.size() <= kMaxSymlinkBytes && target.find('\0') == std::string_view::npos;
}

// A link without its target says nothing; its name goes with it (the names pass finds it dangling).
Result<bool> check_link(CheckContext& context, Attributes& a) {
  ASSIGN_OR_RETURN(const auto target, context.get(symlink_key(a.ino)));
  if (!target || !usable_target(*target)) {
    if (!context.found(ProblemCode::kSymlinkMissing, a.ino, target ? "damaged" : "missing")) return true;
    context.erase(inode_key(a.ino));
    context.erase(symlink_key(a.ino));
    return false;
  }
  if (a.size != target->size() &&
      context.found(ProblemCode::kInodeSizeBad, a.ino,
                    std::to_string(a.size) + ", should be " + std::to_string(target->size()))) {
    a.size = target->size();
    context.put(inode_key(a.ino), encode(a));
  }
  return true;
}

Result<void> check_extended(CheckContext& context, Attributes& a) {
  ASSIGN_OR_RETURN(const auto record, context.get(extended_key(a.ino)));
  if (!record && a.extended_bytes == 0) return success();
  const bool readable = record && decode_extended(*record).ok();
  if (readable && record->size() == a.extended_bytes) return success();
  if (readable) {
    if (!context.found(ProblemCode::kExtendedLength, a.ino,
                       std::to_string(a.extended_bytes) + ", should be " + std::to_string(record->size()))) {
      return success();
    }
    a.extended_bytes = static_cast<std::uint32_t>(record->size());
  } else {
    if (!context.found(ProblemCode::kExtendedDamaged, a.ino, record ? "damaged" : "missing")) return success();
    a.extended_bytes = 0;
    context.erase(extended_key(a.ino));
  }
  context.put(inode_key(a.ino), encode(a));
  return success();
}

Result<void> check_record(CheckContext& context, std::string_view key, std::string_view value) {
  auto attributes = decode_inode(key, value);
  if (attributes.ok() && attributes->ino.value() >= kInodeNumberEnd) attributes = Error(Errc::kCorrupt, "inode number");
  const bool root = key == inode_key(kRootInode);
  if (!attributes.ok()) {
    if (root) return success();  // check_root makes a new one
    const auto ino = decode_inode_key(key);
    if (context.found(kDamaged, ino.ok() ? *ino : InodeNumber(), ino.ok() ? "" : "its key is damaged too")) {
      context.erase(std::string(key));
    } else if (ino.ok()) {
      context.inodes.push_back({ino->value()});  // it stays, unknown: nothing that refers to it is touched for it
    }
    return success();
  }
  if (root && !S_ISDIR(attributes->mode)) return success();
  check_fields(context, *attributes);
  if (S_ISLNK(attributes->mode)) {
    ASSIGN_OR_RETURN(const bool kept, check_link(context, *attributes));
    if (!kept) return success();
  }
  RETURN_IF_ERROR(check_extended(context, *attributes));
  remember(context, *attributes);
  return success();
}

Result<void> check_root(CheckContext& context) {
  // It comes first in key order, so it is at the front if it was readable.
  if (!context.inodes.empty() && context.inodes.front().ino == kRootInode.value()) return success();
  if (!context.found(ProblemCode::kRootMissing, kRootInode, "")) {
    context.incomplete = true;
    context.notice("without a root directory nothing more can be checked");
    return success();
  }
  const Attributes root = fresh_root();
  context.put(inode_key(kRootInode), encode(root));
  context.erase(extended_key(kRootInode));  // the new one has none
  const std::vector<InodeEntry> inodes = std::move(context.inodes);
  context.inodes.clear();
  remember(context, root);
  context.inodes.insert(context.inodes.end(), inodes.begin(), inodes.end());
  return success();
}

Result<void> check_targets(CheckContext& context) {
  auto it = context.store->iterate("S");
  for (; it->valid(); it->next()) {
    RETURN_IF_ERROR(context.settle());
    const auto ino = decode_inode_key(it->key());
    if (ino.ok()) {
      const InodeEntry* entry = context.find(*ino);
      if (entry != nullptr && (entry->type == DT_LNK || entry->type == 0)) continue;
      ASSIGN_OR_RETURN(const auto target, context.get(std::string(it->key())));
      if (!target) continue;  // went with its link just now
    }
    if (context.found(ProblemCode::kSymlinkStray, ino.ok() ? *ino : InodeNumber(), "")) {
      context.erase(std::string(it->key()));
    }
  }
  return it->status();
}

Result<void> check_extended_owners(CheckContext& context) {
  auto it = context.store->iterate("X");
  for (; it->valid(); it->next()) {
    RETURN_IF_ERROR(context.settle());
    const auto ino = decode_inode_key(it->key());
    if (ino.ok() && context.find(*ino) != nullptr) continue;
    ASSIGN_OR_RETURN(const auto record, context.get(std::string(it->key())));
    if (!record) continue;
    if (context.found(ProblemCode::kExtendedStray, ino.ok() ? *ino : InodeNumber(), "")) {
      context.erase(std::string(it->key()));
    }
  }
  return it->status();
}

}  // namespace

Result<void> check_inodes(CheckContext& context) {
  std::uint64_t expected = 0;
  ASSIGN_OR_RETURN(const auto counter, context.get(singleton_key("inodes")));
  if (counter) {
    if (auto number = decode_number(*counter); number.ok()) expected = *number;
  }
  std::uint64_t seen = 0;
  auto it = context.store->iterate("I");
  for (; it->valid(); it->next()) {
    RETURN_IF_ERROR(context.settle());
    RETURN_IF_ERROR(check_record(context, it->key(), it->value()));
    if ((++seen & 1023) == 0) context.progress(CheckPass::kInodes, seen, expected);
  }
  RETURN_IF_ERROR(it->status());
  RETURN_IF_ERROR(check_root(context));
  if (!context.incomplete) RETURN_IF_ERROR(check_targets(context));
  if (!context.incomplete) RETURN_IF_ERROR(check_extended_owners(context));
  context.report.inodes = context.inodes.size();
  context.report.directories = context.directories.size();
  context.progress(CheckPass::kInodes, 1, 1);
  return success();
}

}  // namespace rmemfs
