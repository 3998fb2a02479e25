// rename(2) and renameat2(2). Names are read, up to four inodes are locked in order, and the names are read again.
//
// A directory that moves to another parent could become its own ancestor when two moves cross; so such moves take the
// rename mutex, under which no other directory changes its parent, and look whether the new parent lies inside.
#include <sys/stat.h>

#include "manager/manager_impl.h"

namespace rmemfs {
namespace {

constexpr int kAttempts = 100;
constexpr int kMaxDepth = 1 << 20;  // a longer chain of parents is a cycle in damaged metadata
constexpr std::uint8_t kDirectoryType = S_IFDIR >> 12;

bool is_directory(const InodeRef& inode) { return inode && S_ISDIR(inode->attributes.mode); }
std::uint8_t dirent_type(const InodeRef& inode) { return static_cast<std::uint8_t>(inode->attributes.mode >> 12); }

Result<void> check_new_name(std::string_view name) {
  if (name.size() > kMaxNameBytes) return Error(Errc::kNameTooLong, "rename");
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string_view::npos ||
      name.find('\0') != std::string_view::npos) {
    return Error(Errc::kInvalid, "rename");
  }
  return success();
}

}  // namespace

struct ManagerImpl::Renaming {
  const InodeRef& parent;
  const std::string_view name;
  const InodeRef& new_parent;
  const std::string_view new_name;
  const RenameMode mode;
  const std::uint64_t request;
  SlotReservation slots;
  InodeRef source, target;  // target: what had the new name, or null
  bool nothing = false;     // both names are the same file
  CommitId id;
};

// Whether `inode` is `directory` or below it. Under the rename mutex.
Result<bool> ManagerImpl::inside(InodeNumber directory, const InodeRef& inode) {
  InodeRef at = inode;
  for (int depth = 0; depth < kMaxDepth; ++depth) {
    if (at->ino == directory) return true;
    InodeNumber above;
    {
      MutexLock lock(at->mutex);
      above = at->attributes.parent;
    }
    if (at->ino == kRootInode) return false;
    ASSIGN_OR_RETURN(at, get(above));
  }
  return Error(Errc::kCorrupt, "rename", "directories form a cycle");
}

Result<void> ManagerImpl::check_replaced(const Attributes& source, const Attributes& target) const {
  if (S_ISDIR(source.mode) && !S_ISDIR(target.mode)) return Error(Errc::kNotDirectory, "rename");
  if (!S_ISDIR(source.mode) && S_ISDIR(target.mode)) return Error(Errc::kIsDirectory, "rename");
  if (target.entries != 0) return Error(Errc::kNotEmpty, "rename");
  return success();
}

