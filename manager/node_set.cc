#include "manager/node_set.h"

#include <algorithm>

#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kFenceTimeoutMs = 3000;
constexpr std::uint32_t kMinBeatTimeoutMs = 500;
constexpr unsigned kBeatsPerDescription = 5;
constexpr std::uint32_t kFrozenMs = 500;
constexpr std::uint32_t kMinRestMs = 100;  // between two heartbeats of a node

bool no_answer(Errc code) { return code == Errc::kUnreachable || code == Errc::kDeadline; }

}  // namespace

Result<std::unique_ptr<NodeSet>> NodeSet::make(const Superblock& superblock, const ManagerOptions& options) {
  auto set = std::unique_ptr<NodeSet>(new NodeSet);
  set->identity_ = {superblock.uuid, superblock.key, superblock.epoch};
  set->deadline_ms_ = options.deadline_ms;
  set->heartbeat_ms_ = options.heartbeat_ms;
  set->degraded_ = options.degraded;
  for (const NodeRecord& record : superblock.nodes) {
    auto node = std::make_unique<Node>();
    node->id = record.id;
    node->address = node_address_of(options.directory, record);
    if (options.make_node_client) {
      ASSIGN_OR_RETURN(node->client, options.make_node_client(node->address));
    } else {
      ASSIGN_OR_RETURN(node->client, NodeClient::make(node->address));
    }
    set->nodes_.push_back(std::move(node));
  }
  return set;
}

NodeSet::~NodeSet() { stop(); }

Node* NodeSet::find(NodeId id) {
  // Ids ascend (parse_superblock).
  const auto it = std::lower_bound(nodes_.begin(), nodes_.end(), id,
                                   [](const std::unique_ptr<Node>& node, NodeId wanted) { return node->id < wanted; });
  return it == nodes_.end() || (*it)->id != id ? nullptr : it->get();
}

std::uint64_t NodeSet::lendable_bytes() const {
  std::uint64_t total = 0;
  for (const auto& node : nodes_) {
    if (node->answers()) total += node->free_bytes.load(std::memory_order_relaxed);
  }
  return total;
}

bool NodeSet::any_silent() const {
  return std::any_of(nodes_.begin(), nodes_.end(), [](const auto& node) { return !node->answers(); });
}

Task<bool> NodeSet::await_return(std::uint64_t seen, TimePoint limit) {
  MonoClock::rep answered = 0;
  for (const auto& node : nodes_) {
    if (!node->answers()) answered = std::max(answered, node->answered_at.load(std::memory_order_relaxed));
  }
  const TimePoint expected = TimePoint(MonoClock::duration(answered)) + std::chrono::milliseconds(deadline_ms_);
  auto waiter = awaiting_return_.wait(std::min(limit, expected), [this, seen, until = std::min(limit, expected)] {
    return returns() != seen || stopped_.load(std::memory_order_acquire) || MonoClock::now() >= until;
  });
  co_await waiter;
  co_return returns() != seen;
}

void NodeSet::note(Node& node, const Result<void>& outcome) {
  std::lock_guard lock(health_mutex_);
  if (!outcome.ok() && no_answer(outcome.error().code)) {
    node.health.store(NodeHealth::kUnreachable, std::memory_order_relaxed);
    if (node.suspended) return;
    log::warn("memory node {} does not answer", node.address);
    node.suspended = true;
    if (hooks_.suspend) hooks_.suspend(node, true);
    return;
  }
  node.answered_at.store(MonoClock::now().time_since_epoch().count(), std::memory_order_relaxed);
  if (node.health.load(std::memory_order_relaxed) == NodeHealth::kUnknown)
    node.health.store(NodeHealth::kAlive, std::memory_order_relaxed);
}

void NodeSet::is_back(Node& node) {
  {
    std::lock_guard lock(health_mutex_);
    if (!node.suspended) return;
    log::info("memory node {} answers again", node.address);
    node.suspended = false;
    hooks_.suspend(node, false);
    if (node.health.load(std::memory_order_relaxed) == NodeHealth::kUnreachable)
      node.health.store(NodeHealth::kAlive, std::memory_order_relaxed);
    returns_.fetch_add(1, std::memory_order_acq_rel);
  }
  awaiting_return_.wake();
}

void NodeSet::settle(const Node& node) {
  std::lock_guard lock(health_mutex_);
  if (node.suspended) hooks_.suspend(node, true);
}

Result<NodeDescription> NodeSet::describe(Node& node, std::uint32_t timeout_ms) {
  auto description = node.client->describe(timeout_ms);
  if (!description.ok()) {
    note(node, description.error());
    return description;
  }
  if (const auto claimed = claim(node, description->pool); !claimed.ok()) {
    if (!node.doubled.exchange(true)) log::error("{}: {} is not used", claimed.error().detail, node.address);
    note(node, Error(Errc::kUnreachable, "node"));
    return claimed.error();
  }
  node.doubled.store(false);
  learn(node, *description);
  return description;
}

Result<void> NodeSet::claim(const Node& node, const Uuid& pool) {
  std::lock_guard lock(claims_mutex_);
  return claims_.claim(node.address, pool);
}

