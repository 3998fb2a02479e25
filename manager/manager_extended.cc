// Extended attributes and access lists. All of an inode's attributes are one record, which each change replaces: they
// are few and small, and one record is read, written and removed at once. The inode says how long the record is, so an
// inode without attributes is answered for without a look at the store.
//
// An access list that says no more than the permission bits is not kept; one that says more and the bits are changed in
// one transaction, so that they never disagree.
#include <sys/stat.h>

#include "manager/manager_impl.h"
#include "manager/posix_acl.h"

namespace rmemfs {
namespace {

constexpr int kAttempts = 100;  // of a change whose record changes while room for it is waited for

// What files made in a directory with a default list of that length start with, at most.
constexpr std::size_t inherited_bytes(std::size_t list_bytes) {
  return 2 * (kExtendedEntryBytes + list_bytes) + kAccessListName.size() + kDefaultListName.size();
}

}  // namespace

// Under the inode's mutex.
Result<ExtendedAttributes> ManagerImpl::load_extended(const Attributes& a) {
  if (a.extended_bytes == 0) return ExtendedAttributes();
  ASSIGN_OR_RETURN(const auto value, metastore_.get(extended_key(a.ino)));
  if (!value || value->size() != a.extended_bytes) {
    return Error(Errc::kCorrupt, "extended attributes", "inode " + std::to_string(a.ino.value()));
  }
  return decode_extended(*value);
}

// Under the inode's mutex.
void ManagerImpl::put_extended(Attributes& a, const std::string& record, TransactionBuilder& builder) {
  if (record.empty() && a.extended_bytes == 0) return;
  a.extended_bytes = static_cast<std::uint32_t>(record.size());
  if (record.empty())
    builder.erase(extended_key(a.ino));
  else
    builder.put(extended_key(a.ino), record);
}

Result<std::string> ManagerImpl::get_extended(Inode& inode, std::string_view name) {
  RETURN_IF_ERROR(readable());
  MutexLock lock(inode.mutex);
  if (inode.attributes.extended_bytes == 0) return Error(Errc::kNoAttribute, "get attribute");
  ASSIGN_OR_RETURN(ExtendedAttributes all, load_extended(inode.attributes));
  const auto it = all.find(name);
  if (it == all.end()) return Error(Errc::kNoAttribute, "get attribute");
  return std::move(it->second);
}

Result<std::vector<std::string>> ManagerImpl::list_extended(Inode& inode) {
  RETURN_IF_ERROR(readable());
  MutexLock lock(inode.mutex);
  std::vector<std::string> names;
  ASSIGN_OR_RETURN(const ExtendedAttributes all, load_extended(inode.attributes));
  for (const auto& [name, value] : all) names.push_back(name);
  return names;
}

// What the change makes of the attributes and, for an access list, of the mode; false when nothing changes.
// Under the inode's mutex.
Result<bool> ManagerImpl::change_extended(const ExtendedChange& change, Attributes& a, ExtendedAttributes& all) const {
  const auto it = all.find(change.name);
  const bool list = change.name == kAccessListName || change.name == kDefaultListName;
  if (!change.value) {
    if (it == all.end() && list) return false;  // as good as gone
    if (it == all.end()) return Error(Errc::kNoAttribute, "remove attribute");
    all.erase(it);
    return true;
  }
  if (change.mode == ExtendedChange::Mode::kCreate && it != all.end()) return Error(Errc::kExists, "set attribute");
  if (change.mode == ExtendedChange::Mode::kReplace && it == all.end()) {
    return Error(Errc::kNoAttribute, "set attribute");
  }
  std::string value(*change.value);
  const std::uint32_t mode = a.mode;
  if (list) {
    if (S_ISLNK(a.mode)) return Error(Errc::kNotSupported, "access list");
    ASSIGN_OR_RETURN(const AccessList entries, decode_access_list(value));
    if (change.name == kDefaultListName) {
      if (!S_ISDIR(a.mode)) return Error(Errc::kAccess, "access list");
    } else {
      a.mode = (a.mode & ~0777u) | mode_of(entries);
      if (change.clear_group_id) a.mode &= ~static_cast<std::uint32_t>(S_ISGID);
      if (is_mode_only(entries)) {
        const bool kept = it != all.end();
        if (kept) all.erase(it);
        return kept || a.mode != mode;
      }
    }
    value = encode_access_list(entries);
  }
  if (it != all.end() && it->second == value) return a.mode != mode;
  all.insert_or_assign(std::string(change.name), std::move(value));
  return true;
}

// The record's length is known only under the lock, and room is reserved before it: so it is estimated, and estimated
// again when it has grown in between.
Task<Result<void>> ManagerImpl::set_extended(InodeRef inode, ExtendedChange change, std::uint64_t request) {
  if (change.name.empty() || change.name.size() > kMaxNameBytes) co_return Error(Errc::kRange, "attribute name");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::size_t now = attributes(*inode).extended_bytes;
    // Removing an attribute makes the record shorter.
    const std::size_t added = change.value ? kExtendedEntryBytes + change.name.size() + change.value->size() : 0;
    const std::size_t most = std::min(now + added, kMaxExtendedBytes);
    const std::size_t wanted = kInodeBytes + kExtendedKeyBytes + most;
    // chmod(2) puts the record, truncation an extent along with it.
    if (added != 0 && wanted + kExtentStepBytes > journal_.max_payload_bytes()) {
      co_return Error(Errc::kNoSpace, "attributes");
    }
    if (change.name == kDefaultListName && change.value) {
      // What cannot be inherited is refused here, not when a file is made.
      const std::size_t inherited = inherited_bytes(change.value->size());
      const std::size_t made = make_bytes(kMaxNameBytes, 0) + kExtendedKeyBytes + inherited;
      if (inherited > kMaxExtendedBytes || made > journal_.max_payload_bytes()) {
        co_return Error(Errc::kNoSpace, "access list");
      }
    }
    CO_ASSIGN_OR_RETURN(SlotReservation slots, co_await room(wanted));
    CommitId id;
    {
      MutexLock lock(inode->mutex);
      if (inode->attributes.mode == 0) co_return Error(Errc::kNotFound, "set attribute");
      Attributes a = inode->attributes;
      CO_ASSIGN_OR_RETURN(ExtendedAttributes all, load_extended(a));
      CO_ASSIGN_OR_RETURN(const bool changed, change_extended(change, a, all));
      id = CommitId(inode->last_commit.load());  // when nothing changes: what it relies on may not be persistent yet
      if (changed) {
        const std::string record = encode_extended(all);
        if (record.size() > kMaxExtendedBytes) co_return Error(Errc::kNoSpace, "attributes");
        if (record.size() > most) continue;
        TransactionBuilder builder;
        put_extended(a, record, builder);
        a.ctime = now_timestamp();
        inode->attributes = a;
        put_inode(builder, a);
        id = commit(std::move(slots), builder, request, {inode.get()});
      }
    }
    co_return co_await settle(id);
  }
  co_return Error(Errc::kBusy, "set attribute");
}

