// TargetStream: the node's end of one data-plane stream. Its worker's thread calls serve(); everybody else may only end
// it and wait for it.
//
//   kHello --hello read--> introduced --RegionSource::admit--> admitted --older streams ended, OK sent--> kOpen
//
// Invariants:
//   S1  a region's memory is touched only during a *turn* (turn_ is odd), and only after looking, in that turn, that
//   the
//       stream was not ended and the region not revoked. So whoever sets one of the two and then waits for the turn to
//       end knows that nothing lands any more.
//   S2  RegionSource and persist() are called between turns, so a wait for a turn is short whatever they do.
//   S3  nothing is executed before the OK was sent, and no OK is sent before the session's older streams are ended.
//   S4  memory is bounded: one input buffer, kMaxReplies replies (payload is referred to, not copied), kSlots regions.
//       A full reply queue stops the reading.
//   S5  a WRITE or COMPARE_SWAP that has expired touches nothing: the node's clock is looked at before the operation
//   and
//       before each piece of a payload, so what an agent has given up does not land when a frozen node is thawed. What
//       remains: a thread that is stopped between that look and the end of the copy it allows (one swapped word, or
//       kMaxPiece bytes of a WRITE), and a host whose clock stood still (a suspended machine).
//   S6  what does not parse closes the stream, and nothing that came before it is taken back.
//
// The descriptor is registered edge-triggered: the worker notes events, and serve() forgets them when a call would
// block.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "transport/frame_parser.h"
#include "transport/session_table.h"
#include "transport/target.h"

namespace rmemfs {

class TargetStream {
 public:
  struct Progress {
    bool moved = false;   // something was received or sent
    bool again = false;   // there is more to do without waiting for an event
    bool closed = false;  // over; the worker drops it
  };

  TargetStream(UniqueFd fd, TransportKind transport, RegionSource& regions, SessionTable& table,
               std::thread::id worker);
  ~TargetStream();

  // The worker's thread.
  int fd() const { return fd_.get(); }
  void note_input() { readable_ = true; }
  void note_end() { readable_ = peer_ended_ = true; }
  void note_output() { writable_ = true; }
  Progress serve();
  bool open() const { return open_.load(std::memory_order_relaxed); }

  // Any thread.
  const wire::Hello* introduced() const {  // the hello, once it was read
    return introduced_.load(std::memory_order_acquire) ? &parser_hello_ : nullptr;
  }
  bool admitted() const { return admitted_.load(std::memory_order_acquire); }
  void end();              // no turn that begins after this touches memory
  void wait_idle() const;  // until the turn that is under way, if any, is over

 private:
  class Turn;
  struct Slot {
    std::shared_ptr<TargetRegion> region;  // null: unbound, or refused with `error`
    Errc error = Errc::kProtocol;
    bool bound = false;
  };
  struct Outgoing {
    std::array<std::byte, wire::kReplyBytes> header;
    std::shared_ptr<TargetRegion> region;  // of the payload
    const std::byte* payload = nullptr;
    std::size_t payload_bytes = 0;
    std::uint64_t id = 0;
  };

  bool ended() const { return ended_.load(std::memory_order_seq_cst); }
  bool room() const { return outgoing_.size() - outgoing_begin_ < kMaxReplies; }
  bool receive(Progress& progress);  // false: close
  bool receive_payload(Progress& progress);
  bool take_input();  // false: close
  bool admit();
  bool answer_hello(wire::HelloReply answer, int passed_fd);
  bool execute(const wire::Request& request);
  void attach(const wire::Request& request);
  void take_payload(std::span<const std::byte> bytes);
  void finish_write();
  void check_writing();
  void reply(std::uint64_t id, Errc error);
  void reply_ok(wire::Reply reply);
  bool send_replies(Progress& progress);  // false: close
  bool refuse_revoked(Outgoing& first, bool begun);

  static constexpr std::size_t kMaxReplies = 256;
  static constexpr std::size_t kMaxPiece = 256 << 10;  // of a payload, received at once (S5)

  // Constant after construction.
  const UniqueFd fd_;  // stays open until nobody refers to the stream, so end() never meets a reused number
  const TransportKind transport_;
  RegionSource& regions_;
  SessionTable& table_;
  const std::thread::id worker_;

  // With their own synchronization. parser_hello_ is written once, before introduced_.
  std::atomic<bool> introduced_{false};
  std::atomic<bool> admitted_{false};
  std::atomic<bool> open_{false};
  std::atomic<bool> ended_{false};
  std::atomic<std::uint64_t> turn_{0};
  wire::Hello parser_hello_;

  // The worker's.
  bool readable_ = false;
  bool peer_ended_ = false;  // its end was an event already and will not be another: read on until it is found
  bool writable_ = true;
  Turn* current_turn_ = nullptr;
  FrameParser parser_;
  std::vector<std::byte> input_;
  std::size_t input_begin_ = 0, input_end_ = 0;
  std::vector<Slot> slots_;
  std::shared_ptr<TargetRegion> writing_;  // region of the WRITE whose payload arrives; null: it is dropped
  std::optional<Errc> writing_error_;
  std::uint64_t writing_at_ = 0;    // where in the region the next byte goes
  std::vector<Outgoing> outgoing_;  // from outgoing_begin_ on
  std::size_t outgoing_begin_ = 0;
  std::size_t outgoing_sent_ = 0;  // bytes of the first one
};

}  // namespace rmemfs
