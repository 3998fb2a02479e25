// The memory nodes of a file system: their control clients, what they last said of themselves, and the heartbeat.
//
// One thread asks each node in turn every heartbeat interval. Members of Node: constant (id, address, client), the rest
// atomics. Calls to a node block up to the deadline: never on a lane.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "control/node_client.h"
#include "manager/manager.h"

namespace rmemfs {

struct Node {
  NodeId id;
  std::string address;
  std::unique_ptr<NodeClient> client;

  std::atomic<NodeHealth> health{NodeHealth::kUnknown};
  std::atomic<std::uint64_t> generation{0};
  std::atomic<std::uint64_t> pool_bytes{0};
  std::atomic<std::uint64_t> free_bytes{0};
  std::atomic<std::uint8_t> durability{0};
  std::atomic<std::uint8_t> persist_method{0};
  std::atomic<MonoClock::rep> answered_at{0};  // since the clock's start; 0: never

  Generation compared;  // the heartbeat's: chunks were compared with this generation
};

class NodeSet {
 public:
  static Result<std::unique_ptr<NodeSet>> make(const Superblock& superblock, const ManagerOptions& options);
  ~NodeSet();

  // Raises the epoch on all nodes at once, and asks what they have. An unreachable one: kUnreachable with its address,
  // unless options.degraded.
  Result<void> fence_all();

  // Called by the heartbeat thread with what a node answered. `before` returns a mark that is handed to `answered`
  // afterwards: what was known when the question was asked.
  struct Hooks {
    std::function<std::uint64_t()> before;
    std::function<void(Node& node, Generation generation, std::uint64_t mark)> answered;
  };
  void start(Hooks hooks);
  void stop();

  Node* find(NodeId id);
  const std::vector<std::unique_ptr<Node>>& nodes() const { return nodes_; }
  const FileSystemIdentity& identity() const { return identity_; }
  std::uint32_t deadline_ms() const { return deadline_ms_; }
  // What the nodes that answer could still lend.
  std::uint64_t lendable_bytes() const;

  // Refreshes what is known of a node. Blocks.
  Result<NodeDescription> describe(Node& node, std::uint32_t timeout_ms);
  // Records how a call ended.
  void note(Node& node, const Result<void>& outcome);

 private:
  NodeSet() = default;
  void beat(std::stop_token stop);
  void ask(Node& node, bool fully);

  FileSystemIdentity identity_;
  std::uint32_t deadline_ms_ = 0;
  std::uint32_t heartbeat_ms_ = 0;
  bool degraded_ = false;
  std::vector<std::unique_ptr<Node>> nodes_;
  Hooks hooks_;

  std::mutex sleep_mutex_;
  std::condition_variable_any sleep_;
  std::jthread thread_;  // last: joins before the rest goes
};

}  // namespace rmemfs
