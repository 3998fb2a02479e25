#include "fs/connection_set.h"

#include <algorithm>

#include "util/log.h"

namespace rmemfs {

Result<ConnectionSet::Link*> ConnectionSet::link(NodeId node) {
  const std::size_t index = node.value();
  if (index >= links_.size()) links_.resize(index + 1);
  Link& link = links_[index];
  if (!link.connection) {
    ASSIGN_OR_RETURN(link.connection, factory_(node, lane_));
    if (on_event_fd && link.connection->event_fd() >= 0) on_event_fd(link.connection->event_fd(), node);
  }
  return &link;
}

void ConnectionSet::prepare(const Chunk& chunk) {
  if (auto made = link(chunk.node); made.ok()) (*made)->connection->prepare(chunk.region);
}

Posted ConnectionSet::post(NodeId node, Operation& operation) {
  auto found = link(node);
  if (!found.ok()) {
    operation.ok = false;
    operation.error = found.error().code;
    return Posted::kCompleted;
  }
  switch (operation.kind) {
    case OperationKind::kRead:
      counters.add(Counter::kRemoteReads);
      counters.add(Counter::kRemoteReadBytes, operation.length_bytes);
      break;
    case OperationKind::kWrite:
      counters.add(Counter::kRemoteWrites);
      counters.add(Counter::kRemoteWrittenBytes, operation.length_bytes);
      break;
    case OperationKind::kPersist:
      counters.add(Counter::kRemotePersists);
      break;
    case OperationKind::kCompareSwap:
      break;
  }
  Link& link = **found;
  const Posted posted = link.connection->post(operation);
  if (posted == Posted::kPending) {
    ++outstanding_;
    link.unsent = true;
    unsent_ = true;
    counters.add(Counter::kRemotePending);
  }
  return posted;
}

void ConnectionSet::submit() {
  if (!unsent_) return;
  unsent_ = false;
  for (Link& link : links_) {
    if (!std::exchange(link.unsent, false)) continue;
    link.connection->submit();
    count(link);
  }
}

// What the device was given (verbs). Not at every poll: a lane that spins has nothing new to count.
void ConnectionSet::count(Link& link) {
  const ConnectionStatistics now = link.connection->statistics();
  counters.add(Counter::kWorkRequests, now.work_requests - link.counted.work_requests);
  counters.add(Counter::kDoorbells, now.doorbells - link.counted.doorbells);
  counters.add(Counter::kSignalled, now.signalled - link.counted.signalled);
  counters.add(Counter::kReconnects, now.reconnects - link.counted.reconnects);
  link.counted = now;
}

bool ConnectionSet::poll(Link& link) {
  if (!link.connection) return false;
  // The list is taken out of the member: a resumed coroutine may post and so come back here through its driver.
  std::vector<Operation*> done = std::move(done_);
  done.clear();
  link.connection->poll(done);
  outstanding_ -= done.size();
  const bool any = !done.empty();
  if (any) count(link);
  for (Operation* operation : done) {
    auto* batch = static_cast<OperationBatch*>(operation->owner);
    if (--batch->remaining_ == 0) batch->waiter_.resume();
  }
  done_ = std::move(done);
  return any;
}

bool ConnectionSet::poll() {
  bool any = false;
  for (std::size_t i = 0; i < links_.size(); ++i) {  // by index: a resumed coroutine may add a link
    if (links_[i].connection && links_[i].connection->outstanding() > 0) any |= poll(links_[i]);
  }
  return any;
}

bool ConnectionSet::poll(NodeId node) { return node.value() < links_.size() && poll(links_[node.value()]); }

void OperationBatch::add(OperationKind kind, const Chunk& chunk, std::uint64_t offset, std::byte* buffer,
                         std::uint64_t length, TimePoint deadline) {
  do {
    const std::uint64_t part = std::min(length, kMaxOperationBytes);
    Item item;
    item.chunk = &chunk;
    item.operation.kind = kind;
    item.operation.region = &chunk.region;
    item.operation.offset = offset;
    item.operation.buffer = buffer;
    item.operation.length_bytes = part;
    item.operation.deadline = deadline;
    item.operation.owner = this;
    operations_.push_back(item);
    offset += part;
    if (buffer != nullptr) buffer += part;
    length -= part;
  } while (length > 0);
}

bool OperationBatch::post() {
  for (Item& item : operations_) {
    if (!item.chunk->used.load(std::memory_order_relaxed) && !item.chunk->used.exchange(true)) {
      if (connections_.on_first_use) connections_.on_first_use(*item.chunk);
    }
    if (item.chunk->state.load(std::memory_order_acquire) == ChunkState::kLost) {
      item.operation.ok = false;
      item.operation.error = Errc::kRegionLost;
    } else if (connections_.post(item.chunk->node, item.operation) == Posted::kPending) {
      ++remaining_;
    }
  }
  return remaining_ == 0;
}

const OperationBatch::Item* OperationBatch::failed() const {
  for (const Item& item : operations_) {
    if (!item.operation.ok) return &item;
  }
  return nullptr;
}

}  // namespace rmemfs
