// Pass 4, second half: how directories hang together, and what is counted in inodes. Works on the tables alone.
//
// Checks: every inode with links has a name; every directory is reached from the root; a directory's parent is where
// its name is; link counts (names; for a directory 2 and one for each directory in it) and entry counts. Leaves to
// others: an inode without a name and without links is an orphan: its record is the orphans pass's.
//
// After the first step each directory but the root has at most one parent, so walking up ends at the root, at an
// orphan, or in a loop; a loop is cut at the first directory that the walk meets twice.
#include <dirent.h>

#include "recovery/check_context.h"
#include "recovery/check_lost_found.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kConnected = UINT64_MAX;

// Tables may move when lost+found is made: so by index, and no reference is kept across adopt().
Result<void> attach_nameless(CheckContext& context, LostAndFound& lost_found) {
  for (std::size_t i = 0; i < context.inodes.size(); ++i) {
    RETURN_IF_ERROR(context.settle());
    InodeEntry& entry = context.inodes[i];
    if (entry.names != 0 || entry.type == 0 || entry.ino == kRootInode.value()) continue;
    const bool full = entry.directory != 0 && context.directories[entry.directory - 1].found_entries != 0;
    if (entry.nlink == 0 && !full) {
      entry.orphan = true;
      ++context.report.orphans;
      continue;
    }
    const InodeNumber ino(entry.ino);
    const auto code = entry.directory != 0 ? ProblemCode::kDirectoryUnattached : ProblemCode::kInodeUnattached;
    if (context.found(code, ino, "")) RETURN_IF_ERROR(lost_found.adopt(ino));
  }
  return success();
}

Result<void> cut_loop(CheckContext& context, LostAndFound& lost_found, std::uint64_t at) {
  const InodeNumber ino(at);
  const InodeNumber parent(context.find_directory(ino)->found_parent);
  if (!context.found(ProblemCode::kDirectoryLoop, ino, "its name is in directory " + std::to_string(parent.value()))) {
    return success();
  }
  ASSIGN_OR_RETURN(const auto key, name_key(context, parent, ino));
  if (key) context.erase(*key);
  DirectoryInfo* info = context.find_directory(parent);
  --info->found_entries;
  --info->subdirectories;
  return lost_found.adopt(ino);
}

Result<void> connect(CheckContext& context, LostAndFound& lost_found) {
  for (std::size_t i = 0; i < context.directories.size(); ++i) {
    RETURN_IF_ERROR(context.settle());
    const std::uint64_t walk = i + 1;
    const std::uint64_t first = context.directories[i].ino;
    bool looped = false;
    std::uint64_t at = first;
    for (;;) {
      DirectoryInfo* info = context.find_directory(InodeNumber(at));
      if (info == nullptr || info->mark == kConnected) break;
      if (info->mark == walk) {
        looped = true;
        break;
      }
      info->mark = walk;
      if (at == kRootInode.value()) break;
      at = info->found_parent;
    }
    if (looped) RETURN_IF_ERROR(cut_loop(context, lost_found, at));
    for (at = first;;) {
      DirectoryInfo* info = context.find_directory(InodeNumber(at));
      if (info == nullptr || info->mark == kConnected) break;
      info->mark = kConnected;
      at = info->found_parent;
    }
  }
  return success();
}

Result<void> set_parents(CheckContext& context) {
  for (DirectoryInfo& info : context.directories) {
    RETURN_IF_ERROR(context.settle());
    const InodeNumber ino(info.ino);
    const std::uint64_t right = ino == kRootInode ? info.ino : info.found_parent;
    if (right == 0 || right == info.stored_parent) continue;
    if (!context.found(ProblemCode::kParentWrong, ino,
                       std::to_string(info.stored_parent) + ", should be " + std::to_string(right))) {
      continue;
    }
    ASSIGN_OR_RETURN(Attributes attributes, context.attributes(ino));
    attributes.parent = InodeNumber(right);
    context.put(inode_key(ino), encode(attributes));
  }
  return success();
}

std::uint32_t right_links(const InodeEntry& entry, const DirectoryInfo* directory) {
  if (entry.orphan) return 0;
  return directory != nullptr ? 2 + directory->subdirectories : entry.names;
}

Result<void> set_counts(CheckContext& context) {
  std::uint64_t seen = 0;
  for (InodeEntry& entry : context.inodes) {
    RETURN_IF_ERROR(context.settle());
    if ((++seen & 4095) == 0)
      context.progress(CheckPass::kNames, 8 * context.inodes.size() + seen, 9 * context.inodes.size());
    const InodeNumber ino(entry.ino);
    const bool unattached = entry.names == 0 && !entry.orphan && ino != kRootInode;
    if (entry.type == 0 || unattached) continue;
    DirectoryInfo* directory = entry.directory != 0 ? &context.directories[entry.directory - 1] : nullptr;
    const std::uint32_t links = right_links(entry, directory);
    if (entry.nlink != links && context.found(ProblemCode::kLinkCountWrong, ino,
                                              std::to_string(entry.nlink) + ", should be " + std::to_string(links))) {
      ASSIGN_OR_RETURN(Attributes attributes, context.attributes(ino));
      attributes.nlink = links;
      entry.nlink = links;
      context.put(inode_key(ino), encode(attributes));
    }
    if (directory != nullptr && directory->stored_entries != directory->found_entries &&
        context.found(
            ProblemCode::kEntryCountWrong, ino,
            std::to_string(directory->stored_entries) + ", should be " + std::to_string(directory->found_entries))) {
      ASSIGN_OR_RETURN(Attributes attributes, context.attributes(ino));
      attributes.entries = directory->found_entries;
      context.put(inode_key(ino), encode(attributes));
    }
  }
  return success();
}

}  // namespace

Result<void> check_links(CheckContext& context) {
  LostAndFound lost_found(context);
  RETURN_IF_ERROR(attach_nameless(context, lost_found));
  RETURN_IF_ERROR(connect(context, lost_found));
  RETURN_IF_ERROR(set_parents(context));
  RETURN_IF_ERROR(set_counts(context));
  context.progress(CheckPass::kNames, 1, 1);
  return success();
}

}  // namespace rmemfs
