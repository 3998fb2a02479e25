#include "bench/null_files.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "util/check.h"

namespace rmemfs {
namespace {

constexpr Timestamp kThen{1600000000, 0};  // long before any index of git's, so that no file looks just changed
constexpr std::uint64_t kPretendedBytes = std::uint64_t{1} << 40;

// FNV-1a over the name, from a start that is the directory's, and a last mix for the buckets' low bits.
std::uint64_t key_of(std::uint64_t directory, std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325 ^ (directory * 0x9e3779b97f4a7c15);
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash ^ (hash >> 29);
}

}  // namespace

NullFiles::NullFiles(std::size_t copy_bytes) : area_bytes_(copy_bytes), buckets_(kBuckets) {
  if (copy_bytes > 0) {
    void* const memory =
        ::mmap(nullptr, copy_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    CHECK(memory != MAP_FAILED);
    area_ = static_cast<std::byte*>(memory);
  }
  nodes_.resize(2);
  Node& root = nodes_[1];
  root.mode = S_IFDIR | 0755;
  root.uid = ::getuid();
  root.gid = ::getgid();
  root.nlink = 2;
  root.parent = 1;
  root.atime = root.mtime = kThen;
  root.directory = std::make_unique<Directory>();
}

NullFiles::~NullFiles() {
  if (area_ != nullptr) ::munmap(area_, area_bytes_);
}

NullFiles::Node* NullFiles::find(InodeNumber ino) {
  return ino.value() > 0 && ino.value() < nodes_.size() ? &nodes_[ino.value()] : nullptr;
}

Result<NullFiles::Node*> NullFiles::find_directory(InodeNumber ino) {
  Node* const node = find(ino);
  if (node == nullptr) return Error(Errc::kNotFound, "directory");
  if (node->directory == nullptr) return Error(Errc::kNotDirectory, "directory");
  return node;
}

NullFiles::Index NullFiles::child(std::uint64_t key) {
  Index at = bucket(key);
  while (at != 0 && nodes_[at].key != key) at = nodes_[at].next;
  return at;
}

Attributes NullFiles::attributes(Index index) const {
  const Node& node = nodes_[index];
  Attributes out;
  out.ino = InodeNumber(index);
  out.mode = node.mode;
  out.nlink = node.nlink;
  out.uid = node.uid;
  out.gid = node.gid;
  out.rdev = node.rdev;
  out.size = node.size;
  out.blocks = (node.size + kBlockBytes - 1) / kBlockBytes;
  out.atime = node.atime;
  out.mtime = node.mtime;
  out.ctime = out.btime = kThen;
  return out;
}

void NullFiles::add_name(Index index, Index parent, std::string_view name) {
  Node& node = nodes_[index];
  node.key = key_of(parent, name);
  node.next = std::exchange(bucket(node.key), index);
  node.parent = parent;
  Directory& directory = *nodes_[parent].directory;
  node.place = directory.children.size();
  directory.children.push_back({std::string(name), index});
  ++directory.live;
  if (node.directory != nullptr) ++nodes_[parent].nlink;
}

void NullFiles::remove_name(Index index) {
  Node& node = nodes_[index];
  Index* link = &bucket(node.key);
  while (*link != index) link = &nodes_[*link].next;
  *link = node.next;
  Directory& directory = *nodes_[node.parent].directory;
  directory.children[node.place] = Child();
  if (--directory.live == 0) directory.children.clear();
  if (node.directory != nullptr) --nodes_[node.parent].nlink;
}

Result<Attributes> NullFiles::lookup(InodeNumber parent, std::string_view name) {
  MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(const Node* directory, find_directory(parent));
  if (name == ".") return attributes(static_cast<Index>(parent.value()));
  if (name == "..") return attributes(directory->parent);
  const Index index = child(key_of(parent.value(), name));
  if (index == 0) return Error(Errc::kNotFound, "lookup");
  return attributes(index);
}

Result<Attributes> NullFiles::getattr(InodeNumber ino) {
  MutexLock lock(mutex_);
  if (find(ino) == nullptr) return Error(Errc::kNotFound, "getattr");
  return attributes(static_cast<Index>(ino.value()));
}

Task<Result<Attributes>> NullFiles::setattr(RequestContext, InodeNumber ino, SetAttributes change) {
  MutexLock lock(mutex_);
  Node* const node = find(ino);
  if (node == nullptr) co_return Error(Errc::kNotFound, "setattr");
  if (change.size) node->size = *change.size;
  if (change.change.mode) node->mode = (node->mode & S_IFMT) | *change.change.mode;
  if (change.change.uid) node->uid = *change.change.uid;
  if (change.change.gid) node->gid = *change.change.gid;
  if (change.change.atime) node->atime = *change.change.atime;
  if (change.change.mtime) node->mtime = *change.change.mtime;
  co_return attributes(static_cast<Index>(ino.value()));
}

Result<std::string> NullFiles::readlink(InodeNumber ino) {
  MutexLock lock(mutex_);
  const auto found = targets_.find(static_cast<Index>(ino.value()));
  if (found == targets_.end()) return Error(Errc::kInvalid, "readlink");
  return found->second;
}

Result<std::string> NullFiles::get_extended(InodeNumber, std::string_view) {
  return Error(Errc::kNoAttribute, "get attribute");
}

Result<std::string> NullFiles::list_extended(RequestContext, InodeNumber) { return std::string(); }

Task<Result<void>> NullFiles::set_extended(RequestContext, InodeNumber, ExtendedChange) {
  co_return Error(Errc::kNotSupported, "set attribute");
}

SpaceStatistics NullFiles::statfs() {
  MutexLock lock(mutex_);
  return {kPretendedBytes, kPretendedBytes / 2, nodes_.size() - 1, 0};
}

Task<Result<Attributes>> NullFiles::make_node(RequestContext context, InodeNumber parent, std::string_view name,
                                              NewNode node) {
  MutexLock lock(mutex_);
  CO_ASSIGN_OR_RETURN(const Node* directory, find_directory(parent));
  if (directory->nlink == 0) co_return Error(Errc::kNotFound, "create");
  if (child(key_of(parent.value(), name)) != 0) co_return Error(Errc::kExists, "create");
  const auto index = static_cast<Index>(nodes_.size());
  Node& made = nodes_.emplace_back();
  made.mode = S_ISLNK(node.mode) ? node.mode : node.mode & ~node.umask;
  made.uid = context.uid;
  made.gid = context.gid;
  made.rdev = node.rdev;
  made.nlink = 1;
  made.atime = made.mtime = kThen;
  if (S_ISDIR(node.mode)) {
    made.nlink = 2;
    made.directory = std::make_unique<Directory>();
  } else if (S_ISLNK(node.mode)) {
    made.size = node.symlink_target.size();
    targets_.emplace(index, node.symlink_target);
  }
  add_name(index, static_cast<Index>(parent.value()), name);
  co_return attributes(index);
}

Task<Result<Attributes>> NullFiles::make_temporary(RequestContext, InodeNumber, NewNode) {
  co_return Error(Errc::kNotSupported, "create");
}

Task<Result<Attributes>> NullFiles::link(RequestContext, InodeNumber, InodeNumber, std::string_view) {
  co_return Error(Errc::kNotSupported, "link");
}

Result<void> NullFiles::remove(InodeNumber parent, std::string_view name, bool directory) {
  MutexLock lock(mutex_);
  RETURN_IF_ERROR(find_directory(parent));
  const Index index = child(key_of(parent.value(), name));
  if (index == 0) return Error(Errc::kNotFound, "remove");
  Node& node = nodes_[index];
  if (directory != (node.directory != nullptr)) {
    return Error(directory ? Errc::kNotDirectory : Errc::kIsDirectory, "remove");
  }
  if (directory && node.directory->live > 0) return Error(Errc::kNotEmpty, "remove");
  remove_name(index);
  node.nlink = 0;
  return success();
}

Task<Result<void>> NullFiles::unlink(RequestContext, InodeNumber parent, std::string_view name) {
  co_return remove(parent, name, false);
}

Task<Result<void>> NullFiles::rmdir(RequestContext, InodeNumber parent, std::string_view name) {
  co_return remove(parent, name, true);
}

Task<Result<void>> NullFiles::rename(RequestContext, InodeNumber parent, std::string_view name, InodeNumber new_parent,
                                     std::string_view new_name, RenameMode mode) {
  MutexLock lock(mutex_);
  CO_RETURN_IF_ERROR(find_directory(parent));
  CO_RETURN_IF_ERROR(find_directory(new_parent));
  const Index index = child(key_of(parent.value(), name));
  if (index == 0) co_return Error(Errc::kNotFound, "rename");
  if (mode == RenameMode::kExchange) co_return Error(Errc::kNotSupported, "rename");
  const Index victim = child(key_of(new_parent.value(), new_name));
  if (victim == index) co_return success();
  if (victim != 0) {
    Node& node = nodes_[victim];
    if (mode == RenameMode::kNoReplace) co_return Error(Errc::kExists, "rename");
    if (node.directory != nullptr && node.directory->live > 0) co_return Error(Errc::kNotEmpty, "rename");
    remove_name(victim);
    node.nlink = 0;
  }
  remove_name(index);
  add_name(index, static_cast<Index>(new_parent.value()), new_name);
  co_return success();
}

Task<Result<std::size_t>> NullFiles::read(RequestContext, InodeNumber ino, std::uint64_t offset,
                                          std::span<std::byte> to) {
  std::uint64_t size;
  {
    MutexLock lock(mutex_);
    const Node* const node = find(ino);
    if (node == nullptr) co_return Error(Errc::kNotFound, "read");
    size = node->size;
  }
  const std::size_t length = offset < size ? std::min<std::uint64_t>(to.size(), size - offset) : 0;
  for (std::size_t done = 0; area_ != nullptr && done < length;) {
    const std::size_t at = (offset + done) % area_bytes_;
    const std::size_t piece = std::min(length - done, area_bytes_ - at);
    std::memcpy(to.data() + done, area_ + at, piece);
    done += piece;
  }
  co_return length;
}

Task<Result<std::size_t>> NullFiles::write(RequestContext, InodeNumber ino, std::uint64_t offset,
                                           std::span<const std::byte> from) {
  {
    MutexLock lock(mutex_);
    Node* const node = find(ino);
    if (node == nullptr) co_return Error(Errc::kNotFound, "write");
    node->size = std::max(node->size, offset + from.size());
  }
  for (std::size_t done = 0; area_ != nullptr && done < from.size();) {
    const std::size_t at = (offset + done) % area_bytes_;
    const std::size_t piece = std::min(from.size() - done, area_bytes_ - at);
    std::memcpy(area_ + at, from.data() + done, piece);
    done += piece;
  }
  co_return from.size();
}

Task<Result<void>> NullFiles::fallocate(RequestContext, InodeNumber ino, Fallocate mode, std::uint64_t offset,
                                        std::uint64_t length) {
  MutexLock lock(mutex_);
  Node* const node = find(ino);
  if (node == nullptr) co_return Error(Errc::kNotFound, "fallocate");
  if (mode == Fallocate::kExtend || mode == Fallocate::kZeroRange) node->size = std::max(node->size, offset + length);
  co_return success();
}

Task<Result<std::uint64_t>> NullFiles::copy_range(RequestContext, InodeNumber from, std::uint64_t from_offset,
                                                  InodeNumber to, std::uint64_t to_offset, std::uint64_t length,
                                                  std::span<std::byte>) {
  MutexLock lock(mutex_);
  const Node* const source = find(from);
  Node* const target = find(to);
  if (source == nullptr || target == nullptr) co_return Error(Errc::kNotFound, "copy_file_range");
  if (from_offset >= source->size) co_return std::uint64_t{0};
  length = std::min({length, source->size - from_offset, kMaxCopyBytes});
  target->size = std::max(target->size, to_offset + length);
  co_return length;
}

Result<std::uint64_t> NullFiles::seek(InodeNumber ino, std::uint64_t offset, bool hole) {
  MutexLock lock(mutex_);
  const Node* const node = find(ino);
  if (node == nullptr) return Error(Errc::kNotFound, "lseek");
  if (offset >= node->size) return Error(Errc::kNoSuchOffset, "lseek");
  return hole ? node->size : offset;
}

Task<Result<void>> NullFiles::fsync(InodeNumber) { co_return success(); }

// Cookies: 1 and 2 behind "." and "..", and place + 3 behind a child. Entries are given without the lock being held,
// as the sink is not ours; the kernel holds the directory still meanwhile.
Result<void> NullFiles::read_directory(InodeNumber ino, std::uint64_t offset, bool plus, std::size_t limit,
                                       const Sink& sink) {
  const auto self = static_cast<Index>(ino.value());
  for (std::size_t given = 0; given < limit; ++given) {
    DirectoryEntry entry;
    Attributes about;
    {
      MutexLock lock(mutex_);
      ASSIGN_OR_RETURN(const Node* node, find_directory(ino));
      if (offset < 2) {
        entry.name = offset == 0 ? "." : "..";
        about = attributes(offset == 0 ? self : node->parent);
      } else {
        const std::vector<Child>& children = node->directory->children;
        while (offset - 2 < children.size() && children[offset - 2].node == 0) ++offset;
        if (offset - 2 >= children.size()) return success();
        entry.name = children[offset - 2].name;
        about = attributes(children[offset - 2].node);
      }
    }
    entry.ino = about.ino;
    entry.type = static_cast<std::uint8_t>((about.mode & S_IFMT) >> 12);
    entry.cookie = ++offset;
    const bool dot = entry.cookie <= 2;
    if (!sink(entry, plus && !dot ? &about : nullptr)) return success();
  }
  return success();
}

}  // namespace rmemfs
