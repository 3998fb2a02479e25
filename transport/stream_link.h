// StreamLink: an agent's socket to one node. It resolves, connects, says hello, and comes back after a break; what
// flows over it afterwards is its owner's (TcpConnection, ShmConnection) business. Never blocks.
//
//   kIdle --want()--> kBackoff | kResolving | kConnecting --> kGreeting --OK--> kReady
//     any --failure--> kBackoff --time--> kResolving | kConnecting        (10 ms, doubled up to 1 s)
//     kGreeting --definite refusal--> kIdle, refusal() says why
//
// Invariants:
//   - nothing but the hello is sent before kReady;
//   - a refusal stands for one second (a fenced session's for ever): until then want() does nothing;
//   - event_fd() is one epoll descriptor for the link's life, readable whenever advance() or the owner has work;
//   - the timer is armed at or before the earliest moment that anybody waits for.
//
// Thread-safety: one thread. A name (not a numeric address) is looked up by a thread that shares nothing but its
// result.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>
#include <optional>
#include <string>

#include "transport/connection.h"
#include "transport/name_lookup.h"
#include "transport/wire_format.h"
#include "util/unique_fd.h"

namespace rmemfs {

class StreamLink {
 public:
  enum class State : std::uint8_t { kIdle, kBackoff, kResolving, kConnecting, kGreeting, kReady };
  enum class Event : std::uint8_t { kNone, kReady, kRefused };

  StreamLink(const NodeAddress& address, const ConnectOptions& options);
  ~StreamLink();
  StreamLink(const StreamLink&) = delete;
  StreamLink& operator=(const StreamLink&) = delete;
  Result<void> open();  // makes the descriptors: kTooMany, kNoMemory

  int event_fd() const { return epoll_.get(); }
  State state() const { return state_; }
  bool ready() const { return state_ == State::kReady; }
  int socket() const { return socket_.get(); }
  const std::string& name() const { return name_; }

  // A standing refusal, if there is one.
  std::optional<Errc> refusal() { return refusal_ ? standing_refusal() : std::nullopt; }
  // Starts to connect when idle.
  void want() {
    if (state_ == State::kIdle) start();
  }
  // Moves the set-up forward; says what has just happened. Cheap when ready.
  Event advance(TimePoint now) { return state_ == State::kReady && now < armed_ ? Event::kNone : step(now); }
  // The owner found the stream dead or gave it up: closes it. `again`: connects anew, after the back-off.
  void broken(TimePoint now, const char* why, bool again);
  // The owner cannot use what the node offers: as if the node had refused.
  Event refuse(TimePoint now, Errc code);
  // Also makes event_fd() readable when the socket takes bytes again.
  void watch_output(bool on);
  // Makes event_fd() readable at `when`; once, and possibly again earlier.
  void wake_at(TimePoint when) {
    if (when < armed_) arm(when);
  }

  const wire::HelloReply& hello_reply() const { return reply_; }  // of the last kReady
  UniqueFd take_passed_fd() { return std::move(passed_fd_); }     // the descriptor that came with it
  std::uint64_t connects() const { return connects_; }            // times it became ready

 private:
  std::optional<Errc> standing_refusal();
  void start();
  Event step(TimePoint now);
  void begin_attempt(TimePoint now);
  void resolve(TimePoint now);
  void forget_lookup();
  void connect_to(const sockaddr* address, socklen_t length, TimePoint now);
  void connect_unix(TimePoint now);
  void greet(TimePoint now);
  Event read_greeting(TimePoint now);
  void attempt_failed(TimePoint now, const std::string& why);
  void watch(int fd, std::uint32_t events, int operation);
  void drop_socket();
  void arm(TimePoint when);

  // Constant after construction.
  const NodeAddress address_;
  const ConnectOptions options_;
  const std::string name_;
  UniqueFd epoll_;
  UniqueFd timer_;

  State state_ = State::kIdle;
  UniqueFd socket_;
  std::uint32_t watched_ = 0;  // epoll events of socket_
  TimePoint armed_ = kNoDeadline;
  TimePoint attempt_ends_ = kNoDeadline;  // from kResolving to kGreeting
  TimePoint not_before_{};                // next attempt
  Duration backoff_;
  bool outage_logged_ = false;
  std::uint64_t connects_ = 0;
  std::uint64_t attempts_ = 0;

  std::unique_ptr<NameLookup> lookup_;  // under way; at most one

  std::array<std::byte, wire::kHelloReplyBytes> greeting_{};
  std::size_t greeting_bytes_ = 0;
  wire::HelloReply reply_;
  UniqueFd passed_fd_;

  std::optional<Errc> refusal_;
  TimePoint refused_until_{};
  std::optional<Errc> logged_refusal_;
};

}  // namespace rmemfs
