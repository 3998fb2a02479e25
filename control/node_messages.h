// Between node.proto's messages and the plain structs of node_client.h. Reading validates: lengths of keys and ids,
// known enumerators, whole pages. Inside control/ only.
#pragma once

#include "control/node.pb.h"
#include "control/node_client.h"

namespace rmemfs {

void write_message(const FileSystemIdentity& who, node::FileSystem& message);
void write_message(const LeasedRegion& region, node::Region& message);
void write_message(const NodeDescription& description, node::DescribeReply& message);

// All: kProtocol with what is wrong.
Result<FileSystemIdentity> read_message(const node::FileSystem& message);
Result<LeasedRegion> read_message(const node::Region& message);
Result<NodeDescription> read_message(const node::DescribeReply& message);

}  // namespace rmemfs
