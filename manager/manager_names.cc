// Names: lookup, creation, links, removal, reading of directories.
//
// A removal does not know which inode it locks until it has read the name; so it reads without a lock, locks both in
// order, and reads again. When the name has changed in between it starts over.
#include <sys/stat.h>

#include "manager/manager_impl.h"
#include "util/check.h"

namespace rmemfs {
namespace {

constexpr int kAttempts = 100;  // of an operation whose names change under it

Result<void> check_name(std::string_view name) {
  if (name.size() > kMaxNameBytes) return Error(Errc::kNameTooLong, "name");
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string_view::npos ||
      name.find('\0') != std::string_view::npos) {
    return Error(Errc::kInvalid, "name");
  }
  return success();
}

Result<void> check_node(const NewNode& node) {
  switch (node.mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
      break;
    case S_IFLNK:
      if (node.symlink_target.empty()) return Error(Errc::kInvalid, "symlink");
      if (node.symlink_target.size() > kMaxSymlinkBytes) return Error(Errc::kNameTooLong, "symlink");
      break;
    default:
      return Error(Errc::kInvalid, "make node");
  }
  return success();
}

bool is_directory(const Attributes& attributes) { return S_ISDIR(attributes.mode); }
std::uint8_t dirent_type(const Attributes& attributes) { return static_cast<std::uint8_t>(attributes.mode >> 12); }

// A directory that can be changed: it is one, and has not been removed.
Result<void> check_parent(const Attributes& parent) {
  if (!is_directory(parent)) return Error(Errc::kNotDirectory, "name");
  if (parent.nlink == 0) return Error(Errc::kNotFound, "name");
  return success();
}

}  // namespace

Result<InodeRef> ManagerImpl::get(InodeNumber ino) {
  RETURN_IF_ERROR(readable());
  ASSIGN_OR_RETURN(InodeRef inode, cache_.get(ino, [this] { return journal_.last_id(); }));
  MutexLock lock(inode->mutex);
  // Being made, or purged: without a type.
  if (inode->attributes.mode == 0) return Error(Errc::kNotFound, "inode");
  return inode;
}

Result<std::optional<Dirent>> ManagerImpl::find_dirent(InodeNumber parent, std::string_view name) {
  const DirentCache::Name key = name_in(parent, name);
  const DirentCache::Found found = dirents_.find(key);
  if (found.known) return found.dirent;
  ASSIGN_OR_RETURN(const auto value, metastore_.get(dirent_key(parent, key.hash, name)));
  std::optional<Dirent> dirent;
  if (value) {
    ASSIGN_OR_RETURN(dirent, decode_dirent(*value));
  }
  dirents_.fill(key, found.ticket, dirent);
  return dirent;
}

Result<InodeRef> ManagerImpl::lookup(Inode& parent, std::string_view name) {
  RETURN_IF_ERROR(readable());
  InodeNumber above;
  {
    MutexLock lock(parent.mutex);
    if (!is_directory(parent.attributes)) return Error(Errc::kNotDirectory, "lookup");
    above = parent.attributes.parent;
  }
  if (name == ".") return get(parent.ino);
  if (name == "..") return get(above);
  RETURN_IF_ERROR(check_name(name));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const auto dirent, find_dirent(parent.ino, name));
    if (!dirent) return Error(Errc::kNotFound, "lookup");
    auto inode = get(dirent->ino);
    // Not there: removed since the name was read. A name that stays without an inode is damage.
    if (inode.ok() || inode.error().code != Errc::kNotFound) return inode;
  }
  return Error(Errc::kCorrupt, "lookup", "a name in directory " + std::to_string(parent.ino.value()) + " has no inode");
}

// The child's mutex is held, and its parent's.
void ManagerImpl::start_inode(Inode& child, const NewNode& node, const Attributes& above) {
  const bool directory = S_ISDIR(node.mode);
  Attributes& a = child.attributes;
  a.ino = child.ino;
  a.mode = node.mode & (S_IFMT | 07777);
  a.nlink = directory ? 2 : 1;
  a.uid = node.uid;
  a.gid = node.gid;
  if ((above.mode & S_ISGID) != 0) {
    a.gid = above.gid;
    if (directory) a.mode |= S_ISGID;
  }
  a.rdev = S_ISCHR(a.mode) || S_ISBLK(a.mode) ? node.rdev : 0;
  a.size = directory ? kDirectorySize : node.symlink_target.size();
  if (directory) a.parent = above.ino;
  a.atime = a.mtime = a.ctime = a.btime = now_timestamp();
  child.layout.emplace();
}

