// Directory streams.
//
// Entries are read from the directory at each call, never kept from one call to the next: the kernel holds the
// directory still during a call (its i_rwsem), so an entry given with attributes is true when the kernel caches it. An
// entry kept longer could bring a removed name back into the kernel's cache.
#include <sys/stat.h>

#include "fs/file_system.h"

namespace rmemfs {

Result<std::uint64_t> FileSystem::open_directory(InodeNumber ino) {
  ASSIGN_OR_RETURN(const InodeRef inode, manager_.get(ino));
  if (!S_ISDIR(manager_.attributes(*inode).mode)) return Error(Errc::kNotDirectory, "opendir");
  auto stream = std::make_shared<DirectoryStream>();
  stream->ino = ino;
  return streams_.insert(std::move(stream));
}

Result<void> FileSystem::close_directory(std::uint64_t handle) { return streams_.erase(handle); }

Result<void> FileSystem::read_directory(std::uint64_t handle, std::uint64_t offset, bool plus, std::size_t limit,
                                        const Sink& sink) {
  ASSIGN_OR_RETURN(const std::shared_ptr<DirectoryStream> stream, streams_.get(handle));
  if (stream->busy.exchange(true, std::memory_order_acquire)) return Error(Errc::kBusy, "readdir");
  struct Release {
    DirectoryStream& stream;
    ~Release() { stream.busy.store(false, std::memory_order_release); }
  } release{*stream};

  ASSIGN_OR_RETURN(const InodeRef directory, manager_.get(stream->ino));
  if (stream->cursor.cookie != offset) stream->cursor = DirectoryCursor{offset, {}};
  DirectoryCursor ahead = stream->cursor;
  ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> entries, manager_.read_directory(*directory, ahead, limit));
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const DirectoryEntry& entry = entries[i];
    const bool dot = entry.name == "." || entry.name == "..";
    bool taken;
    if (plus && !dot) {
      auto inode = manager_.get(entry.ino);
      if (!inode.ok() && inode.error().code != Errc::kNotFound) return inode.error();
      if (inode.ok()) {
        const Attributes attributes = manager_.attributes(**inode);
        inodes_.add(entry.ino);
        taken = sink(entry, &attributes);
        if (!taken) forget(entry.ino, 1);
      } else {
        taken = sink(entry, nullptr);  // the name is there, its inode is damaged: the listing still shows the name
      }
    } else {
      taken = sink(entry, nullptr);
    }
    if (!taken) return {};
    if (i + 1 == entries.size()) {
      stream->cursor = ahead;
    } else {
      stream->cursor.cookie = entry.cookie;
      stream->cursor.last_key = dot ? std::string() : dirent_key(stream->ino, entry.cookie, entry.name);
    }
  }
  return {};
}

}  // namespace rmemfs
