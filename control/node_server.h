// Control plane, server side: gives a memory node's services to the streams that its listener hands over.
// gRPC's threads call NodeService; it may block for as long as its callers' deadlines are worth. gRPC stays inside.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "control/node_client.h"
#include "util/ids.h"
#include "util/result.h"
#include "util/unique_fd.h"

namespace rmemfs {

// What memnode implements. Calls and errors as in NodeClient; `peer` names the caller for the log. Thread-safe.
class NodeService {
 public:
  virtual ~NodeService() = default;
  virtual Result<NodeDescription> describe() = 0;
  virtual Result<LeasedRegion> lease(const FileSystemIdentity& who, std::uint64_t length_bytes,
                                     std::uint64_t minimum_bytes, std::uint64_t tag, const std::string& peer) = 0;
  virtual Result<void> release(const FileSystemIdentity& who, RegionId region, const std::string& peer) = 0;
  virtual Result<std::vector<LeasedRegion>> list(const FileSystemIdentity& who, const std::string& peer) = 0;
  virtual Result<void> fence(const FileSystemIdentity& who, const std::string& peer) = 0;
  virtual Result<void> forget(const FileSystemIdentity& who, const std::string& peer) = 0;
  virtual Result<Generation> heartbeat() = 0;
};

class NodeServer {
 public:
  // `service` outlives the server. kNoMemory when gRPC cannot start.
  static Result<std::unique_ptr<NodeServer>> start(NodeService& service);
  virtual ~NodeServer() = default;  // cancels what takes longer than half a second
  // A stream that begins with HTTP/2's preface, nothing of it consumed.
  virtual void adopt(UniqueFd stream) = 0;
};

// The first 8 bytes of such a stream, for the listener.
inline constexpr char kHttp2Magic[] = "PRI * HT";

}  // namespace rmemfs
