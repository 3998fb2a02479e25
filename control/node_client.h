// Control plane, client side: one memory node's services over gRPC. Blocking calls with deadlines: never on a lane.
// Thread-safe. gRPC stays inside control/.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "util/ids.h"
#include "util/result.h"

namespace rmemfs {

// Mirrors node.proto without exposing protobuf types to other rooms.
struct NodeDescription {
  std::uint32_t protocol_version = 0;
  Uuid pool;
  Generation generation;
  std::uint64_t pool_bytes = 0;  // lendable
  std::uint64_t free_bytes = 0;
  std::uint64_t regions = 0;
  std::uint8_t durability = 0;      // Durability
  std::uint8_t persist_method = 0;  // PersistMethod
  std::string version;              // of the program
  std::uint64_t pid = 0;
  std::string pool_path;  // where its memory is kept; empty: nowhere, it ends with the process
};

struct LeasedRegion {
  RegionId id;
  Generation generation;
  AccessKey key;
  std::uint64_t length_bytes = 0;
  std::uint64_t address = 0;
  std::uint32_t rkey = 0;
  std::uint8_t durability = 0;
  std::uint8_t persist_method = 0;
  std::uint64_t tag = 0;  // the lessee's number for it (its chunk id); lets a lease be matched after a crash
};

// A file system's identity towards a node: the key is agreed at the first lease or fence and checked ever after.
struct FileSystemIdentity {
  Uuid uuid;
  AccessKey key;
  MountEpoch epoch;  // calls with an epoch below the node's are refused with kFenced
};

// What a mount says of a node's failed call: the node, and the reason as far as the call's error has one. kUnreachable
// for a node that did not answer in time, too.
Error node_failure(const std::string& address, const Error& error);

class NodeClient {
 public:
  // `address`: "shm:PATH" and "unix:PATH" use the unix socket, "tcp://H:P" and "rdma://H:P" TCP. Does not connect yet.
  static Result<std::unique_ptr<NodeClient>> make(const std::string& address);
  virtual ~NodeClient() = default;

  // Every call: kUnreachable, kDeadline, kVersion, kProtocol; calls with an identity also kRefused, kFenced.
  virtual Result<NodeDescription> describe(std::uint32_t timeout_ms) = 0;
  // kNoSpace. Gives at most `length_bytes`, a multiple of 4 KiB, at least `minimum_bytes`. The memory reads as zeros.
  virtual Result<LeasedRegion> lease(const FileSystemIdentity& who, std::uint64_t length_bytes,
                                     std::uint64_t minimum_bytes, std::uint64_t tag, std::uint32_t timeout_ms) = 0;
  virtual Result<void> release(const FileSystemIdentity& who, RegionId region, std::uint32_t timeout_ms) = 0;
  virtual Result<std::vector<LeasedRegion>> list(const FileSystemIdentity& who, std::uint32_t timeout_ms) = 0;
  // Raises the node's epoch for this file system to who.epoch: every older session is ended before this returns.
  virtual Result<void> fence(const FileSystemIdentity& who, std::uint32_t timeout_ms) = 0;
  // The node's record of this file system goes, and its sessions with it: for one that will not come back. kBusy while
  // it has regions there. Forgetting again, or what the node never met, succeeds.
  virtual Result<void> forget(const FileSystemIdentity& who, std::uint32_t timeout_ms) = 0;
  // Cheap: is it alive, which generation. Returns the generation.
  virtual Result<Generation> heartbeat(std::uint32_t timeout_ms) = 0;
};

}  // namespace rmemfs