// False: a name changed while it was being locked.
Result<bool> ManagerImpl::try_rename(Renaming& r) {
  const bool exchange = r.mode == RenameMode::kExchange;
  const bool across = r.parent->ino != r.new_parent->ino;
  ASSIGN_OR_RETURN(const auto source, find_dirent(r.parent->ino, r.name));
  ASSIGN_OR_RETURN(const auto target, find_dirent(r.new_parent->ino, r.new_name));
  if (!source || (exchange && !target)) return Error(Errc::kNotFound, "rename");
  if (target && r.mode == RenameMode::kNoReplace) return Error(Errc::kExists, "rename");
  if (target && target->ino == source->ino) return r.nothing = true;

  const bool tree = across && (source->type == kDirectoryType || (exchange && target->type == kDirectoryType));
  MutexLock moves(rename_mutex_, std::defer_lock);
  if (tree) moves.lock();
  const auto gone = [](const Result<InodeRef>& inode) { return !inode.ok() && inode.error().code == Errc::kNotFound; };
  auto from = get(source->ino);
  if (gone(from)) return false;
  if (!from.ok()) return std::move(from).error();
  r.source = std::move(*from);
  r.target = nullptr;
  if (target) {
    auto to = get(target->ino);
    if (gone(to)) return false;
    if (!to.ok()) return std::move(to).error();
    r.target = std::move(*to);
  }
  if (tree && source->type == kDirectoryType) {
    ASSIGN_OR_RETURN(const bool loop, inside(source->ino, r.new_parent));
    if (loop) return Error(Errc::kInvalid, "rename");
  }
  if (tree && exchange && target->type == kDirectoryType) {
    ASSIGN_OR_RETURN(const bool loop, inside(target->ino, r.parent));
    if (loop) return Error(Errc::kInvalid, "rename");
  }

  InodeSetLock lock({r.parent.get(), r.new_parent.get(), r.source.get(), r.target.get()});
  Attributes& old_above = r.parent->attributes;
  Attributes& new_above = r.new_parent->attributes;
  for (const Attributes* above : {&old_above, &new_above}) {
    if (!S_ISDIR(above->mode)) return Error(Errc::kNotDirectory, "rename");
    if (above->nlink == 0) return Error(Errc::kNotFound, "rename");
  }
  ASSIGN_OR_RETURN(const auto source_again, find_dirent(r.parent->ino, r.name));
  ASSIGN_OR_RETURN(const auto target_again, find_dirent(r.new_parent->ino, r.new_name));
  if (!source_again || source_again->ino != source->ino || target_again.has_value() != target.has_value() ||
      (target && target_again->ino != target->ino)) {
    return false;
  }

  const bool source_directory = is_directory(r.source);
  const bool target_directory = is_directory(r.target);
  if (r.target && !exchange) RETURN_IF_ERROR(check_replaced(r.source->attributes, r.target->attributes));
  if (across && source_directory && !target_directory && new_above.nlink >= kMaxLinks) {
    return Error(Errc::kTooManyLinks, "rename");
  }
  if (across && exchange && target_directory && !source_directory && old_above.nlink >= kMaxLinks) {
    return Error(Errc::kTooManyLinks, "rename");
  }

  if (old_above.entries == 0 || (source_directory && old_above.nlink <= 2)) {
    return Error(Errc::kCorrupt, "rename", "link counts of inode " + std::to_string(old_above.ino.value()));
  }

  const Timestamp now = now_timestamp();
  TransactionBuilder builder;
  const DirentCache::Name old_name = name_in(r.parent->ino, r.name);
  const DirentCache::Name new_name = name_in(r.new_parent->ino, r.new_name);
  const std::string old_key = dirent_key(old_name.parent, old_name.hash, old_name.name);
  const Dirent moved{r.source->ino, dirent_type(r.source)};
  std::optional<Dirent> left;  // what has the old name then
  builder.put(dirent_key(new_name.parent, new_name.hash, new_name.name), encode(moved));
  if (source_directory) {
    r.source->attributes.parent = r.new_parent->ino;
    --old_above.nlink;
    ++new_above.nlink;
  }
  if (exchange) {
    left = Dirent{r.target->ino, dirent_type(r.target)};
    builder.put(old_key, encode(*left));
    if (target_directory) {
      r.target->attributes.parent = r.parent->ino;
      --new_above.nlink;
      ++old_above.nlink;
    }
    r.target->attributes.ctime = now;
  } else {
    builder.erase(old_key);
    --old_above.entries;
    if (r.target) {
      if (target_directory) --new_above.nlink;
      drop_name(*r.target, now, builder);
    } else {
      ++new_above.entries;
    }
  }
  r.source->attributes.ctime = now;
  old_above.mtime = old_above.ctime = now;
  new_above.mtime = new_above.ctime = now;
  put_inode(builder, old_above);
  if (across) put_inode(builder, new_above);
  put_inode(builder, r.source->attributes);
  if (r.target) put_inode(builder, r.target->attributes);
  DirentCache::Change naming(dirents_, new_name), leaving(dirents_, old_name);
  r.id = commit(std::move(r.slots), builder, r.request,
                {r.parent.get(), r.new_parent.get(), r.source.get(), r.target.get()});
  naming.done(moved);
  leaving.done(left);
  return true;
}

Task<Result<InodeRef>> ManagerImpl::rename(InodeRef parent, std::string_view name, InodeRef new_parent,
                                           std::string_view new_name, RenameMode mode, std::uint64_t request) {
  CO_RETURN_IF_ERROR(check_new_name(name));
  CO_RETURN_IF_ERROR(check_new_name(new_name));
  CO_ASSIGN_OR_RETURN(SlotReservation slots, co_await room(rename_bytes(name.size(), new_name.size())));
  Renaming renaming{parent, name, new_parent, new_name, mode, request, std::move(slots), {}, {}, false, {}};
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    CO_ASSIGN_OR_RETURN(const bool done, try_rename(renaming));
    if (!done) continue;
    if (renaming.nothing || mode == RenameMode::kExchange) co_return InodeRef();
    co_return renaming.target;
  }
  co_return Error(Errc::kBusy, "rename");
}

}  // namespace rmemfs
