// Asks every memory node of a file system whether a mount can have it, before anything is written: it answers, speaks
// our version, accepts the key and has not been given to a newer mount. Blocks, at most the timeout.
#pragma once

#include <cstdint>
#include <string>

#include "manager/superblock.h"
#include "util/result.h"

namespace rmemfs {

// kUnreachable (unless `degraded`), kVersion, kRefused, kFenced; the error names the node.
Result<void> check_nodes(const std::string& directory, const Superblock& superblock, bool degraded,
                         std::uint32_t timeout_ms);

}  // namespace rmemfs
