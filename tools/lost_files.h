// Paths of the files that have bytes in lost chunks. Reads the metadata store; never writes.
#pragma once

#include <string>
#include <vector>

#include "manager/metastore.h"
#include "util/clock.h"

namespace rmemfs {

// At most `limit` paths, found until `deadline`; a path that could not be completed begins with "inode N". Any thread.
std::vector<std::string> lost_files(Metastore& store, std::size_t limit, TimePoint deadline);

}  // namespace rmemfs