Result<void> ManagerImpl::try_make(const InodeRef& parent, std::string_view name, const NewNode& node,
                                   const std::string& extended, const InodeRef& child, SlotReservation slots,
                                   std::uint64_t request, CommitId& id) {
  InodeSetLock lock({parent.get(), child.get()});
  Attributes& above = parent->attributes;
  RETURN_IF_ERROR(check_parent(above));
  ASSIGN_OR_RETURN(const auto existing, find_dirent(parent->ino, name));
  if (existing) return Error(Errc::kExists, "make node");
  const bool directory = S_ISDIR(node.mode);
  if (directory && above.nlink >= kMaxLinks) return Error(Errc::kTooManyLinks, "make node");

  start_inode(*child, node, above);
  Attributes& a = child->attributes;
  above.mtime = above.ctime = a.ctime;
  ++above.entries;
  if (directory) ++above.nlink;

  TransactionBuilder builder;
  put_extended(a, extended, builder);
  put_inode(builder, a);
  put_inode(builder, above);
  const DirentCache::Name key = name_in(parent->ino, name);
  const Dirent dirent{child->ino, dirent_type(a)};
  builder.put(dirent_key(parent->ino, key.hash, name), encode(dirent));
  if (S_ISLNK(a.mode)) builder.put(symlink_key(child->ino), node.symlink_target);
  builder.merge(singleton_key("inodes"), encode_number(1));
  DirentCache::Change naming(dirents_, key);
  id = commit_with_number(std::move(slots), builder, request, {parent.get(), child.get()}, child->ino);
  naming.done(dirent);
  ++inodes_;
  return success();
}

Task<Result<InodeRef>> ManagerImpl::make_node(InodeRef parent, std::string_view name, NewNode node,
                                              std::uint64_t request) {
  CO_RETURN_IF_ERROR(check_name(name));
  CO_RETURN_IF_ERROR(check_node(node));
  if (!S_ISLNK(node.mode)) node.symlink_target = {};
  CO_ASSIGN_OR_RETURN(const std::string extended, inherit(*parent, node));
  const std::size_t extended_bytes = extended.empty() ? 0 : kExtendedKeyBytes + extended.size();
  CO_ASSIGN_OR_RETURN(SlotReservation slots,
                      co_await room(make_bytes(name.size(), node.symlink_target.size()) + extended_bytes));
  auto child = std::make_shared<Inode>(InodeNumber(next_inode_.fetch_add(1, std::memory_order_relaxed)));
  // In the cache before its record exists: whoever meets the name right after the commit finds this object.
  cache_.insert(child);
  CommitId id;
  auto made = try_make(parent, name, node, extended, child, std::move(slots), request, id);
  if (!made.ok()) {
    cache_.erase(child->ino);
    co_return std::move(made).error();
  }
  CO_RETURN_IF_ERROR(co_await settle(id));
  co_return child;
}

Task<Result<InodeRef>> ManagerImpl::make_temporary(InodeRef directory, NewNode node, std::uint64_t request) {
  if (!S_ISREG(node.mode)) co_return Error(Errc::kInvalid, "make temporary");
  CO_ASSIGN_OR_RETURN(const std::string extended, inherit(*directory, node));
  CO_ASSIGN_OR_RETURN(SlotReservation slots, co_await room(kInodeBytes + kExtendedKeyBytes + extended.size() +
                                                           kOrphanBytes + 2 * kCounterBytes));
  auto child = std::make_shared<Inode>(InodeNumber(next_inode_.fetch_add(1, std::memory_order_relaxed)));
  {
    // As in drop_name(): before its record can be found.
    MutexLock lock(orphan_mutex_);
    live_orphans_.insert(child->ino.value());
    temporary_.insert(child->ino.value());
  }
  cache_.insert(child);
  CommitId id;
  {
    InodeSetLock lock({directory.get(), child.get()});
    const auto parent = check_parent(directory->attributes);
    if (!parent.ok()) {
      cache_.erase(child->ino);
      MutexLock orphans(orphan_mutex_);
      live_orphans_.erase(child->ino.value());
      temporary_.erase(child->ino.value());
      co_return parent.error();
    }
    start_inode(*child, node, directory->attributes);
    child->attributes.nlink = 0;
    TransactionBuilder builder;
    put_extended(child->attributes, extended, builder);
    put_inode(builder, child->attributes);
    builder.put(orphan_key(child->ino), {});
    builder.merge(singleton_key("inodes"), encode_number(1));
    id = commit_with_number(std::move(slots), builder, request, {child.get()}, child->ino);
    ++inodes_;
  }
  CO_RETURN_IF_ERROR(co_await settle(id));
  co_return child;
}

