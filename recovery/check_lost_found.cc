#include "recovery/check_lost_found.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>

namespace rmemfs {

std::string LostAndFound::key_of(InodeNumber directory, const std::string& name) const {
  return dirent_key(directory, hash_name(name, context_.superblock.name_hash_seed), name);
}

Result<std::string> LostAndFound::free_name(InodeNumber directory, const std::string& base) {
  std::string name = base;
  for (unsigned i = 1;; ++i) {
    ASSIGN_OR_RETURN(const auto there, context_.get(key_of(directory, name)));
    if (!there) return name;
    name = base + "." + std::to_string(i);
  }
}

Result<void> LostAndFound::add_entry(InodeNumber directory, const std::string& name, InodeNumber ino,
                                     std::uint8_t type) {
  context_.put(key_of(directory, name), encode(Dirent{ino, type}));
  DirectoryInfo* info = context_.find_directory(directory);
  InodeEntry* entry = context_.find(directory);
  ASSIGN_OR_RETURN(Attributes attributes, context_.attributes(directory));
  ++attributes.entries;
  ++info->stored_entries;
  ++info->found_entries;
  if (type == DT_DIR) {
    ++attributes.nlink;
    ++entry->nlink;
    ++info->subdirectories;
  }
  context_.put(inode_key(directory), encode(attributes));
  return success();
}

Result<void> LostAndFound::make(const std::string& name) {
  std::uint64_t number = context_.inodes.back().ino + 1;
  ASSIGN_OR_RETURN(const auto next, context_.get(singleton_key("next_inode")));
  if (next) {
    if (const auto stored = decode_number(*next); stored.ok() && *stored < kInodeNumberEnd) {
      number = std::max(number, *stored);
    }
  }
  Attributes a;
  a.ino = InodeNumber(number);
  a.mode = S_IFDIR | 0700;
  a.nlink = 2;
  a.size = kDirectoryBytes;
  a.parent = kRootInode;
  a.atime = a.mtime = a.ctime = a.btime = now_timestamp();
  context_.put(inode_key(a.ino), encode(a));
  context_.put(singleton_key("next_inode"), encode_number(number + 1));
  ASSIGN_OR_RETURN(const auto count, context_.get(singleton_key("inodes")));
  if (count) {
    if (const auto stored = decode_number(*count); stored.ok()) {
      context_.put(singleton_key("inodes"), encode_number(*stored + 1));
    }
  }
  InodeEntry entry;
  entry.ino = number;
  entry.nlink = 2;
  entry.names = 1;
  entry.type = DT_DIR;
  DirectoryInfo info;
  info.ino = number;
  info.stored_parent = info.found_parent = kRootInode.value();
  context_.directories.push_back(info);
  entry.directory = static_cast<std::uint32_t>(context_.directories.size());
  context_.inodes.push_back(entry);
  RETURN_IF_ERROR(add_entry(kRootInode, name, a.ino, DT_DIR));
  directory_ = a.ino;
  return success();
}

Result<void> LostAndFound::open() {
  static const std::string kName = "lost+found";
  ASSIGN_OR_RETURN(const auto there, context_.get(key_of(kRootInode, kName)));
  if (there) {
    const auto dirent = decode_dirent(*there);
    const DirectoryInfo* info = dirent.ok() ? context_.find_directory(dirent->ino) : nullptr;
    if (info != nullptr && info->found_parent == kRootInode.value()) {
      directory_ = dirent->ino;
      return success();
    }
  }
  ASSIGN_OR_RETURN(const std::string name, free_name(kRootInode, kName));
  return make(name);
}

Result<void> LostAndFound::adopt(InodeNumber ino) {
  if (directory_.value() == 0) RETURN_IF_ERROR(open());
  ASSIGN_OR_RETURN(const std::string name, free_name(directory_, "#" + std::to_string(ino.value())));
  InodeEntry* entry = context_.find(ino);
  RETURN_IF_ERROR(add_entry(directory_, name, ino, entry->type));
  entry->names = 1;
  if (entry->directory == 0) return success();
  DirectoryInfo& info = context_.directories[entry->directory - 1];
  info.found_parent = info.stored_parent = directory_.value();
  ASSIGN_OR_RETURN(Attributes attributes, context_.attributes(ino));
  attributes.parent = directory_;
  context_.put(inode_key(ino), encode(attributes));
  return success();
}

}  // namespace rmemfs
