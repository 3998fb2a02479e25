// VerbsStream: the node's end of one agent's queue pair. Data pass by without it; it answers ATTACH and PERSIST.
//
//   made --listed in the target--> admitted --older ones ended--> open() + accept() --> served --> end() --> destroy()
//
// Invariants:
//   X1  When end() has returned, no operation of this session touches memory through the queue pair any more: it is in
//       the error state, in which a device takes no packet for it, and the last of its receives was seen to come back,
//       which the device does in the order in which it serves the peer, so it is done with what had arrived before.
//       Where that is not seen in time the queue pair is destroyed instead, with a wait. A stream that was ended never
//       opens.
//   X2  Its completion queue's events carry its number, never its address: who takes an event looks it up.
//   X3  Memory is bounded: kCredits receives, twice as many replies. An agent that sends more than its credits meets no
//       receive and ends its own queue pair; one whose replies do not leave is ended here.
//   X4  RegionSource and persist() are called without the lock, so end() never waits for them.
//   X5  destroy() may wait for the network (soft-RoCE waits for its packets in the host's queues, for up to a minute).
//       Nobody else waits for it: end() alone takes the session its power.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "transport/queue_pair.h"
#include "transport/target.h"
#include "transport/verbs_domain.h"
#include "transport/verbs_format.h"

namespace rmemfs {

class VerbsStream {
 public:
  static constexpr std::uint32_t kCredits = 32;

  VerbsStream(std::uint64_t number, const verbs::Hello& hello, RegionSource& regions)
      : number_(number), hello_(hello), regions_(regions) {}
  ~VerbsStream() { destroy(); }
  VerbsStream(const VerbsStream&) = delete;
  VerbsStream& operator=(const VerbsStream&) = delete;

  std::uint64_t number() const { return number_; }
  const verbs::Hello& hello() const { return hello_; }
  bool admitted() const { return admitted_.load(std::memory_order_acquire); }
  void set_admitted() { admitted_.store(true, std::memory_order_release); }
  bool ended() const { return ended_.load(std::memory_order_acquire); }

  // The connection manager's thread: makes the queue pair on `id` and accepts. kCancelled: it was ended meanwhile.
  Result<void> open(rdma_cm_id* id, std::shared_ptr<VerbsDomain> domain, ibv_comp_channel* channel,
                    std::uint8_t reads_at_once);
  // Any thread. The queue pair remains, powerless, until destroy().
  void end();
  // Ends it, and destroys the queue pair and what it uses; `id` is to be destroyed after it. Blocks (X5).
  void destroy();
  // The worker's thread: answers what has come.
  void serve();

 private:
  struct Received {
    std::uint32_t index;
    std::uint32_t size;
    std::array<std::byte, verbs::kRequestBytes> bytes;
  };
  bool collect(std::vector<Received>& requests);
  verbs::Reply execute(const verbs::Request& request);
  verbs::Reply attach(const verbs::Request& request);
  verbs::Reply persist(const verbs::Request& request);
  bool answer(const verbs::Reply& reply);
  void end_locked();
  bool quiet();
  int take_completions(std::span<ibv_wc> completions);

  // Constant after construction.
  const std::uint64_t number_;
  const verbs::Hello hello_;
  RegionSource& regions_;

  std::atomic<bool> admitted_{false}, ended_{false};

  std::mutex mutex_;
  // Guarded by mutex_.
  rdma_cm_id* id_ = nullptr;  // the target's; good while pair_ is there
  std::shared_ptr<VerbsDomain> domain_;
  std::vector<std::byte> memory_;  // requests, then replies
  MemoryRegistration registration_;
  std::vector<std::uint32_t> free_replies_;
  std::uint32_t receives_ = 0;       // posted, and not come back
  bool accepted_ = false;            // or about to be: the peer may have begun
  std::unique_ptr<QueuePair> pair_;  // before what it uses

  // The worker's.
  std::unordered_map<std::uint64_t, std::shared_ptr<TargetRegion>> attached_;
};

}  // namespace rmemfs
