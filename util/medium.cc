#include "util/medium.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>

#include "util/unique_fd.h"

namespace rmemfs {

Result<std::string_view> memory_file_system(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat st;
  struct statfs status;
  if (!fd.valid() || ::fstat(fd.get(), &st) != 0 || ::fstatfs(fd.get(), &status) != 0) {
    return Error(errc_from_errno(errno), "statfs", path);
  }
  if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) return std::string_view();
  if (status.f_type == TMPFS_MAGIC) return std::string_view("tmpfs");
  if (status.f_type == RAMFS_MAGIC) return std::string_view("ramfs");
  if (status.f_type == HUGETLBFS_MAGIC) return std::string_view("hugetlbfs");
  return std::string_view();
}

}  // namespace rmemfs
