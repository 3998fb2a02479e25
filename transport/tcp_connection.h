// TcpConnection: one-sided operations for a host without RDMA, over one TCP stream to a node's target. Any number of
// operations are in flight; each posted one is an Entry until it completes.
//
//   kQueued --framed, first byte sent--> kTouched --last byte sent--> kSent --reply--> completed
//      ^-------------- link broken (COMPARE_SWAP that was touched fails instead) ---------|
//
// Invariants:
//   T1  entries form one list in the order of post(); frames leave in that order, so `cursor_` splits the list into
//   sent
//       and unsent, and a new stream starts again at its head. An entry that is sent once more (T6) goes to the tail.
//   T2  a buffer is read or written only while its operation is an Entry. An operation that is given up after its first
//       byte was sent takes the stream with it, so no late reply can find its buffer and (C5) no later WRITE of this
//       session overtakes it.
//   T3  at most max_outstanding frames are on the wire; the rest wait in the list.
//   T4  a reply is matched by entry index and tag; one that matches no fully sent entry breaks the stream (kProtocol).
//   T5  in the steady state nothing is allocated per operation.
//   T6  a frame's deadline in the node's clock is never later than the operation's own (C5). A node that refuses it as
//       expired before the agent thinks so may have been judged by an old reading of its clock: the entry is sent once
//       more, with the reading that came with the refusal.
#pragma once

#include <array>
#include <deque>
#include <memory>

#include "transport/connection.h"
#include "transport/node_clock.h"
#include "transport/region_slots.h"
#include "transport/stream_link.h"

namespace rmemfs {

class TcpConnection final : public Connection {
 public:
  static Result<std::unique_ptr<Connection>> make(const NodeAddress& address, const ConnectOptions& options);
  ~TcpConnection() override;

  Posted post(Operation& op) override;
  void submit() override;
  void poll(std::vector<Operation*>& done) override;
  void prepare(const RemoteRegion&) override { link_.want(); }
  int event_fd() const override { return link_.event_fd(); }
  std::size_t outstanding() const override { return unfinished_ + completed_.size(); }
  ConnectionStatistics statistics() const override;

 private:
  struct Entry {
    Operation* op = nullptr;
    std::uint32_t index = 0;
    std::uint32_t tag = 0;  // grows with each use of the entry
    Entry* next = nullptr;
    Entry* previous = nullptr;
    bool framed = false;          // head holds its frame for this stream
    bool touched = false;         // a byte of it was sent on this stream
    bool sent = false;            // all of it
    bool again = false;           // the node refused it once as expired (T6)
    std::uint8_t head_bytes = 0;  // ATTACH, if needed, and the request
    std::array<std::byte, 2 * wire::kRequestBytes> head;

    std::size_t payload_bytes() const { return op->kind == OperationKind::kWrite ? op->length_bytes : 0; }
    std::uint64_t id() const { return (std::uint64_t{tag} << 32) | index; }
  };

  TcpConnection(const NodeAddress& address, const ConnectOptions& options);

  Entry& take_entry(Operation& op);
  void append(Entry& entry);
  void unlink(Entry& entry);
  void complete(Entry& entry);  // op's result is set
  void fail_all(Errc error);
  void break_stream(TimePoint now, const char* why);
  void expire(TimePoint now);
  void forgive(Duration frozen);
  void frame(Entry& entry);
  void unframe_from(Entry& first);  // first and all behind it, none touched
  void send(TimePoint now);
  void sent(std::size_t bytes);
  void receive(TimePoint now);
  bool take_replies(TimePoint received);  // false: the peer broke the protocol
  bool take_reply(const wire::Reply& reply, TimePoint received);
  void send_again(Entry& entry);

  // Constant after construction.
  const ConnectOptions options_;

  StreamLink link_;
  RegionSlots slots_;
  NodeClock node_clock_;       // of the stream that is ready
  std::deque<Entry> entries_;  // addresses stay
  Entry* free_ = nullptr;      // by next
  Entry* head_ = nullptr;      // T1
  Entry* tail_ = nullptr;
  Entry* cursor_ = nullptr;      // first entry that is not sent
  std::size_t cursor_sent_ = 0;  // bytes of it that are
  std::size_t unfinished_ = 0;
  std::size_t on_wire_ = 0;                // framed
  TimePoint next_deadline_ = kNoDeadline;  // at or before the earliest of all entries
  FreezeWatch watch_;
  bool waited_ = false;                // something has been unfinished since the last poll()
  std::vector<Operation*> completed_;  // until the next poll()

  std::vector<std::byte> input_;
  std::size_t input_begin_ = 0, input_end_ = 0;
  Entry* reading_ = nullptr;  // READ whose payload is arriving
  std::size_t reading_got_ = 0;

  ConnectionStatistics statistics_;
};

}  // namespace rmemfs
