#include "manager/node_set.h"

#include <algorithm>

#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kFenceTimeoutMs = 3000;
constexpr std::uint32_t kMinBeatTimeoutMs = 500;
constexpr unsigned kBeatsPerDescription = 5;

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
    const NodeHealth health = node->health.load(std::memory_order_relaxed);
    if (health == NodeHealth::kUnreachable || health == NodeHealth::kUnknown) continue;
    total += node->free_bytes.load(std::memory_order_relaxed);
  }
  return total;
}

void NodeSet::note(Node& node, const Result<void>& outcome) {
  const NodeHealth before = node.health.load(std::memory_order_relaxed);
  if (!outcome.ok() && no_answer(outcome.error().code)) {
    node.health.store(NodeHealth::kUnreachable, std::memory_order_relaxed);
    if (before != NodeHealth::kUnreachable) log::warn("memory node {} does not answer", node.address);
    return;
  }
  node.answered_at.store(MonoClock::now().time_since_epoch().count(), std::memory_order_relaxed);
  if (before == NodeHealth::kUnreachable) log::info("memory node {} answers again", node.address);
  if (before != NodeHealth::kRestartedEmpty) node.health.store(NodeHealth::kAlive, std::memory_order_relaxed);
}

Result<NodeDescription> NodeSet::describe(Node& node, std::uint32_t timeout_ms) {
  auto description = node.client->describe(timeout_ms);
  if (!description.ok()) {
    note(node, description.error());
    return description;
  }
  note(node, success());
  node.generation.store(description->generation.value(), std::memory_order_relaxed);
  node.pool_bytes.store(description->pool_bytes, std::memory_order_relaxed);
  node.free_bytes.store(description->free_bytes, std::memory_order_relaxed);
  node.durability.store(description->durability, std::memory_order_relaxed);
  node.persist_method.store(description->persist_method, std::memory_order_relaxed);
  return description;
}

Result<void> NodeSet::fence_all() {
  const std::uint32_t timeout_ms = std::min(deadline_ms_, kFenceTimeoutMs);
  std::vector<Result<void>> outcomes(nodes_.size());
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      threads.emplace_back([this, i, timeout_ms, &outcomes] {
        Node& node = *nodes_[i];
        outcomes[i] = node.client->fence(identity_, timeout_ms);
        if (outcomes[i].ok()) {
          auto description = describe(node, timeout_ms);
          if (!description.ok()) outcomes[i] = std::move(description).error();
        } else {
          note(node, outcomes[i]);
        }
      });
    }
  }
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (outcomes[i].ok()) continue;
    Error error = std::move(outcomes[i]).error();
    const bool silent = no_answer(error.code);
    if (silent && degraded_) continue;
    return Error(silent ? Errc::kUnreachable : error.code, "mount", "memory node " + nodes_[i]->address);
  }
  return success();
}

void NodeSet::start(Hooks hooks) {
  hooks_ = std::move(hooks);
  thread_ = std::jthread([this](std::stop_token stop) { beat(std::move(stop)); });
}

void NodeSet::stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

void NodeSet::ask(Node& node, bool fully) {
  const std::uint32_t timeout_ms = std::min(deadline_ms_, std::max(heartbeat_ms_, kMinBeatTimeoutMs));
  const std::uint64_t mark = hooks_.before();
  Generation generation;
  if (fully) {
    const auto description = describe(node, timeout_ms);
    if (!description.ok()) return;
    generation = description->generation;
  } else {
    const auto beat = node.client->heartbeat(timeout_ms);
    note(node, beat.ok() ? success() : Result<void>(beat.error()));
    if (!beat.ok()) return;
    generation = *beat;
    node.generation.store(generation.value(), std::memory_order_relaxed);
  }
  hooks_.answered(node, generation, mark);
}

void NodeSet::beat(std::stop_token stop) {
  for (unsigned beats = 1; !stop.stop_requested(); ++beats) {
    {
      std::unique_lock lock(sleep_mutex_);
      sleep_.wait_for(lock, stop, std::chrono::milliseconds(heartbeat_ms_), [] { return false; });
    }
    for (const auto& node : nodes_) {
      if (stop.stop_requested()) return;
      const bool silent = node->health.load(std::memory_order_relaxed) == NodeHealth::kUnreachable;
      ask(*node, silent || beats % kBeatsPerDescription == 0);
    }
  }
}

}  // namespace rmemfs
