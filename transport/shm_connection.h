// ShmConnection: one-sided operations on a node of the same host. An operation is a memcpy in the node's pool, mapped
// here, and completes inside post(). The node is asked (over its unix socket) only for what changes rarely: the pool's
// descriptor, a region's place in it, and a persist that the node must do.
//
//   region:  unknown --ATTACH--> attached --(socket broken and back) ATTACH--> attached | unknown
//
// Invariants:
//   H1  an operation on an attached region never waits for the node: frozen or dead, its memory is still mapped here.
//       Others wait in pending_ until the node answers or their deadline passes.
//   H2  the epoch word is read before each access, and again after it: a result that a newer mount may have overtaken
//   is
//       never reported as done. (A store that was under way at that moment has landed, which no reader of the word can
//       prevent; a new mount does not reuse what the old one had before it has taken over its metadata.)
//   H3  every address was checked against the pool's size and the pool's size against the file, when it was mapped.
//   H4  after a reconnection every region is asked for again, because the node may have come back without it; until it
//       answers, the old mapping is used.
#pragma once

#include <list>
#include <memory>
#include <unordered_map>

#include "transport/connection.h"
#include "transport/pool_mapping.h"
#include "transport/region_slots.h"
#include "transport/stream_link.h"

namespace rmemfs {

class ShmConnection final : public Connection {
 public:
  static Result<std::unique_ptr<Connection>> make(const NodeAddress& address, const ConnectOptions& options);
  ~ShmConnection() override;

  Posted post(Operation& op) override;
  void submit() override;
  void poll(std::vector<Operation*>& done) override;
  void prepare(const RemoteRegion& region) override;
  int event_fd() const override { return link_.event_fd(); }
  std::size_t outstanding() const override { return pending_.size() + completed_.size(); }
  ConnectionStatistics statistics() const override;

 private:
  struct Region {
    RegionName name;
    std::shared_ptr<PoolMapping> pool;
    std::byte* data = nullptr;  // in `pool`; null: not attached
    std::uint64_t* epoch_word = nullptr;
    std::uint64_t length = 0;
    bool writable = false;
    std::uint64_t asked = 0;  // id of the ATTACH that is under way
  };
  struct Pending {
    Operation* op;
    Region* region;
    std::uint64_t persist_id = 0;  // of the PERSIST that is under way
  };

  ShmConnection(const NodeAddress& address, const ConnectOptions& options);

  Region& region_of(const RemoteRegion& remote);
  static std::uint64_t epoch_of(const Region& region) {
    return std::atomic_ref<std::uint64_t>(*region.epoch_word).load(std::memory_order_acquire);
  }
  bool fenced(const Region& region);
  bool copy_at_once(Operation& op);
  // The access itself; sets the result. False: the node must do it (PERSIST).
  bool access(Operation& op, Region& region);
  void wait(Operation& op, Region& region);
  void complete_pending(std::list<Pending>::iterator entry);
  void fail_all(Errc error);
  void expire(TimePoint now);
  void forgive(Duration frozen);

  void refused();
  void mapped(TimePoint now);  // the link became ready
  void ask(Region& region);
  void ask_persist(Pending& pending);
  void queue_request(const wire::Request& request);
  void send(TimePoint now);
  void receive(TimePoint now);
  bool take_reply(const wire::Reply& reply);
  bool attached(Region& region, const wire::Reply& reply);
  void break_stream(TimePoint now, const char* why);

  // Constant after construction.
  const ConnectOptions options_;

  StreamLink link_;
  std::shared_ptr<PoolMapping> pool_;  // of the last handshake
  std::unordered_map<RegionName, Region, RegionNameHash> regions_;
  Region* last_ = nullptr;                            // region of the last operation
  std::unordered_map<std::uint64_t, Region*> asked_;  // by id of the ATTACH that is under way
  RegionSlots slots_;
  std::list<Pending> pending_;             // in the order of post()
  std::vector<Operation*> completed_;      // until the next poll()
  TimePoint next_deadline_ = kNoDeadline;  // at or before the earliest of pending_
  FreezeWatch watch_;
  bool waited_ = false;  // something has been pending since the last poll()
  std::uint64_t next_id_ = 1;
  bool fence_logged_ = false;

  std::vector<std::byte> output_;
  std::array<std::byte, wire::kReplyBytes> input_{};
  std::size_t input_bytes_ = 0;

  ConnectionStatistics statistics_;
};

}  // namespace rmemfs
