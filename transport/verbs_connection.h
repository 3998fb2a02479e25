// VerbsConnection: one-sided operations by the RDMA device, over one reliable connected queue pair of this lane to one
// node. The node's processor takes part only when a region is first used (ATTACH: where is it) and when a region's
// descriptor says that the node makes writes persistent (PERSIST); both are messages on the same queue pair.
//
//   post() -> ready_ --region not attached--> waiting_ --ATTACH answered--> ready_
//                ready_ --all its work requests posted--> posted_ --all completed--> completed
//                ready_, posted_ <-- link broken (a COMPARE_SWAP that was begun fails instead)
//
// Invariants:
//   V1  Work requests complete in the order in which they were posted (RC), so only the last of a burst, every
//       kSignalEvery-th, asks for a completion; it completes all before it. ring_ holds them in that order.
//   V2  A buffer is read or written only by work requests in ring_. Whoever gives up an operation with any of them
//       puts the queue pair into the error state first and sees the last of them end (quiet()), or waits until it is
//       destroyed: the device is done with the buffer, and with sending it.
//   V3  A region's addresses and keys are asked for once per instance of the node (RegionPlaces): they change when the
//       node starts again, although the generation does not. So a lane that is connected does its first operation on a
//       region without the node's process, if another lane has been there before.
//   V4  Memory that LocalMemory does not know is copied through bounce_, whose size bounds what is on its way; a WRITE
//       that fits into a work request (inline) needs neither.
//   V5  At most as many requests are unanswered as the node granted: it has posted a receive for each.
//   V6  In the steady state nothing is allocated per operation, and nothing is asked of the kernel while polling finds
//       completions: the completion queue is armed only after `spin` without any, and until then event_fd() stays
//       readable. After arming it is polled once more.
//   V7  A work request that the node's device refused breaks the queue pair. Its operation is tried once more after a
//       new ATTACH (the key may have been stale), which usually says what is wrong; refused again, it fails with
//       kRefused.
//   V8  A READ makes persistent only what its own queue pair wrote before it (C2). What was written over one that is
//       gone is in strays_ until a PERSIST of its region ends well, and such a PERSIST is a message: the node's
//       processor makes persistent whatever it can see, and a completed WRITE is visible to it whichever way it came. A
//       PERSIST whose READ was cut off by the break goes the same way when it is posted again.
//
// C5 here: when an operation fails with kDeadline, its queue pair is in the error state, so the device sends nothing of
// it any more. What the network already carries may still land until the node's side of the queue pair has gone: when
// the node hears of the disconnection, or of the session's next connection, or of a newer epoch. On a healthy network
// that is the life of a packet; nothing in the node's software can shorten it, since none is asked. Manager::quarantine
// keeps bytes that such a packet could reach from being given to another file for the life of the mount.
//
// One completion queue per connection, not per lane: a Connection is polled, armed and waited for by itself, and its
// queue goes with its queue pair, which on a broken link is the one sure way to be rid of stale completions. A lane
// polls only connections with something outstanding.
#pragma once

#include <deque>
#include <list>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "transport/connection.h"
#include "transport/region_places.h"
#include "transport/region_slots.h"
#include "transport/verbs_link.h"

namespace rmemfs {

class VerbsConnection final : public Connection {
 public:
  static Result<std::unique_ptr<Connection>> make(const NodeAddress& address, const ConnectOptions& options);
  ~VerbsConnection() override;

  Posted post(Operation& op) override;
  void submit() override;
  void poll(std::vector<Operation*>& done) override;
  void prepare(const RemoteRegion&) override { link_.want(); }
  int event_fd() const override { return link_.event_fd(); }
  std::size_t outstanding() const override { return unfinished_ + completed_.size(); }
  ConnectionStatistics statistics() const override;

 private:
  struct Region {
    RegionName name;
    RegionPlaces::Place place;  // where it is, from this connection or another
    bool attached = false;      // by this connection: then the node makes its writes persistent
    bool asked = false;         // an ATTACH is on its way, or waits for a credit
    // V8: work requests of this queue pair that write to it: posted; and those that a PERSIST covered.
    std::uint64_t writes = 0, persisted = 0;
  };
  struct Entry {
    Operation* op = nullptr;
    Region* region = nullptr;   // of the present queue pair
    std::uint64_t cut = 0;      // bytes that have their work requests
    std::uint32_t pending = 0;  // work requests, or a message's answer, that are not complete
    bool whole = false;         // everything is posted
    bool struck = false;        // V7
    std::uint64_t covers = 0;   // of a PERSIST: the region's writes when it was posted
    bool begun() const { return cut > 0 || pending > 0 || whole; }
  };
  using Entries = std::list<Entry>;
  enum class Lands : std::uint8_t { kInPlace, kBounce, kResult };  // where a work request's bytes are
  struct Work {
    Entry* entry = nullptr;  // null: a message
    Lands lands = Lands::kInPlace;
    std::uint32_t index = 0;       // of the bounce buffer or result word
    std::byte* copy_to = nullptr;  // of a READ through a bounce buffer
    std::uint32_t length = 0;
  };
  struct Message {
    Region* region = nullptr;  // of an ATTACH
    Entry* entry = nullptr;    // of a PERSIST
    std::uint32_t tag = 0;     // grows with each use
  };
  // Memory that the device knows besides the request buffers, allocated at first use.
  struct OwnMemory {
    std::unique_ptr<std::byte[], void (*)(void*)> bytes{nullptr, nullptr};
    MemoryRegistration registration;
    std::shared_ptr<VerbsDevice> device;
  };

