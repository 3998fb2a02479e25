// Which transport a mount uses to each of its memory nodes. It is decided once, at the mount, and said in the log: a
// node named rdma:// also serves tcp at the same address, which is what a mount falls back to (-o transport=auto).
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "manager/manager.h"
#include "transport/connection.h"
#include "util/result.h"

namespace rmemfs {

enum class TransportChoice : std::uint8_t { kAuto, kRdma, kTcp };

using NodeTransports = std::unordered_map<NodeId, NodeAddress>;

// Tries RDMA to every node named rdma://, all at once. Over auto, a node that shows that there is no RDMA between it
// and this machine is reached over tcp; one that only does not answer keeps RDMA, since it may come back. kNotSupported
// over rdma, with the node and the reason. Blocks, at most for the timeout.
Result<NodeTransports> choose_transports(const std::vector<NodeStatus>& nodes, TransportChoice choice,
                                         const ConnectOptions& connect, std::uint32_t timeout_ms);

}  // namespace rmemfs