Result<CommitId> ManagerImpl::try_link(const InodeRef& inode, const InodeRef& parent, std::string_view name,
                                       SlotReservation slots, std::uint64_t request) {
  InodeSetLock lock({inode.get(), parent.get()});
  Attributes& a = inode->attributes;
  RETURN_IF_ERROR(check_parent(parent->attributes));
  if (is_directory(a)) return Error(Errc::kNotPermitted, "link");
  if (a.nlink == 0) {
    MutexLock orphans(orphan_mutex_);
    if (a.mode == 0 || !temporary_.contains(inode->ino.value())) return Error(Errc::kNotFound, "link");
  }
  if (a.nlink >= kMaxLinks) return Error(Errc::kTooManyLinks, "link");
  ASSIGN_OR_RETURN(const auto existing, find_dirent(parent->ino, name));
  if (existing) return Error(Errc::kExists, "link");

  ++a.nlink;
  ++parent->attributes.entries;
  a.ctime = parent->attributes.mtime = parent->attributes.ctime = now_timestamp();
  TransactionBuilder builder;
  put_inode(builder, a);
  put_inode(builder, parent->attributes);
  const DirentCache::Name key = name_in(parent->ino, name);
  const Dirent dirent{inode->ino, dirent_type(a)};
  builder.put(dirent_key(parent->ino, key.hash, name), encode(dirent));
  if (a.nlink == 1) builder.erase(orphan_key(inode->ino));
  DirentCache::Change naming(dirents_, key);
  const CommitId id = commit(std::move(slots), builder, request, {inode.get(), parent.get()});
  naming.done(dirent);
  if (a.nlink == 1) {
    MutexLock orphans(orphan_mutex_);
    live_orphans_.erase(inode->ino.value());
    temporary_.erase(inode->ino.value());
  }
  return id;
}

Task<Result<void>> ManagerImpl::link(InodeRef inode, InodeRef parent, std::string_view name, std::uint64_t request) {
  CO_RETURN_IF_ERROR(check_name(name));
  CO_ASSIGN_OR_RETURN(SlotReservation slots, co_await room(2 * kInodeBytes + dirent_bytes(name) + kOrphanBytes));
  CO_ASSIGN_OR_RETURN(const CommitId id, try_link(inode, parent, name, std::move(slots), request));
  co_return co_await settle(id);
}

void ManagerImpl::drop_name(Inode& child, Timestamp now, TransactionBuilder& builder) {
  Attributes& a = child.attributes;
  a.nlink = is_directory(a) ? 0 : a.nlink - 1;
  a.ctime = now;
  if (a.nlink != 0) return;
  builder.put(orphan_key(child.ino), {});
  // Before the commit: purge_orphans() takes what it finds in the store and not here for a crash's leftover.
  MutexLock lock(orphan_mutex_);
  live_orphans_.insert(child.ino.value());
}