void NodeSet::learn(Node& node, const NodeDescription& description) {
  note(node, success());
  node.generation.store(description.generation.value(), std::memory_order_relaxed);
  node.pool_bytes.store(description.pool_bytes, std::memory_order_relaxed);
  node.free_bytes.store(description.free_bytes, std::memory_order_relaxed);
  node.pool_in_file.store(!description.pool_path.empty(), std::memory_order_relaxed);
  node.durability.store(description.durability, std::memory_order_relaxed);
  node.persist_method.store(description.persist_method, std::memory_order_relaxed);
}

Result<void> NodeSet::fence_all() {
  const std::uint32_t timeout_ms = std::min(deadline_ms_, kFenceTimeoutMs);
  std::vector<Result<NodeDescription>> outcomes(nodes_.size(), Error(Errc::kUnreachable));
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      threads.emplace_back([this, i, timeout_ms, &outcomes] {
        Node& node = *nodes_[i];
        const Result<void> fenced = node.client->fence(identity_, timeout_ms);
        outcomes[i] = fenced.ok() ? node.client->describe(timeout_ms) : fenced.error();
        node.fenced = outcomes[i].ok();  // otherwise it joins later, with its leases
        if (!outcomes[i].ok()) note(node, outcomes[i].error());
      });
    }
  }
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (outcomes[i].ok()) {
      RETURN_IF_ERROR(claim(*nodes_[i], outcomes[i]->pool));
      learn(*nodes_[i], *outcomes[i]);
      continue;
    }
    const Error& error = outcomes[i].error();
    if (no_answer(error.code) && degraded_) continue;
    return node_failure(nodes_[i]->address, error);
  }
  return success();
}

void NodeSet::start(Hooks hooks) {
  {
    std::lock_guard lock(health_mutex_);
    hooks_ = std::move(hooks);
  }
  for (const auto& node : nodes_) settle(*node);  // silent since the mount
  for (const auto& node : nodes_) {
    threads_.emplace_back([this, &node = *node](std::stop_token stop) { beat(std::move(stop), node); });
  }
}

void NodeSet::stop() {
  for (std::jthread& thread : threads_) thread.request_stop();
  threads_.clear();  // joins
  stopped_.store(true, std::memory_order_release);
  awaiting_return_.wake();
}

void NodeSet::ask_soon(NodeId id) {
  Node* const node = find(id);
  if (node == nullptr || !node->answers()) return;  // a silent one is asked all the time
  {
    std::lock_guard lock(sleep_mutex_);
    if (node->asked_for) return;
    node->asked_for = true;
  }
  sleep_.notify_all();
}

bool NodeSet::join(Node& node, std::uint32_t timeout_ms) {
  if (node.fenced) return true;
  const Result<void> outcome = node.client->fence(identity_, timeout_ms);
  if (!outcome.ok()) {
    if (outcome.error().code == Errc::kFenced)
      hooks_.fenced();
    else
      log::debug("memory node {} is not fenced yet: {}", node.address, outcome.error().message());
    return false;
  }
  if (!describe(node, timeout_ms).ok()) return false;  // S5, before anybody looks at its leases
  node.fenced = true;
  hooks_.joined(node);
  return true;
}

void NodeSet::ask(Node& node, bool fully) {
  const std::uint32_t timeout_ms = std::min(deadline_ms_, std::max(heartbeat_ms_, kMinBeatTimeoutMs));
  if (!join(node, timeout_ms)) return;
  const std::uint64_t mark = hooks_.before();
  Generation generation;
  if (fully) {
    const auto description = describe(node, timeout_ms);
    if (!description.ok()) return;
    generation = description->generation;
    // A mount that only changes names asks nothing else of a node by which it would hear of a newer mount.
    if (const auto ours = node.client->fence(identity_, timeout_ms); !ours.ok() && ours.error().code == Errc::kFenced) {
      hooks_.fenced();
      return;
    }
  } else {
    const TimePoint began = MonoClock::now();
    auto beat = node.client->heartbeat(timeout_ms);
    // Much later than the call's own deadline: this process was frozen, and the node was not silent for that.
    if (!beat.ok() && MonoClock::now() - began > std::chrono::milliseconds(timeout_ms + kFrozenMs)) {
      beat = node.client->heartbeat(timeout_ms);
    }
    note(node, beat.ok() ? success() : Result<void>(beat.error()));
    if (!beat.ok()) return;
    generation = *beat;
    node.generation.store(generation.value(), std::memory_order_relaxed);
  }
  hooks_.answered(node, generation, mark);
  is_back(node);
}

void NodeSet::beat(std::stop_token stop, Node& node) {
  const std::uint32_t rest_ms = std::min(heartbeat_ms_, kMinRestMs);
  for (unsigned beats = 1;; ++beats) {
    const TimePoint began = MonoClock::now();
    {
      std::unique_lock lock(sleep_mutex_);
      sleep_.wait_for(lock, stop, std::chrono::milliseconds(rest_ms), [] { return false; });
      sleep_.wait_for(lock, stop, std::chrono::milliseconds(heartbeat_ms_ - rest_ms),
                      [&node] { return node.asked_for || !node.answers(); });
      node.asked_for = false;
    }
    if (stop.stop_requested()) return;
    // Whoever was frozen does not know for how long: a newer mount may have begun meanwhile.
    const bool frozen = MonoClock::now() - began > std::chrono::milliseconds(heartbeat_ms_ + kFrozenMs);
    ask(node, frozen || !node.answers() || beats % kBeatsPerDescription == 0);
    awaiting_return_.expire(MonoClock::now());
  }
}

}  // namespace rmemfs
