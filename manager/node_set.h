// The memory nodes of a file system: their control clients, what they last said of themselves, and the heartbeat.
//
// One thread per node asks it every heartbeat interval, so that a silent node delays no other's turn. Calls to a node
// block up to the deadline: never on a lane. A hook may block as long for room in the journal (`answered`).
//
// Invariants:
//   S1  One call without an answer makes a node kUnreachable. That is soon, and harmless: a silent node is asked again
//       every tenth of a second, and who needs its space waits for it (await_return).
//   S2  Only the node's own thread makes it answer again, after its chunks were compared with its generation: nothing
//       is allocated in a chunk that the node has lost.
//   S3  A node is suspended exactly while it is unreachable; both change under health_mutex_, and so does what the
//       hook does about it. (A lost generation shows as kRestartedEmpty a moment before the node is resumed.)
//   S4  A node answers only once it was fenced: one that was silent at a degraded mount gets this mount's epoch before
//       anything is asked of it, so an older mount cannot write there any more when we begin to.
//       A node that answers is asked every few heartbeats, and after this process was frozen, whether this mount's
//       epoch still counts there: so an older mount hears that it is one although it has nothing to do with the nodes'
//       bytes.
//   S5  No two nodes that answer have the same pool: two addresses may lead to one node, and its memory would count
//       twice. At the mount that is an error; later (addresses move) the second one does not answer as long as it
//       lasts.
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
#include <unordered_set>
#include <vector>

#include "control/node_client.h"
#include "control/pool_claims.h"
#include "manager/manager.h"
#include "util/executor.h"

namespace rmemfs {

struct Node {
  // Constant.
  NodeId id;
  std::string address;
  std::unique_ptr<NodeClient> client;

  std::atomic<NodeHealth> health{NodeHealth::kUnknown};
  std::atomic<std::uint64_t> generation{0};
  std::atomic<std::uint64_t> pool_bytes{0};
  std::atomic<std::uint64_t> free_bytes{0};
  std::atomic<bool> pool_in_file{false};
  std::atomic<std::uint8_t> durability{0};
  std::atomic<std::uint8_t> persist_method{0};
  std::atomic<MonoClock::rep> answered_at{0};  // since the clock's start; 0: never

  std::atomic<bool> doubled{false};  // its address leads to the pool of another node (S5); the log says so once
  bool fenced = false;               // before start() and then its thread's: it has this mount's epoch
  Generation compared;               // its thread's: chunks were compared with this generation
  // Its thread's: lost chunks of generation `compared` that the node does not hold; it is not asked for them again.
  std::unordered_set<std::uint64_t> gone;
  bool suspended = false;  // guarded by health_mutex_
  bool asked_for = false;  // guarded by sleep_mutex_: the next heartbeat is due at once

  bool answers() const {
    const NodeHealth now = health.load(std::memory_order_relaxed);
    return now == NodeHealth::kAlive || now == NodeHealth::kRestartedEmpty;
  }
};

class NodeSet {
 public:
  static Result<std::unique_ptr<NodeSet>> make(const Superblock& superblock, const ManagerOptions& options);
  ~NodeSet();

  // Raises the epoch on all nodes at once, and asks what they have. An unreachable one: kUnreachable with its address,
  // unless options.degraded. Two with the same pool: kInvalid, with both addresses.
  Result<void> fence_all();

  // `answered` is called by a node's thread with what the node said. `before` returns a mark that is handed to it
  // afterwards: what was known when the question was asked. `suspend` is called by whoever noticed, under
  // health_mutex_, when a node falls silent and when it is back. Each for different nodes at the same time.
  struct Hooks {
    std::function<std::uint64_t()> before;
    std::function<void(Node& node, Generation generation, std::uint64_t mark)> answered;
    std::function<void(const Node& node, bool suspended)> suspend;
    // By the node's thread: it was fenced late, and nobody looked at its leases yet; a newer mount has fenced us.
    std::function<void(Node& node)> joined;
    std::function<void()> fenced;
  };
  void start(Hooks hooks);
  void stop();  // those who await a return go on

  // A heartbeat out of turn. Any thread, lanes too; not more often than every tenth of a second.
  void ask_soon(NodeId id);
  // Repeats `suspend` for a node that is suspended: it has a new chunk.
  void settle(const Node& node);

  bool any_silent() const;
  // Number of times that a node came back.
  std::uint64_t returns() const { return returns_.load(std::memory_order_acquire); }
  // Waits until returns() is not `seen` any more, as long as a node that fell silent may be expected back: until it has
  // been silent for the deadline, and not beyond `limit`. False: in vain.
  Task<bool> await_return(std::uint64_t seen, TimePoint limit);

  Node* find(NodeId id);
  const std::vector<std::unique_ptr<Node>>& nodes() const { return nodes_; }
  const FileSystemIdentity& identity() const { return identity_; }
  std::uint32_t deadline_ms() const { return deadline_ms_; }
  // What the nodes that answer could still lend.
  std::uint64_t lendable_bytes() const;

  // Refreshes what is known of a node. Blocks. kInvalid: it has the pool of another one (S5), and counts as silent.
  Result<NodeDescription> describe(Node& node, std::uint32_t timeout_ms);
  // Records how a call ended. An answer of an unreachable node is left to its heartbeat (S2).
  void note(Node& node, const Result<void>& outcome);

 private:
  NodeSet() = default;
  void beat(std::stop_token stop, Node& node);
  void ask(Node& node, bool fully);
  bool join(Node& node, std::uint32_t timeout_ms);
  Result<void> claim(const Node& node, const Uuid& pool);
  void learn(Node& node, const NodeDescription& description);
  void is_back(Node& node);

  FileSystemIdentity identity_;
  std::uint32_t deadline_ms_ = 0;
  std::uint32_t heartbeat_ms_ = 0;
  bool degraded_ = false;
  std::vector<std::unique_ptr<Node>> nodes_;
  Hooks hooks_;

  std::mutex claims_mutex_;
  PoolClaims claims_;  // guarded by claims_mutex_

  // Not a Mutex: no lane takes it, and the chunk table's and the allocator's are taken inside it.
  std::mutex health_mutex_;
  std::atomic<std::uint64_t> returns_{0};
  std::atomic<bool> stopped_{false};
  WaitList awaiting_return_;

  std::mutex sleep_mutex_;
  std::condition_variable_any sleep_;
  std::vector<std::jthread> threads_;  // last: they join before the rest goes
};

}  // namespace rmemfs
