// Not done here: splitting an operation, ordering overlapping ones (C3), or keeping a second stream for large payload.
#include "transport/tcp_connection.h"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "transport/operation.h"
#include "util/check.h"

namespace rmemfs {
namespace {

constexpr std::size_t kInputBytes = 16 << 10;  // payload beyond what arrives with a header goes straight to its buffer
constexpr int kPieces = 64;                    // of one sendmsg
constexpr int kReceiveRounds = 64;             // of one poll(), so that a fast node does not keep the lane

wire::Kind kind_of(OperationKind kind) {
  switch (kind) {
    case OperationKind::kRead:
      return wire::Kind::kRead;
    case OperationKind::kWrite:
      return wire::Kind::kWrite;
    case OperationKind::kPersist:
      return wire::Kind::kPersist;
    case OperationKind::kCompareSwap:
      return wire::Kind::kCompareSwap;
  }
  return wire::Kind::kRead;
}

}  // namespace

Result<std::unique_ptr<Connection>> TcpConnection::make(const NodeAddress& address, const ConnectOptions& options) {
  std::unique_ptr<TcpConnection> connection(new TcpConnection(address, options));
  RETURN_IF_ERROR(connection->link_.open());
  return std::unique_ptr<Connection>(std::move(connection));
}

TcpConnection::TcpConnection(const NodeAddress& address, const ConnectOptions& options)
    : options_(options), link_(address, options), input_(kInputBytes) {
  CHECK(options_.max_outstanding > 0);
}

TcpConnection::~TcpConnection() { fail_all(Errc::kCancelled); }

ConnectionStatistics TcpConnection::statistics() const {
  ConnectionStatistics statistics = statistics_;
  statistics.reconnects = link_.connects() > 0 ? link_.connects() - 1 : 0;
  return statistics;
}

Posted TcpConnection::post(Operation& op) {
  if (const auto refusal = link_.refusal()) {
    fail(op, *refusal);
    count(statistics_, op);
    return Posted::kCompleted;
  }
  if (!needs_link(op)) {
    count(statistics_, op);
    return Posted::kCompleted;
  }
  if (!std::exchange(waited_, true)) watch_.begin(MonoClock::now());
  Entry& entry = take_entry(op);
  append(entry);
  ++unfinished_;
  if (op.deadline < next_deadline_) {
    next_deadline_ = op.deadline;
    link_.wake_at(next_deadline_);
  }
  return Posted::kPending;
}

void TcpConnection::append(Entry& entry) {
  entry.next = nullptr;
  entry.previous = tail_;
  if (tail_ != nullptr)
    tail_->next = &entry;
  else
    head_ = &entry;
  tail_ = &entry;
  if (cursor_ == nullptr) cursor_ = &entry;
}

void TcpConnection::unlink(Entry& entry) {
  if (entry.previous != nullptr)
    entry.previous->next = entry.next;
  else
    head_ = entry.next;
  if (entry.next != nullptr)
    entry.next->previous = entry.previous;
  else
    tail_ = entry.previous;
}

void TcpConnection::send_again(Entry& entry) {
  CHECK(entry.sent);
  unlink(entry);
  entry.framed = entry.touched = entry.sent = false;
  entry.again = true;
  --on_wire_;
  append(entry);
}

TcpConnection::Entry& TcpConnection::take_entry(Operation& op) {
  Entry* entry = free_;
  if (entry != nullptr) {
    free_ = entry->next;
  } else {
    entry = &entries_.emplace_back();
    entry->index = static_cast<std::uint32_t>(entries_.size() - 1);
  }
  ++entry->tag;
  if (entry->tag == 0) entry->tag = 1;  // request id 0 is no request
  entry->op = &op;
  entry->framed = entry->touched = entry->sent = entry->again = false;
  return *entry;
}

void TcpConnection::complete(Entry& entry) {
  count(statistics_, *entry.op);
  completed_.push_back(entry.op);
  if (cursor_ == &entry) {
    CHECK(!entry.touched);
    cursor_ = entry.next;
  }
  if (entry.framed) --on_wire_;
  unlink(entry);
  --unfinished_;
  entry.op = nullptr;
  entry.previous = nullptr;
  entry.next = free_;
  free_ = &entry;
}

void TcpConnection::fail_all(Errc error) {
  CHECK(error == Errc::kCancelled || !link_.ready());
  for (Entry* entry = head_; entry != nullptr; entry = entry->next) {
    entry->framed = entry->touched = entry->sent = false;
  }
  on_wire_ = 0;
  while (head_ != nullptr) {
    fail(*head_->op, error);
    complete(*head_);
  }
  next_deadline_ = kNoDeadline;
}

void TcpConnection::break_stream(TimePoint now, const char* why) {
  input_begin_ = input_end_ = 0;
  reading_ = nullptr;
  cursor_sent_ = 0;
  on_wire_ = 0;
  slots_.clear();
  for (Entry* entry = head_; entry != nullptr;) {
    Entry* const next = entry->next;
    const bool doubtful = entry->touched && entry->op->kind == OperationKind::kCompareSwap;
    entry->framed = entry->touched = entry->sent = false;
    if (doubtful) {  // C4
      fail(*entry->op, Errc::kUnreachable);
      complete(*entry);
    }
    entry = next;
  }
  cursor_ = head_;
  link_.broken(now, why, head_ != nullptr);
  if (!completed_.empty()) link_.wake_at(now);
}

void TcpConnection::expire(TimePoint now) {
  bool touched = false;
  next_deadline_ = kNoDeadline;
  for (Entry* entry = head_; entry != nullptr;) {
    Entry* const next = entry->next;
    if (entry->op->deadline > now) {
      next_deadline_ = std::min(next_deadline_, entry->op->deadline);
    } else {
      touched = touched || entry->touched;
      if (reading_ == entry) reading_ = nullptr;
      if (!entry->touched) unframe_from(*entry);
      entry->touched = false;
      fail(*entry->op, Errc::kDeadline);
      complete(*entry);
    }
    entry = next;
  }
  if (touched) break_stream(now, "an operation's deadline passed without an answer");  // T2
}

void TcpConnection::unframe_from(Entry& first) {
  // An ATTACH that stood in a frame never left, and frames behind it may count on it.
  for (Entry* entry = &first; entry != nullptr && entry->framed; entry = entry->next) {
    if (entry->head_bytes > wire::kRequestBytes) slots_.forget(*entry->op->region);
    entry->framed = false;
    --on_wire_;
  }
}

void TcpConnection::submit() {
  if (cursor_ == nullptr) return;
  if (!link_.ready()) {
    link_.want();
    return;
  }
  send(MonoClock::now());
}

// While this process did not run, the node may have answered in time: nobody was late but we.
void TcpConnection::forgive(Duration frozen) {
  for (Entry* entry = head_; entry != nullptr; entry = entry->next) {
    if (entry->op->deadline != kNoDeadline) entry->op->deadline += frozen;
  }
  if (next_deadline_ != kNoDeadline) next_deadline_ += frozen;
}

void TcpConnection::poll(std::vector<Operation*>& done) {
  const TimePoint now = MonoClock::now();
  if (waited_) {
    if (const Duration frozen = watch_.frozen(now); frozen != Duration::zero()) forgive(frozen);
  }
  const StreamLink::Event event = link_.advance(now);
  if (event == StreamLink::Event::kRefused) fail_all(link_.refusal().value_or(Errc::kRefused));
  // `now` may be older than the answer, and then the node would seem ahead of where it is.
  if (event == StreamLink::Event::kReady) node_clock_ = NodeClock(link_.hello_reply().clock_ns, MonoClock::now());
  if (link_.ready()) receive(now);
  if (now >= next_deadline_) expire(now);
  if (head_ != nullptr && !link_.ready()) link_.want();
  if (cursor_ != nullptr && link_.ready()) send(now);
  if (next_deadline_ != kNoDeadline) link_.wake_at(next_deadline_);
  waited_ = head_ != nullptr;
  if (completed_.empty()) return;
  done.insert(done.end(), completed_.begin(), completed_.end());
  completed_.clear();
}

void TcpConnection::frame(Entry& entry) {
  const Operation& op = *entry.op;
  const RegionSlots::Binding binding = slots_.bind(*op.region);
  std::byte* head = entry.head.data();
  if (binding.fresh) {
    wire::Request attach;
    attach.kind = wire::Kind::kAttach;
    attach.slot = binding.slot;
    attach.region = op.region->id;
    attach.generation = op.region->generation;
    attach.key = op.region->key;
    wire::encode_request(attach, std::span<std::byte, wire::kRequestBytes>(head, wire::kRequestBytes));
    head += wire::kRequestBytes;
  }
  wire::Request request;
  request.kind = kind_of(op.kind);
  request.slot = binding.slot;
  request.id = entry.id();
  request.offset = op.offset;
  request.length = op.length_bytes;
  if (op.kind == OperationKind::kPersist && op.length_bytes == 0) {
    request.offset = 0;
    request.length = op.region->length_bytes;
  }
  if (op.kind == OperationKind::kCompareSwap) {
    request.length = 8;
    request.expected = op.expected;
    request.desired = op.desired;
  }
  if (op.kind == OperationKind::kCompareSwap || op.kind == OperationKind::kWrite) {
    request.expires_ns = node_clock_.expires_ns(op.deadline);
  }
  wire::encode_request(request, std::span<std::byte, wire::kRequestBytes>(head, wire::kRequestBytes));
  entry.head_bytes = static_cast<std::uint8_t>(head + wire::kRequestBytes - entry.head.data());
  entry.framed = true;
  ++on_wire_;
}

void TcpConnection::send(TimePoint now) {
  while (cursor_ != nullptr) {
    std::array<iovec, kPieces> pieces;
    std::size_t used = 0;
    std::size_t skip = cursor_sent_;
    std::size_t total = 0;
    const auto add = [&](std::byte* data, std::size_t size) {
      const std::size_t skipped = std::min(skip, size);
      skip -= skipped;
      if (size == skipped) return;
      pieces[used++] = {data + skipped, size - skipped};
      total += size - skipped;
    };
    for (Entry* entry = cursor_; entry != nullptr && used + 2 <= pieces.size(); entry = entry->next) {
      if (!entry->framed) {
        if (on_wire_ >= options_.max_outstanding) break;  // T3
        frame(*entry);
      }
      add(entry->head.data(), entry->head_bytes);
      add(entry->op->buffer, entry->payload_bytes());
    }
    if (used == 0) return;
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = used;
    const ssize_t n = ::sendmsg(link_.socket(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        link_.watch_output(true);
        return;
      }
      return break_stream(now, std::strerror(errno));
    }
    sent(static_cast<std::size_t>(n));
    if (static_cast<std::size_t>(n) < total) {
      link_.watch_output(true);
      return;
    }
  }
  link_.watch_output(false);
}

void TcpConnection::sent(std::size_t bytes) {
  while (bytes > 0) {
    Entry& entry = *cursor_;
    const std::size_t left = entry.head_bytes + entry.payload_bytes() - cursor_sent_;
    entry.touched = true;
    if (bytes < left) {
      cursor_sent_ += bytes;
      return;
    }
    bytes -= left;
    entry.sent = true;
    cursor_ = entry.next;
    cursor_sent_ = 0;
  }
}

void TcpConnection::receive(TimePoint now) {
  for (int round = 0; round < kReceiveRounds; ++round) {
    if (input_begin_ > 0 && input_begin_ < input_end_) {
      std::memmove(input_.data(), input_.data() + input_begin_, input_end_ - input_begin_);
    }
    input_end_ -= input_begin_;
    input_begin_ = 0;
    std::array<iovec, 2> pieces;
    int used = 0;
    std::size_t wanted = 0;
    std::size_t direct = 0;
    if (reading_ != nullptr) {
      CHECK(input_end_ == 0);
      direct = reading_->op->length_bytes - reading_got_;
      pieces[used++] = {reading_->op->buffer + reading_got_, direct};
      wanted += direct;
    }
    pieces[used++] = {input_.data() + input_end_, input_.size() - input_end_};
    wanted += input_.size() - input_end_;
    const ssize_t n = used == 1 ? ::recv(link_.socket(), pieces[0].iov_base, pieces[0].iov_len, MSG_DONTWAIT)
                                : ::readv(link_.socket(), pieces.data(), used);
    if (n == 0) return break_stream(now, "the node closed the stream");
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return;
      return break_stream(now, std::strerror(errno));
    }
    std::size_t got = static_cast<std::size_t>(n);
    if (reading_ != nullptr) {
      const std::size_t landed = std::min(got, direct);
      reading_got_ += landed;
      got -= landed;
      if (landed == direct) {
        finish(*reading_->op, link_.hello_reply().boot);
        complete(*std::exchange(reading_, nullptr));
      }
    }
    input_end_ += got;
    if (!take_replies(MonoClock::now())) return break_stream(now, "the node broke the protocol");
    if (static_cast<std::size_t>(n) < wanted) return;  // drained
  }
}

