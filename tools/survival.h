// What a returned fsync survives here, in words: it depends on the nodes' memory and on what the metadata lies on.
#pragma once

#include <string>
#include <vector>

#include "manager/manager.h"
#include "manager/superblock.h"
#include "util/result.h"

namespace rmemfs {

// Whether every node's memory does.
bool survives_power_loss(const std::vector<NodeStatus>& nodes);

// What of the metadata is in this host's memory, as half a sentence; empty: nothing.
Result<std::string> metadata_in_memory(const std::string& directory, const Superblock& superblock);

// One line, for the log and rmemctl. `in_memory`: see metadata_in_memory().
std::string survival(const std::vector<NodeStatus>& nodes, const std::string& in_memory);

}  // namespace rmemfs
