// What can be seen of a file or a tree on both sides, compared. Runs as root in the test itself, not in the processes
// whose calls are compared, so that their permissions do not hide anything.
//
// Times are compared by rule: a call changes an inode's atime, mtime and ctime on both sides or on neither; those that
// somebody set explicitly are equal.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace rmemfs::difference {

struct Difference {
  std::string signature;  // what differs, without numbers: two differences of the same kind have the same
  std::string text;
};

// A file to look at: a path on each side; absolute ones lead to a process's descriptor.
struct Watched {
  std::string path[2];
  bool follow = false;
};

struct Look {
  int error = 0;
  struct statx status {};
};

struct ObserverOptions {
  bool attributes = false;   // extended attributes too
  std::int64_t started = 0;  // seconds: times far from it were set by a call
};

class Observer {
 public:
  // Descriptors of the two sides' directories.
  Observer(int tested, int reference, const ObserverOptions& options);

  // `fresh`: the tested side's attributes are asked from the file system, not from the kernel's cache.
  Look look(int side, const Watched& file, bool fresh) const;
  std::optional<Difference> compare(const Watched& file, const Look& tested, const Look& reference) const;
  // Which times changed; an inode that is another one than before has nothing to compare.
  std::optional<Difference> compare_changes(const Watched& file, const Look before[2], const Look after[2]) const;
  // The bytes of a regular file; `evict`: the tested side's pages are dropped first.
  std::optional<Difference> compare_bytes(const Watched& file, bool evict) const;
  std::optional<Difference> compare_trees() const;

 private:
  using Inodes = std::map<std::uint64_t, std::uint64_t>;  // the reference's by the tested
  std::optional<Difference> compare_directory(const std::string& path, Inodes& inodes) const;
  std::optional<Difference> compare_attributes(const std::string& path) const;
  std::optional<Difference> compare_kernel_cache(const Watched& file) const;

  const int roots_[2];
  const ObserverOptions options_;
};

}  // namespace rmemfs::difference
