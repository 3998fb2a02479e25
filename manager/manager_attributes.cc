// Attributes, and the durability of what was acknowledged.
#include <sys/stat.h>

#include "manager/manager_impl.h"

namespace rmemfs {

Result<void> check_change(const AttributeChange& change) {
  for (const auto* time : {&change.atime, &change.mtime, &change.ctime}) {
    if (*time && (*time)->nanoseconds >= 1000000000) return Error(Errc::kInvalid, "set attributes");
  }
  return success();
}

void clear_set_id(Attributes& attributes, SetId set_id) {
  if (set_id == SetId::kKeep || S_ISDIR(attributes.mode)) return;
  const bool group = (attributes.mode & S_IXGRP) != 0 || set_id == SetId::kClearAll;
  attributes.mode &= ~static_cast<std::uint32_t>(group ? S_ISUID | S_ISGID : S_ISUID);
}

void apply_change(Attributes& attributes, const AttributeChange& change, Timestamp now) {
  if (change.mode) attributes.mode = (attributes.mode & S_IFMT) | (*change.mode & 07777);
  if (change.uid) attributes.uid = *change.uid;
  if (change.gid) attributes.gid = *change.gid;
  clear_set_id(attributes, change.set_id);
  if (change.atime) attributes.atime = *change.atime;
  if (change.mtime) attributes.mtime = *change.mtime;
  attributes.ctime = change.ctime.value_or(now);
}

Attributes ManagerImpl::attributes(Inode& inode) {
  MutexLock lock(inode.mutex);
  inode.times_seen = true;
  return inode.attributes;
}

std::uint32_t ManagerImpl::mode(Inode& inode) {
  MutexLock lock(inode.mutex);
  return inode.attributes.mode;
}

std::uint64_t ManagerImpl::size(Inode& inode) {
  MutexLock lock(inode.mutex);
  return inode.attributes.size;
}

std::uint32_t ManagerImpl::extended_bytes(Inode& inode) {
  MutexLock lock(inode.mutex);
  return inode.attributes.extended_bytes;
}

Task<Result<Attributes>> ManagerImpl::set_attributes(InodeRef inode, AttributeChange change, std::uint64_t request) {
  CO_RETURN_IF_ERROR(check_change(change));
  for (;;) {
    // An access list follows the permission bits, and keeps its length.
    const std::size_t extended = change.mode ? attributes(*inode).extended_bytes : 0;
    CO_ASSIGN_OR_RETURN(SlotReservation slots, co_await room(kInodeBytes + kExtendedKeyBytes + extended));
    Attributes result;
    CommitId id;
    {
      MutexLock lock(inode->mutex);
      if (inode->attributes.mode == 0) co_return Error(Errc::kNotFound, "set attributes");
      if (change.mode && inode->attributes.extended_bytes > extended) continue;  // it has grown meanwhile
      result = inode->attributes;
      apply_change(result, change, now_timestamp());
      TransactionBuilder builder;
      if (change.mode && result.extended_bytes != 0) CO_RETURN_IF_ERROR(change_list_mode(result, builder));
      inode->attributes = result;
      inode->times_seen = true;
      put_inode(builder, result);
      id = commit(std::move(slots), builder, request, {inode.get()});
    }
    CO_RETURN_IF_ERROR(co_await settle(id));
    co_return result;
  }
}

Task<Result<void>> ManagerImpl::persist(InodeRef inode) {
  bool access_newer;
  {
    MutexLock lock(inode->mutex);
    access_newer = inode->access_newer;
  }
  if (access_newer) co_await write_access_time(inode);
  const CommitId id(inode->last_commit.load(std::memory_order_acquire));
  if (id <= journal_.persisted_id()) co_return success();
  co_return co_await journal_.persist(id);
}

Task<Result<void>> ManagerImpl::persist_all() { co_return co_await journal_.persist(journal_.last_id()); }

void ManagerImpl::fenced() {
  if (fenced_.exchange(true, std::memory_order_acq_rel)) return;
  if (on_fenced) on_fenced();
}

}  // namespace rmemfs
