// Pass 4, first half: directory entries.
//
// Checks: each entry can be read, lies in a directory, has a name that a file can have, is stored under its hash, is
// the only one of that name, leads to an inode that exists and has that type; the root has no name; a directory has
// one. Counts the names of each inode and the entries of each directory. Leaves to others: whether all directories hang
// together, parents, counts, inodes without names (check_links.cc).
#include <dirent.h>

#include "recovery/check_context.h"

namespace rmemfs {

Result<std::optional<std::string>> name_key(const CheckContext& context, InodeNumber parent, InodeNumber ino) {
  std::optional<std::string> found;
  RETURN_IF_ERROR(context.walk("D" + inode_key(parent).substr(1), [&](std::string_view key, std::string_view value) {
    const auto dirent = decode_dirent(value);
    if (dirent.ok() && dirent->ino == ino && !found) found = std::string(key);
    return success();
  }));
  return found;
}

namespace {

std::string quoted(std::string_view name) { return "\"" + std::string(name) + "\""; }

std::string in_directory(InodeNumber parent) { return " in directory " + std::to_string(parent.value()); }

// What of a key is needed to name it in a report although it is not a good key.
struct LooseKey {
  InodeNumber parent;
  std::string name;
};
LooseKey loose(std::string_view key) {
  std::uint64_t number = 0;
  for (std::size_t i = 1; i < 9 && i < key.size(); ++i) number = number << 8 | static_cast<unsigned char>(key[i]);
  return {InodeNumber(number), std::string(key.substr(std::min<std::size_t>(key.size(), 17)))};
}

struct Entry {
  DirentKey at;
  Dirent dirent;
};

void count(CheckContext& context, const Entry& entry, InodeEntry& target, DirectoryInfo& parent) {
  ++target.names;
  ++parent.found_entries;
  if (target.directory != 0) {
    ++parent.subdirectories;
    context.directories[target.directory - 1].found_parent = entry.at.parent.value();
  }
}

// A directory has one name: the one that its inode's parent agrees with, else the first. False: this one is not
// counted.
Result<bool> settle_two_names(CheckContext& context, const Entry& entry, const std::string& key,
                              DirectoryInfo& directory) {
  if (directory.found_parent == 0) return true;
  const bool better =
      directory.stored_parent == entry.at.parent.value() && directory.found_parent != directory.stored_parent;
  const InodeNumber first_parent(directory.found_parent);
  if (!context.found(ProblemCode::kDirectoryTwoNames, entry.dirent.ino,
                     quoted(entry.at.name) + in_directory(entry.at.parent) + " and one" + in_directory(first_parent))) {
    return false;
  }
  if (!better) {
    context.erase(key);
    return false;
  }
  ASSIGN_OR_RETURN(const auto first, name_key(context, first_parent, entry.dirent.ino));
  if (first) context.erase(*first);
  DirectoryInfo* parent = context.find_directory(first_parent);
  if (parent != nullptr) --parent->found_entries, --parent->subdirectories;
  --context.find(entry.dirent.ino)->names;
  return true;
}

// Stores the entry under the key that its name asks for. False: the name is there already.
Result<bool> move_to_hash(CheckContext& context, Entry& entry, std::string& key) {
  const std::uint64_t right = hash_name(entry.at.name, context.superblock.name_hash_seed);
  if (entry.at.hash == right) return true;
  const std::string right_key = dirent_key(entry.at.parent, right, entry.at.name);
  ASSIGN_OR_RETURN(const auto there, context.get(right_key));
  if (there) {
    if (context.found(ProblemCode::kDirentDuplicate, entry.dirent.ino,
                      quoted(entry.at.name) + in_directory(entry.at.parent))) {
      context.erase(key);
    }
    return false;
  }
  if (!context.found(ProblemCode::kDirentWrongHash, entry.dirent.ino,
                     quoted(entry.at.name) + in_directory(entry.at.parent))) {
    return true;
  }
  context.erase(key);
  context.put(right_key, encode(entry.dirent));
  key = right_key;
  return true;
}

Result<void> check_entry(CheckContext& context, Entry entry, std::string key) {
  const std::string where = quoted(entry.at.name) + in_directory(entry.at.parent);
  DirectoryInfo* parent = context.find_directory(entry.at.parent);
  const InodeEntry* parent_inode = context.find(entry.at.parent);
  if (parent == nullptr) {
    if (parent_inode != nullptr && parent_inode->type == 0) {  // a damaged directory that was kept: so are its names
      if (InodeEntry* target = context.find(entry.dirent.ino)) ++target->names;
      return success();
    }
    if (context.found(ProblemCode::kDirentNoDirectory, entry.dirent.ino, where)) context.erase(key);
    return success();
  }
  InodeEntry* target = context.find(entry.dirent.ino);
  if (target == nullptr) {
    if (context.found(ProblemCode::kDirentDangling, entry.dirent.ino, where))
      context.erase(key);
    else
      ++parent->found_entries;
    return success();
  }
  if (entry.dirent.ino == kRootInode) {
    if (context.found(ProblemCode::kDirentToRoot, entry.dirent.ino, where))
      context.erase(key);
    else
      ++parent->found_entries;
    return success();
  }
  ASSIGN_OR_RETURN(const bool placed, move_to_hash(context, entry, key));
  if (!placed) return success();
  if (target->type != 0 && target->type != entry.dirent.type &&
      context.found(ProblemCode::kDirentWrongType, entry.dirent.ino,
                    where + ": " + std::to_string(entry.dirent.type) + ", should be " + std::to_string(target->type))) {
    entry.dirent.type = target->type;
    context.put(key, encode(entry.dirent));
  }
  if (target->directory != 0) {
    ASSIGN_OR_RETURN(const bool counted,
                     settle_two_names(context, entry, key, context.directories[target->directory - 1]));
    if (!counted) return success();
  }
  count(context, entry, *target, *parent);
  return success();
}

}  // namespace

Result<void> check_names(CheckContext& context) {
  const std::uint64_t last = context.inodes.empty() ? 1 : context.inodes.back().ino;
  std::uint64_t seen = 0;
  auto it = context.store->iterate("D");
  for (; it->valid(); it->next()) {
    RETURN_IF_ERROR(context.settle());
    std::string key(it->key());
    const auto at = decode_dirent_key(key);
    const auto dirent = decode_dirent(it->value());
    if (at.ok() && dirent.ok()) {
      if ((++seen & 1023) == 0) context.progress(CheckPass::kNames, at->parent.value(), last + last / 8);
      RETURN_IF_ERROR(check_entry(context, {*at, *dirent}, key));
      continue;
    }
    const LooseKey rough = loose(key);
    if (context.found(at.ok() ? ProblemCode::kDirentDamaged : ProblemCode::kDirentBadName,
                      dirent.ok() ? dirent->ino : InodeNumber(), quoted(rough.name) + in_directory(rough.parent))) {
      context.erase(std::move(key));
    }
  }
  return it->status();
}

}  // namespace rmemfs
