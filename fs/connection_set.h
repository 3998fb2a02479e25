// One lane's connections to the memory nodes, and batches of operations on them.
//
// A connection is made at first use. Thread: the lane's only (a Connection belongs to one thread).
// Whoever drives the lane calls submit() after a burst of work and poll() while outstanding() > 0 or an event
// descriptor is readable; poll() resumes the coroutines whose batches are complete.
#pragma once

#include <boost/container/small_vector.hpp>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "fs/counters.h"
#include "manager/manager.h"
#include "transport/connection.h"
#include "util/executor.h"
#include "util/result.h"

namespace rmemfs {

// Makes this lane's connection to a node; it need not be connected yet.
using ConnectionFactory = std::function<Result<std::unique_ptr<Connection>>(NodeId node, std::uint32_t lane)>;

class ConnectionSet {
 public:
  ConnectionSet(std::uint32_t lane, Executor& executor, ConnectionFactory factory)
      : lane_(lane), executor_(executor), factory_(std::move(factory)) {}

  // Called with each new connection's event descriptor (not -1) and its node, so that the lane can wait on it.
  std::function<void(int fd, NodeId node)> on_event_fd;

  // Called when a chunk is used for the first time by any lane.
  std::function<void(const Chunk& chunk)> on_first_use;

  // Does what a lane's first operation on the chunk would have to wait for.
  void prepare(const Chunk& chunk);
  // A pending operation's `owner` is its OperationBatch.
  Posted post(NodeId node, Operation& operation);
  void submit();
  // Moves every connection with outstanding operations forward. True if something completed.
  bool poll();
  // Moves one connection forward although nothing may be outstanding on it (its descriptor was readable).
  bool poll(NodeId node);
  std::size_t outstanding() const { return outstanding_; }

  std::uint32_t lane() const { return lane_; }
  Executor& executor() const { return executor_; }

  LaneCounters counters;

 private:
  struct Link {
    std::unique_ptr<Connection> connection;
    bool unsent = false;           // posted to since the last submit()
    ConnectionStatistics counted;  // what of its statistics is in `counters`
  };
  Result<Link*> link(NodeId node);
  bool poll(Link& link);
  void count(Link& link);

  const std::uint32_t lane_;
  Executor& executor_;
  const ConnectionFactory factory_;
  std::vector<Link> links_;  // by node id; grows to the highest node used
  std::size_t outstanding_ = 0;
  bool unsent_ = false;
  std::vector<Operation*> done_;
};

// Operations of one request, posted together and awaited together. Lives in the awaiting coroutine's frame.
//
//   OperationBatch batch(connections);
//   batch.add(..., deadline); batch.add(..., deadline);
//   co_await batch.run();
//   if (const Operation* bad = batch.failed()) ...
class OperationBatch {
 public:
  explicit OperationBatch(ConnectionSet& connections) : connections_(connections) {}
  OperationBatch(const OperationBatch&) = delete;
  OperationBatch& operator=(const OperationBatch&) = delete;

  // Longer runs are split. `buffer` is only read for kWrite.
  void add(OperationKind kind, const Chunk& chunk, std::uint64_t offset, std::byte* buffer, std::uint64_t length,
           TimePoint deadline);
  bool empty() const { return operations_.empty(); }

  struct Item {
    Operation operation;
    const Chunk* chunk = nullptr;
  };
  struct Awaiter {
    OperationBatch& batch;
    bool await_ready() { return batch.post(); }
    void await_suspend(std::coroutine_handle<> handle) { batch.waiter_ = handle; }
    void await_resume() const noexcept {}
  };
  // Posts everything; suspends until all have completed. Without suspending when all complete inside post() (shm).
  Awaiter run() { return {*this}; }

  // The first operation that failed, or null. Valid after run().
  const Item* failed() const;
  const auto& items() const { return operations_; }

  static constexpr std::uint64_t kMaxOperationBytes = 1u << 20;

 private:
  friend class ConnectionSet;
  bool post();  // true: all have completed

  ConnectionSet& connections_;
  boost::container::small_vector<Item, 2> operations_;  // not touched between post() and completion
  std::size_t remaining_ = 0;
  std::coroutine_handle<> waiter_;
};

// Continues the awaiting coroutine on another lane: `co_await ResumeOn{lane.executor()}`.
struct ResumeOn {
  Executor& executor;
  bool await_ready() const noexcept { return &Executor::current() == &executor; }
  void await_suspend(std::coroutine_handle<> handle) const { executor.post(handle); }
  void await_resume() const noexcept {}
};

}  // namespace rmemfs