// What a new file in the directory starts with: its record, and `node` with the mode it has by then. Takes the mutex.
Result<std::string> ManagerImpl::inherit(Inode& directory, NewNode& node) {
  MutexLock lock(directory.mutex);
  std::string record;
  if (directory.attributes.extended_bytes != 0 && !S_ISLNK(node.mode)) {
    ASSIGN_OR_RETURN(const ExtendedAttributes above, load_extended(directory.attributes));
    if (const auto it = above.find(kDefaultListName); it != above.end()) {
      auto list = decode_access_list(it->second);
      if (!list.ok()) return Error(Errc::kCorrupt, "access list", std::to_string(directory.ino.value()));
      restrict_to(*list, node.mode);
      ExtendedAttributes own;
      if (!is_mode_only(*list)) own.emplace(kAccessListName, encode_access_list(*list));
      if (S_ISDIR(node.mode)) own.emplace(kDefaultListName, it->second);
      return encode_extended(own);
    }
  }
  if (!S_ISLNK(node.mode)) node.mode &= ~(node.umask & 0777);
  return record;
}

// chmod(2) on a file with an access list. Under the inode's mutex; `a` has the new mode.
Result<void> ManagerImpl::change_list_mode(Attributes& a, TransactionBuilder& builder) {
  ASSIGN_OR_RETURN(ExtendedAttributes all, load_extended(a));
  const auto it = all.find(kAccessListName);
  if (it == all.end()) return success();
  auto list = decode_access_list(it->second);
  if (!list.ok()) return Error(Errc::kCorrupt, "access list", "inode " + std::to_string(a.ino.value()));
  change_mode(*list, a.mode);
  it->second = encode_access_list(*list);
  put_extended(a, encode_extended(all), builder);
  return success();
}

}  // namespace rmemfs
