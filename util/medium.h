// What a file is kept on, as far as the kernel says: whether its bytes outlive the host's restart. Any thread.
#pragma once

#include <string>
#include <string_view>

#include "util/result.h"

namespace rmemfs {

// "tmpfs", "ramfs" or "hugetlbfs": the file or directory at `path` is in this host's memory and ends with its restart.
// Empty: it is not in one of these, or is a device file (a DAX device is persistent, though /dev is in memory). The
// errors of open(2), with the path.
Result<std::string_view> memory_file_system(const std::string& path);

}  // namespace rmemfs
