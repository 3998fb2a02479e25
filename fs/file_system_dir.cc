// Reading directories.
//
// Entries are read from the directory at each call, never kept from one call to the next: the kernel holds the
// directory still during a call (its i_rwsem), so an entry given with attributes is true when the kernel caches it. An
// entry kept longer could bring a removed name back into the kernel's cache.
#include <sys/stat.h>

#include "fs/file_system.h"

namespace rmemfs {

Result<void> FileSystem::read_directory(InodeNumber ino, std::uint64_t after, bool plus, std::size_t limit,
                                        const Sink& sink) {
  ASSIGN_OR_RETURN(const InodeRef directory, manager_.get(ino));
  ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> entries, manager_.read_directory(*directory, after, limit));
  manager_.accessed(directory);
  for (const DirectoryEntry& entry : entries) {
    const bool dot = entry.name == "." || entry.name == "..";
    if (!plus || dot) {
      if (!sink(entry, nullptr)) break;
      continue;
    }
    auto inode = manager_.get(entry.ino);
    if (!inode.ok() && inode.error().code != Errc::kNotFound) return inode.error();
    if (!inode.ok()) {
      // The name is there, its inode is damaged: the listing still shows the name.
      if (!sink(entry, nullptr)) break;
      continue;
    }
    const Attributes attributes = manager_.attributes(**inode);
    inodes_.add(entry.ino);
    if (!sink(entry, &attributes)) {
      forget(entry.ino, 1);
      break;
    }
  }
  return success();
}

}  // namespace rmemfs