// False: the name changed while it was being locked.
Result<bool> ManagerImpl::try_remove(const InodeRef& parent, std::string_view name, bool directory,
                                     SlotReservation& slots, std::uint64_t request, InodeRef& child, CommitId& id) {
  ASSIGN_OR_RETURN(const auto dirent, find_dirent(parent->ino, name));
  if (!dirent) return Error(Errc::kNotFound, "remove");
  auto found = get(dirent->ino);
  if (!found.ok()) {
    if (found.error().code == Errc::kNotFound) return false;
    return std::move(found).error();
  }
  child = std::move(*found);
  InodeSetLock lock({parent.get(), child.get()});
  RETURN_IF_ERROR(check_parent(parent->attributes));
  ASSIGN_OR_RETURN(const auto again, find_dirent(parent->ino, name));
  if (!again || again->ino != child->ino) return false;

  Attributes& above = parent->attributes;
  const Attributes& a = child->attributes;
  if (directory && !is_directory(a)) return Error(Errc::kNotDirectory, "rmdir");
  if (!directory && is_directory(a)) return Error(Errc::kIsDirectory, "unlink");
  if (a.entries != 0) return Error(Errc::kNotEmpty, "rmdir");
  if (a.nlink == 0 || above.entries == 0 || (directory && above.nlink <= 2)) {
    return Error(Errc::kCorrupt, "remove", "link counts of inode " + std::to_string(a.ino.value()));
  }
  const Timestamp now = now_timestamp();
  TransactionBuilder builder;
  drop_name(*child, now, builder);
  --above.entries;
  if (directory) --above.nlink;
  above.mtime = above.ctime = now;
  put_inode(builder, a);
  put_inode(builder, above);
  const DirentCache::Name key = name_in(parent->ino, name);
  builder.erase(dirent_key(parent->ino, key.hash, name));
  DirentCache::Change naming(dirents_, key);
  id = commit(std::move(slots), builder, request, {parent.get(), child.get()});
  naming.done(std::nullopt);
  return true;
}

Task<Result<InodeRef>> ManagerImpl::remove_name(InodeRef parent, std::string_view name, bool directory,
                                                std::uint64_t request) {
  CO_RETURN_IF_ERROR(check_name(name));
  CO_ASSIGN_OR_RETURN(SlotReservation slots, co_await room(2 * kInodeBytes + dirent_bytes(name) + kOrphanBytes));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    InodeRef child;
    CommitId id;
    CO_ASSIGN_OR_RETURN(const bool removed, try_remove(parent, name, directory, slots, request, child, id));
    if (!removed) continue;
    co_return child;
  }
  co_return Error(Errc::kBusy, "remove");
}

Task<Result<InodeRef>> ManagerImpl::unlink(InodeRef parent, std::string_view name, std::uint64_t request) {
  return remove_name(std::move(parent), name, false, request);
}

Task<Result<InodeRef>> ManagerImpl::rmdir(InodeRef parent, std::string_view name, std::uint64_t request) {
  return remove_name(std::move(parent), name, true, request);
}

Result<std::string> ManagerImpl::readlink(Inode& inode) {
  RETURN_IF_ERROR(readable());
  {
    MutexLock lock(inode.mutex);
    if (!S_ISLNK(inode.attributes.mode)) return Error(Errc::kInvalid, "readlink");
  }
  ASSIGN_OR_RETURN(auto target, metastore_.get(symlink_key(inode.ino)));
  if (!target || target->empty() || target->size() > kMaxSymlinkBytes || target->find('\0') != std::string::npos) {
    return Error(Errc::kCorrupt, "readlink", "inode " + std::to_string(inode.ino.value()));
  }
  return std::move(*target);
}

Result<std::vector<DirectoryEntry>> ManagerImpl::read_directory(Inode& directory, std::uint64_t after,
                                                                std::size_t limit) {
  RETURN_IF_ERROR(readable());
  std::vector<DirectoryEntry> out;
  InodeNumber above;
  {
    MutexLock lock(directory.mutex);
    if (!is_directory(directory.attributes)) return Error(Errc::kNotDirectory, "read directory");
    if (directory.attributes.nlink == 0) return out;  // removed: it has not even . and ..
    above = directory.attributes.parent;
  }
  constexpr std::uint8_t kDirectoryType = S_IFDIR >> 12;
  if (after == 0 && limit > 0) out.push_back({".", directory.ino, kDirectoryType, 1});
  if (after <= 1 && out.size() < limit) out.push_back({"..", above, kDirectoryType, 2});
  if (out.size() >= limit) return out;

  std::string prefix = "D";
  prefix.append(inode_key(directory.ino), 1);
  const auto records = metastore_.iterate(prefix);
  if (after > 2) records->seek(dirent_key(directory.ino, after + 1, {}));
  for (; records->valid(); records->next()) {
    ASSIGN_OR_RETURN(const DirentKey key, decode_dirent_key(records->key()));
    if (out.size() >= limit && key.hash != out.back().cookie) break;
    ASSIGN_OR_RETURN(const Dirent dirent, decode_dirent(records->value()));
    out.push_back({std::string(key.name), dirent.ino, dirent.type, key.hash});
  }
  RETURN_IF_ERROR(records->status());
  return out;
}

}  // namespace rmemfs
