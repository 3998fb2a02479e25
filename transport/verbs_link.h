// VerbsLink: an agent's queue pair to one node. It resolves, connects with the hello, and comes back after a break;
// what is posted on the queue pair afterwards is its owner's (VerbsConnection) business. Never blocks.
//
//   kIdle --want()--> kBackoff | kLookingUp --> kResolving (address, then route) --queue pair made--> kConnecting
//     kConnecting --accepted--> kReady
//     any --failure--> kBackoff --time--> ...                       (10 ms, doubled up to 1 s)
//     kConnecting --definite refusal--> kIdle, refusal() says why
//
// Invariants:
//   - each attempt has an rdma_cm id, a queue pair and a completion queue of its own. An attempt that is over is in the
//     error state before anything else happens, and its objects are destroyed by a thread of their own: destroying may
//     wait for the network (soft-RoCE waits for its packets in the host's queues, for up to a minute), which a lane
//     must not. Only when the owner could not see its last work request end (`quiet`) is that waited for;
//   - a refusal stands for one second (a fenced session's for ever): until then want() does nothing;
//   - event_fd() is one epoll descriptor for the link's life: connection manager, completion channel, timer, kick;
//   - connection manager events are acknowledged as soon as they are copied, so destroying an id waits for none.
//
// Thread-safety: one thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "transport/connection.h"
#include "transport/name_lookup.h"
#include "transport/queue_pair.h"
#include "transport/verbs_device.h"
#include "transport/verbs_format.h"
#include "util/unique_fd.h"

struct rdma_cm_event;
struct rdma_event_channel;

namespace rmemfs {

// The exponent of RDMA_OPTION_ID_ACK_TIMEOUT (4.096 us << it) with which kRetries resends end within half the deadline.
std::uint8_t ack_timeout_for(std::uint32_t deadline_ms);
inline constexpr std::uint8_t kRetries = 6;  // 7 means for ever to some devices

class VerbsLink {
 public:
  enum class State : std::uint8_t { kIdle, kBackoff, kLookingUp, kResolving, kConnecting, kReady };
  enum class Event : std::uint8_t { kNone, kReady, kRefused, kBroken };

  // `prepare` is called with a new queue pair before it connects: the owner posts its receives.
  using Prepare = std::function<Result<void>(QueuePair& pair, const std::shared_ptr<VerbsDevice>& device)>;

  VerbsLink(const NodeAddress& address, const ConnectOptions& options, const QueuePair::Shape& shape, Prepare prepare);
  ~VerbsLink();
  VerbsLink(const VerbsLink&) = delete;
  VerbsLink& operator=(const VerbsLink&) = delete;

  Result<void> open();  // makes the descriptors; kNotSupported with the reason when this machine has no RDMA

  int event_fd() const { return epoll_.get(); }
  bool ready() const { return state_ == State::kReady; }
  const std::string& name() const { return name_; }
  QueuePair& pair() { return *attempt_->pair; }                             // of kReady
  const verbs::Answer& answer() const { return answer_; }                   // of kReady
  std::uint32_t most_message_bytes() const { return most_message_bytes_; }  // of one work request

  std::optional<Errc> refusal() { return refusal_ ? standing_refusal() : std::nullopt; }
  void want() {
    if (state_ == State::kIdle) start();
  }
  Event advance(TimePoint now) { return state_ == State::kReady && now < look_at_ ? Event::kNone : step(now); }
  // Puts the queue pair into the error state and tells the node: every work request now ends, with a completion.
  void stop();
  // Lets go of the queue pair: nothing that was posted on it reads or writes our memory when this returns. `quiet`: the
  // owner saw the last work request end after stop(). `again`: connects anew, after the back-off.
  void broken(TimePoint now, const std::string& why, bool quiet, bool again);
  void close(bool quiet);  // for good, as broken()
  void wake_at(TimePoint when) {
    if (when < armed_) arm(when);
  }
  // Makes event_fd() readable until it is lowered.
  void kick(bool raised);
  // The completion channel's event, if there is one.
  bool take_completion_event();

  std::uint64_t connects() const { return connects_; }
  // Why the last attempt failed, and whether it showed that there is no RDMA between the two (no device, no route, or
  // nobody who listens for it) rather than silence.
  const std::string& last_failure() const { return last_failure_; }
  bool lacks_rdma() const { return lacks_rdma_; }
  std::uint64_t attempts() const { return attempts_; }

 private:
  struct CompletionChannelDeleter {
    void operator()(ibv_comp_channel* channel) const { ::ibv_destroy_comp_channel(channel); }
  };
  // The objects of one attempt, and what they need; destroyed from the last to the first.
  struct Attempt {
    explicit Attempt(std::shared_ptr<rdma_event_channel> events) : channel(std::move(events)) {}
    ~Attempt();
    const std::shared_ptr<rdma_event_channel> channel;
    rdma_cm_id* id = nullptr;
    std::shared_ptr<VerbsDevice> device;
    std::unique_ptr<ibv_comp_channel, CompletionChannelDeleter> completions;
    std::unique_ptr<QueuePair> pair;
  };

  std::optional<Errc> standing_refusal();
  void start();
  Event step(TimePoint now);
  void begin_attempt(TimePoint now);
  void looked_up(TimePoint now);
  void resolve(const SocketAddress& address, TimePoint now);
  void forget_lookup();
  Event take_events(TimePoint now);
  Event handle(const rdma_cm_event& event, TimePoint now);
  void route_resolved(TimePoint now);
  Event established(const rdma_cm_event& event, TimePoint now);
  Event rejected(const rdma_cm_event& event, TimePoint now);
  Event refuse(TimePoint now, Errc code);
  void attempt_failed(TimePoint now, const std::string& why, bool lacks_rdma = false);
  void back_off(TimePoint now, const std::string& why, bool lacks_rdma);
  void watch(int fd, int operation);
  void drop(bool quiet);
  void arm(TimePoint when);

  // Constant after construction.
  const NodeAddress address_;
  const ConnectOptions options_;
  const QueuePair::Shape shape_;
  const Prepare prepare_;
  const std::string name_;
  const std::shared_ptr<LocalMemory> memory_;
  UniqueFd epoll_, timer_, kick_;
  std::shared_ptr<rdma_event_channel> channel_;

  State state_ = State::kIdle;
  std::unique_ptr<Attempt> attempt_;  // the present one
  std::uint32_t most_message_bytes_ = 0;
  verbs::Answer answer_;
  bool kicked_ = false;

  TimePoint armed_ = kNoDeadline;
  TimePoint look_at_{};                   // when the connection manager is asked again although ready
  TimePoint attempt_ends_ = kNoDeadline;  // from kLookingUp to kConnecting
  TimePoint not_before_{};                // next attempt
  Duration backoff_;
  bool outage_logged_ = false;
  std::uint64_t connects_ = 0;
  std::uint64_t attempts_ = 0;
  std::string last_failure_;
  bool lacks_rdma_ = false;

  std::unique_ptr<NameLookup> lookup_;  // under way; at most one

  std::optional<Errc> refusal_;
  TimePoint refused_until_{};
  std::optional<Errc> logged_refusal_;
};

}  // namespace rmemfs