  VerbsConnection(const NodeAddress& address, const ConnectOptions& options);

  Result<void> prepare(QueuePair& pair, const std::shared_ptr<VerbsDevice>& device);
  Result<void> own(OwnMemory& memory, std::size_t size, const std::shared_ptr<VerbsDevice>& device);
  void began();  // the link became ready
  void complete(Entries& from, Entries::iterator entry);
  void complete(Entry& entry);  // posted or ready
  void fail_all(Errc error);
  bool quiet();
  void break_link(TimePoint now, const std::string& why);
  void expire(TimePoint now);
  void forgive(Duration frozen);
  void forget_queue();

  void pump(TimePoint now);
  bool advance_front(TimePoint now);  // false: what the front entry needs is not free
  Region& region_of(Entry& entry);
  bool cut(Entry& entry);
  bool cut_transfer(Entry& entry);
  bool persists_by_read(const Operation& op) const;  // V8
  void persisted(Entry& entry);                      // a PERSIST that ended well
  bool cut_word(Entry& entry);                       // COMPARE_SWAP, and the READ that makes writes persistent
  bool send_request(const verbs::Request& request, Region* region, Entry* entry);
  void ask(Region& region);
  bool room() const { return next_ - done_ + gathered_ < ring_.size(); }
  ibv_send_wr& gather(const Work& work, const std::byte* local, std::uint64_t length, std::uint32_t lkey);
  std::optional<std::uint32_t> local_key(const std::byte* data, std::size_t size);
  void ring_doorbell(TimePoint now);

  bool glance(std::vector<Operation*>& done);  // true: this is all that poll() has to do
  bool ends_everything() const;
  void hand_over(std::vector<Operation*>& done);
  void reap(TimePoint now);
  bool take(const ibv_wc& completion, TimePoint now);  // false: the link is broken
  void finished_until(std::uint64_t sequence);
  void finish_work(Work& work);
  bool take_reply(std::uint32_t index, std::size_t size);
  void attached(Region& region, verbs::Reply&& reply);
  void failed_work(const ibv_wc& completion, TimePoint now);
  void arm_when_quiet(TimePoint now);

  // Constant after construction.
  const ConnectOptions options_;
  const std::shared_ptr<RegionPlaces> places_;

  VerbsLink link_;
  Entries ready_, waiting_, posted_, free_;
  std::unordered_map<RegionName, Region, RegionNameHash> regions_;
  Region* last_region_ = nullptr;  // of regions_
  std::deque<Region*> to_ask_;
  std::unordered_set<RegionName, RegionNameHash> strays_;  // V8; no more than the regions that were written to
  std::size_t unfinished_ = 0;
  TimePoint next_deadline_ = kNoDeadline;  // at or before the earliest of all entries
  FreezeWatch watch_;
  bool waited_ = false;                // something has been unfinished since the last poll()
  std::vector<Operation*> completed_;  // until the next poll()

  std::shared_ptr<VerbsDevice> device_;  // of the present or next queue pair
  VerbsDevice::Local local_;             // found last
  std::vector<Work> ring_;
  std::uint64_t next_ = 0, done_ = 0;  // sequence numbers in ring_: the next one; the first that is not complete
  std::uint64_t ended_ = 0;            // all before it have ended, well or not
  std::vector<ibv_send_wr> requests_;  // gathered_ of them wait for the doorbell
  std::vector<ibv_sge> pieces_;
  std::size_t gathered_ = 0;
  std::uint64_t most_ = 0;  // bytes of one work request

  OwnMemory messages_, bounce_;
  std::vector<std::uint32_t> free_bounces_, free_results_, free_messages_;
  std::uint32_t granted_ = 0;  // so many of free_messages_ are free when no answer is due
  std::vector<Message> sent_;  // by message

  std::array<ibv_wc, 16> completions_;  // what the last look at the completion queue gave
  int found_ = 0;                       // of them: by glance(), for reap()
  unsigned looks_ = 0;
  bool armed_ = false;
  bool heard_since_armed_ = false;  // so the channel has an event, or is about to
  double wait_us_ = 20;             // mean time that completions made us wait
  TimePoint flight_began_{}, quiet_since_{};

  ConnectionStatistics statistics_;
};

}  // namespace rmemfs
