// VerbsTarget: the node's side of the data plane over RDMA. It decides who may connect and where regions are; the
// operations themselves are done by the devices, without a thread of ours: a frozen node process goes on being read and
// written by those who are connected.
//
// One thread listens to the connection manager. A connect request is answered only after its hello was read, the
// session admitted (epoch and key), and the session's older queue pairs ended. A few workers answer ATTACH and PERSIST.
// Ended queue pairs are destroyed by threads of their own.
//
// Invariants:
//   R1  A stream states its session (is in streams_) before it is admitted, so end_sessions() finds it however the two
//       interleave.
//   R2  The connection manager's thread alone takes a stream from the table. The stream is destroyed, and
//       its rdma_cm id behind it, by a thread of disposal_, since that may wait for the network; an event of such an id
//       says nothing new. While too many wait for it, whoever wants to connect is refused for the time being
//       (kTooMany).
//   R3  mutex_ is held neither while a stream is ended nor while the RegionSource is called.
//   R4  A file system that has neither a queue pair nor a registered region loses its domain at the next event.
// Thread-safe; takes a Mutex of rank kTransport.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "transport/disposal.h"
#include "transport/target.h"
#include "transport/verbs_stream.h"
#include "util/mutex.h"

struct rdma_cm_event;
struct rdma_event_channel;

namespace rmemfs {

class VerbsTarget final : public Target {
 public:
  // Binds to `addresses` (kVerbs; port 0: any); who connects waits for start(). kNotSupported: this machine has no
  // RDMA, with the reason; kBusy: a port is taken; kInvalid: no RDMA device has the address.
  static Result<std::unique_ptr<VerbsTarget>> make(RegionSource& regions, const Options& options,
                                                   const std::vector<NodeAddress>& addresses);
  ~VerbsTarget() override;
  void start();  // once

  // With real port numbers.
  const std::vector<NodeAddress>& addresses() const { return addresses_; }
  // File systems that have a domain: those with a queue pair or a registered region, and some that had until lately.
  std::size_t domains() const;

  void adopt(UniqueFd) override {}  // a socket is no queue pair: it is closed
  void end_sessions(const Uuid& file_system, MountEpoch epoch) override;
  void quiesce() override;
  std::size_t connections() const override;
  std::size_t ending() const { return disposal_.pending(); }  // queue pairs that are not destroyed yet

 private:
  class Worker;
  struct Connected {
    std::shared_ptr<VerbsStream> stream;
    Worker* worker;
  };
  struct Domain {
    ibv_context* context;
    Uuid file_system;
    std::shared_ptr<VerbsDomain> domain;
  };
  struct Request {  // of an agent that wants to connect
    rdma_cm_id* id;
    std::vector<std::byte> data;
    std::uint8_t reads_at_once;
  };

  VerbsTarget(RegionSource& regions, const Options& options);
  Result<void> listen(const NodeAddress& address);
  void run();
  void handle(const rdma_cm_event& event);
  Result<void> connect(const Request& request, std::shared_ptr<VerbsStream>& stream);
  bool supersede(const VerbsStream& stream);
  Result<std::shared_ptr<VerbsDomain>> domain_of(ibv_context* context, const Uuid& file_system);
  Result<Worker*> worker_of(ibv_context* context);
  void refuse(rdma_cm_id* id, Errc code);
  void end(rdma_cm_id* id);  // and forgets it; nothing if it is forgotten already
  void reap();
  std::vector<std::shared_ptr<VerbsStream>> streams() const;

  // Constant after construction.
  RegionSource& regions_;
  const Options options_;
  std::vector<NodeAddress> addresses_;
  rdma_event_channel* channel_ = nullptr;
  UniqueFd wakeup_;
  std::vector<rdma_cm_id*> listeners_;

  std::atomic<bool> stop_{false};
  mutable Mutex mutex_{LockRank::kTransport};
  // Guarded by mutex_.
  std::unordered_map<rdma_cm_id*, Connected> streams_;
  std::vector<Domain> domains_;

  // The connection manager's thread's.
  std::uint64_t next_number_ = 1;
  std::map<ibv_context*, std::vector<std::unique_ptr<Worker>>> workers_;
  std::size_t next_worker_ = 0;

  Disposal disposal_;

  std::thread thread_;  // last: it uses the others
};

}  // namespace rmemfs
