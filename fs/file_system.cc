// Names, attributes and references. Data is in file_system_file.cc, the reading of directories in file_system_dir.cc.
#include "fs/file_system.h"

#include <sys/stat.h>

#include <fstream>
#include <sstream>

#include "util/check.h"
#include "util/log.h"

namespace rmemfs {

FileSystem::FileSystem(Manager& manager, const FileSystemOptions& options,
                       std::function<ConnectionSet*(std::uint32_t lane)> lanes)
    : manager_(manager),
      options_(options),
      read_only_(options.read_only),
      data_(manager, options.deadline_ms, std::move(lanes)) {}

Result<void> FileSystem::writable() const {
  if (read_only()) return Error(Errc::kReadOnly, "write");
  return {};
}

namespace {

// Whether the group is one of the caller's, as far as can be seen: a process that is gone has its own group only.
bool in_group(const RequestContext& context, std::uint32_t gid) {
  if (context.gid == gid) return true;
  if (context.process <= 0) return false;
  std::ifstream status("/proc/" + std::to_string(context.process) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("Groups:")) continue;
    std::istringstream groups(line.substr(sizeof "Groups:" - 1));
    for (std::uint32_t group; groups >> group;) {
      if (group == gid) return true;
    }
  }
  return false;
}

}  // namespace

bool FileSystem::keeps_group_id(const RequestContext& context, const Attributes& attributes) {
  if ((attributes.mode & S_ISGID) == 0 || context.uid == 0) return true;
  return in_group(context, attributes.gid);
}

SetId FileSystem::set_id_of(const RequestContext& context, Inode& inode, bool clears) const {
  if (!clears) return SetId::kKeep;
  // S_ISGID that means nothing for execution stays with those who are of the group. It is rare, so looking at the
  // caller's groups is too.
  const bool plain = (manager_.mode(inode) & (S_ISGID | S_IXGRP)) == S_ISGID;
  return plain && !keeps_group_id(context, manager_.attributes(inode)) ? SetId::kClearAll : SetId::kClear;
}

Result<Attributes> FileSystem::lookup_by_number(InodeNumber ino) {
  ASSIGN_OR_RETURN(const InodeRef inode, manager_.get(ino));
  // Counted before its links are looked at: whoever removes the last name meanwhile leaves the purge to forget().
  inodes_.add(ino);
  const Attributes attributes = manager_.attributes(*inode);
  if (attributes.nlink != 0) return attributes;
  forget(ino, 1);
  return Error(Errc::kNotFound, "lookup");
}

Result<Attributes> FileSystem::lookup(InodeNumber parent, std::string_view name) {
  if (name == ".") return lookup_by_number(parent);
  ASSIGN_OR_RETURN(const InodeRef directory, manager_.get(parent));
  ASSIGN_OR_RETURN(const InodeRef inode, manager_.lookup(*directory, name));
  inodes_.add(inode->ino);
  return manager_.attributes(*inode);
}

void FileSystem::forget(InodeNumber ino, std::uint64_t count) {
  if (inodes_.forget(ino, count)) start_purge(ino);
}

Result<Attributes> FileSystem::getattr(InodeNumber ino) {
  ASSIGN_OR_RETURN(const InodeRef inode, manager_.get(ino));
  return manager_.attributes(*inode);
}

Task<Result<Attributes>> FileSystem::setattr(RequestContext context, InodeNumber ino, SetAttributes change) {
  CO_RETURN_IF_ERROR(writable());
  // chown(2) clears them whoever calls.
  const bool chown = change.change.uid || change.change.gid;
  if (change.size) {
    CO_ASSIGN_OR_RETURN(InodeRef file, regular(ino));
    CO_RETURN_IF_ERROR(co_await drop_capabilities(context, file));
    // Who gives the permission bits says what becomes of these.
    if (!change.change.mode) change.change.set_id = set_id_of(context, *file, chown || context.clears_set_id);
    co_return co_await data_.truncate(context, file, *change.size, change.change);
  }
  CO_ASSIGN_OR_RETURN(InodeRef inode, manager_.get(ino));
  if (chown) CO_RETURN_IF_ERROR(co_await drop_capabilities(context, inode));
  if (change.set_id_only) {
    change.change.set_id = set_id_of(context, *inode, true);
    const Attributes now = manager_.attributes(*inode);
    Attributes after = now;
    clear_set_id(after, change.change.set_id);
    if (after.mode != now.mode && context.uid != 0 && context.uid != now.uid) co_return now;
  }
  if (chown) change.change.set_id = set_id_of(context, *inode, true);
  co_return co_await manager_.set_attributes(std::move(inode), change.change, context.request);
}

Result<std::string> FileSystem::readlink(InodeNumber ino) {
  ASSIGN_OR_RETURN(const InodeRef inode, manager_.get(ino));
  auto target = manager_.readlink(*inode);
  if (target.ok()) manager_.accessed(inode);
  return target;
}