bool TcpConnection::take_replies(TimePoint received) {
  while (reading_ == nullptr && input_end_ - input_begin_ >= wire::kReplyBytes) {
    const std::span<const std::byte, wire::kReplyBytes> bytes(input_.data() + input_begin_, wire::kReplyBytes);
    const auto reply = wire::decode_reply(bytes);
    if (!reply.ok()) return false;
    input_begin_ += wire::kReplyBytes;
    if (!take_reply(*reply, received)) return false;
  }
  return true;
}

bool TcpConnection::take_reply(const wire::Reply& reply, TimePoint received) {
  const std::uint64_t index = reply.id & 0xffffffffu;
  if (index >= entries_.size()) return false;
  Entry& entry = entries_[index];
  if (entry.op == nullptr || entry.id() != reply.id || !entry.sent) return false;  // T4
  Operation& op = *entry.op;
  const std::uint64_t payload = reply.ok && op.kind == OperationKind::kRead ? op.length_bytes : 0;
  if (reply.length != payload) return false;
  node_clock_.learn(reply.clock_ns, received);
  const bool expires = op.kind == OperationKind::kWrite || op.kind == OperationKind::kCompareSwap;
  if (!reply.ok && reply.status == Errc::kDeadline && expires && received < op.deadline && !entry.again) {
    send_again(entry);
    return true;
  }
  if (!reply.ok) {
    if (reply.status == Errc::kRegionLost || reply.status == Errc::kRefused || reply.status == Errc::kNotFound) {
      slots_.forget(*op.region);
    }
    fail(op, reply.status);
    complete(entry);
    return true;
  }
  if (payload == 0) {
    op.previous = reply.value;
    finish(op, link_.hello_reply().boot);
    complete(entry);
    return true;
  }
  const std::size_t here = std::min<std::size_t>(input_end_ - input_begin_, op.length_bytes);
  std::memcpy(op.buffer, input_.data() + input_begin_, here);
  input_begin_ += here;
  if (here == op.length_bytes) {
    finish(op, link_.hello_reply().boot);
    complete(entry);
  } else {
    reading_ = &entry;
    reading_got_ = here;
  }
  return true;
}

}  // namespace rmemfs