Task<Result<Attributes>> FileSystem::make_node(RequestContext context, InodeNumber parent, std::string_view name,
                                               NewNode node) {
  CO_RETURN_IF_ERROR(writable());
  node.uid = context.uid;
  node.gid = context.gid;
  CO_ASSIGN_OR_RETURN(InodeRef directory, manager_.get(parent));
  CO_ASSIGN_OR_RETURN(const InodeRef inode, co_await manager_.make_node(directory, name, node, context.request));
  inodes_.add(inode->ino);
  co_return manager_.attributes(*inode);
}

Task<Result<Attributes>> FileSystem::make_temporary(RequestContext context, InodeNumber directory, NewNode node) {
  CO_RETURN_IF_ERROR(writable());
  node.uid = context.uid;
  node.gid = context.gid;
  CO_ASSIGN_OR_RETURN(InodeRef parent, manager_.get(directory));
  CO_ASSIGN_OR_RETURN(const InodeRef inode, co_await manager_.make_temporary(parent, node, context.request));
  inodes_.add(inode->ino);
  CHECK(!inodes_.orphaned(inode->ino));  // it has the reference just counted
  co_return manager_.attributes(*inode);
}

Task<Result<Attributes>> FileSystem::link(RequestContext context, InodeNumber ino, InodeNumber parent,
                                          std::string_view name) {
  CO_RETURN_IF_ERROR(writable());
  CO_ASSIGN_OR_RETURN(InodeRef inode, manager_.get(ino));
  CO_ASSIGN_OR_RETURN(InodeRef directory, manager_.get(parent));
  CO_RETURN_IF_ERROR(co_await manager_.link(inode, directory, name, context.request));
  inodes_.add(ino);
  inodes_.adopted(ino);
  co_return manager_.attributes(*inode);
}

Task<Result<void>> FileSystem::unlink(RequestContext context, InodeNumber parent, std::string_view name) {
  CO_RETURN_IF_ERROR(writable());
  CO_ASSIGN_OR_RETURN(InodeRef directory, manager_.get(parent));
  CO_ASSIGN_OR_RETURN(const InodeRef gone, co_await manager_.unlink(directory, name, context.request));
  after_unlink(gone);
  co_return co_await manager_.settled(directory);
}

Task<Result<void>> FileSystem::rmdir(RequestContext context, InodeNumber parent, std::string_view name) {
  CO_RETURN_IF_ERROR(writable());
  CO_ASSIGN_OR_RETURN(InodeRef directory, manager_.get(parent));
  CO_ASSIGN_OR_RETURN(const InodeRef gone, co_await manager_.rmdir(directory, name, context.request));
  after_unlink(gone);
  co_return co_await manager_.settled(directory);
}

Task<Result<void>> FileSystem::rename(RequestContext context, InodeNumber parent, std::string_view name,
                                      InodeNumber new_parent, std::string_view new_name, RenameMode mode) {
  CO_RETURN_IF_ERROR(writable());
  CO_ASSIGN_OR_RETURN(InodeRef from, manager_.get(parent));
  CO_ASSIGN_OR_RETURN(InodeRef to, manager_.get(new_parent));
  CO_ASSIGN_OR_RETURN(const InodeRef gone, co_await manager_.rename(from, name, to, new_name, mode, context.request));
  if (gone) after_unlink(gone);
  co_return co_await manager_.settled(to);
}

void FileSystem::after_unlink(const InodeRef& gone) {
  if (gone && manager_.attributes(*gone).nlink == 0 && inodes_.orphaned(gone->ino)) start_purge(gone->ino);
}

void FileSystem::start_purge(InodeNumber ino) {
  purging_.fetch_add(1);
  {
    MutexLock lock(purge_mutex_);
    purge_queue_.push_back(ino);
    if (std::exchange(purge_running_, true)) return;
  }
  spawn(purge_queue());
}

Task<void> FileSystem::purge_one(InodeNumber ino) {
  data_.forget(ino);
  auto purged = co_await manager_.purge(ino);
  // What could not be purged keeps its orphan record: the next mount tries again.
  if (!purged.ok() && purged.error().code != Errc::kFenced) {
    log::warn("inode {} could not be purged: {}", ino.value(), purged.error().message());
  }
}

Task<void> FileSystem::purge_queue() {
  co_await Yield{};  // the request that removed the name is answered first
  for (;;) {
    InodeNumber ino;
    {
      MutexLock lock(purge_mutex_);
      if (purge_queue_.empty()) {
        purge_running_ = false;
        co_return;
      }
      ino = purge_queue_.front();
      purge_queue_.pop_front();
    }
    co_await purge_one(ino);
    purging_.fetch_sub(1);
    co_await Yield{};
  }
}

Task<void> FileSystem::purge_pending() {
  for (InodeNumber ino : inodes_.take_orphans()) co_await purge_one(ino);
}

}  // namespace rmemfs
