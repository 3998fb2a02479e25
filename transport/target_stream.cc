#include "transport/target_stream.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "transport/node_clock.h"
#include "util/check.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::size_t kHelloInput = 128;       // until the stream is open
constexpr std::size_t kInputBytes = 16 << 10;  // then; longer payload goes straight to the region
constexpr int kRounds = 8;                     // of one serve(), then others have their turn
constexpr int kPieces = 64;                    // of one sendmsg
constexpr std::size_t kMaxSend = 1 << 20;      // bytes of one sendmsg, which bounds a turn

bool expired(const wire::Request& request) { return request.expires_ns != 0 && node_clock_ns() >= request.expires_ns; }

}  // namespace

// The span in which memory may be touched (S1).
class TargetStream::Turn {
 public:
  explicit Turn(TargetStream& stream) : stream_(stream) {
    begin();
    stream_.current_turn_ = this;
  }
  ~Turn() {
    stream_.current_turn_ = nullptr;
    finish();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  // Calls out of the turn (S2).
  template <typename Function>
  auto outside(Function function) {
    finish();
    auto result = function();
    begin();
    return result;
  }

 private:
  void begin() { stream_.turn_.fetch_add(1, std::memory_order_seq_cst); }
  void finish() { stream_.turn_.fetch_add(1, std::memory_order_seq_cst); }
  TargetStream& stream_;
};

TargetStream::TargetStream(UniqueFd fd, TransportKind transport, RegionSource& regions, SessionTable& table,
                           std::thread::id worker)
    : fd_(std::move(fd)),
      transport_(transport),
      regions_(regions),
      table_(table),
      worker_(worker),
      input_(kHelloInput) {}

TargetStream::~TargetStream() = default;

void TargetStream::end() {
  ended_.store(true, std::memory_order_seq_cst);
  ::shutdown(fd_.get(), SHUT_RDWR);  // wakes the worker, which drops the stream
}

void TargetStream::wait_idle() const {
  if (worker_ == std::this_thread::get_id()) return;  // this thread is in no turn of its streams: it called out of one
  const std::uint64_t turn = turn_.load(std::memory_order_seq_cst);
  if (turn % 2 == 0) return;
  for (int tries = 0; turn_.load(std::memory_order_seq_cst) == turn; ++tries) {
    if (tries < 100)
      __builtin_ia32_pause();
    else if (tries < 200)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

TargetStream::Progress TargetStream::serve() {
  Progress progress;
  Turn turn(*this);
  bool alive = true;
  for (int round = 0; alive && round < kRounds && !ended(); ++round) {
    if (readable_ && room()) alive = receive(progress) && take_input();
    if (alive && !ended() && outgoing_begin_ < outgoing_.size() && writable_) alive = send_replies(progress);
    // Complete requests may be waiting behind a queue that was full and now has room, and no event will tell of them.
    if (alive && !ended() && room() && input_begin_ < input_end_) alive = take_input();
    if (!(readable_ && room()) && !(writable_ && outgoing_begin_ < outgoing_.size())) break;
  }
  progress.again = (readable_ && room()) || (writable_ && outgoing_begin_ < outgoing_.size());
  progress.closed = !alive || ended();
  if (progress.closed) {
    ended_.store(true, std::memory_order_seq_cst);
    ::shutdown(fd_.get(), SHUT_RDWR);
  }
  return progress;
}

bool TargetStream::receive(Progress& progress) {
  if (parser_.payload_left() > 0 && input_begin_ == input_end_) return receive_payload(progress);
  if (input_begin_ > 0) {
    std::memmove(input_.data(), input_.data() + input_begin_, input_end_ - input_begin_);
    input_end_ -= input_begin_;
    input_begin_ = 0;
  }
  const std::size_t space = input_.size() - input_end_;
  if (space == 0) return true;  // whole requests wait for room among the replies
  const ssize_t n = ::recv(fd_.get(), input_.data() + input_end_, space, MSG_DONTWAIT);
  if (n == 0) return false;
  if (n < 0) {
    if (errno == EINTR) return true;
    if (errno == EAGAIN) {
      readable_ = false;
      return true;
    }
    return false;
  }
  progress.moved = true;
  input_end_ += static_cast<std::size_t>(n);
  if (static_cast<std::size_t>(n) < space) readable_ = peer_ended_;  // drained; more bytes make a new event
  return true;
}

bool TargetStream::receive_payload(Progress& progress) {
  check_writing();
  const std::uint64_t left = parser_.payload_left();
  std::array<iovec, 2> pieces;
  int used = 0;
  std::size_t direct = 0;
  input_begin_ = input_end_ = 0;
  if (writing_ != nullptr) {
    direct = static_cast<std::size_t>(std::min<std::uint64_t>(left, kMaxPiece));
    pieces[used++] = {writing_->memory.data() + writing_at_, direct};
  }
  // Bytes behind a complete payload are the next request's; of a longer one nothing may land in the input buffer.
  if (direct == left || writing_ == nullptr) pieces[used++] = {input_.data(), input_.size()};
  std::size_t wanted = 0;
  for (int i = 0; i < used; ++i) wanted += pieces[static_cast<std::size_t>(i)].iov_len;
  const ssize_t n = ::readv(fd_.get(), pieces.data(), used);
  if (n == 0) return false;
  if (n < 0) {
    if (errno == EINTR) return true;
    if (errno == EAGAIN) {
      readable_ = false;
      return true;
    }
    return false;
  }
  progress.moved = true;
  const std::size_t landed = std::min(static_cast<std::size_t>(n), direct);
  input_end_ = static_cast<std::size_t>(n) - landed;
  writing_at_ += landed;
  parser_.skip_payload(landed);
  if (direct > 0 && parser_.payload_left() == 0) finish_write();
  if (static_cast<std::size_t>(n) < wanted) readable_ = peer_ended_;
  return true;
}

bool TargetStream::take_input() {
  while (room()) {
    const std::span<const std::byte> bytes(input_.data() + input_begin_, input_end_ - input_begin_);
    const FrameParser::Found found = parser_.next(bytes);
    switch (found.step) {
      case FrameParser::Step::kNeedMore:
        return true;
      case FrameParser::Step::kHello:
        input_begin_ += found.used;
        if (!admit()) return false;
        break;
      case FrameParser::Step::kRequest:
        input_begin_ += found.used;
        if (!execute(parser_.request())) return false;
        break;
      case FrameParser::Step::kPayload:
        take_payload(bytes.first(found.used));
        input_begin_ += found.used;
        break;
      case FrameParser::Step::kBroken: {
        const Error& error = parser_.error();
        log::debug("data plane: a stream is closed: {}: {}", error.where, sentence(error.code));
        if (error.code == Errc::kVersion) {
          wire::HelloReply reply;
          reply.status = Errc::kVersion;
          answer_hello(reply, -1);
        }
        return false;
      }
    }
    if (ended()) return false;
  }
  return true;
}

bool TargetStream::admit() {
  parser_hello_ = parser_.hello();
  wire::HelloReply answer;
  if (parser_hello_.transport != transport_) {
    log::debug("data plane: a stream is closed: its hello is another transport's");
    return false;
  }
  introduced_.store(true, std::memory_order_release);
  int pool_fd = -1;
  const Result<void> result = current_turn_->outside([&]() -> Result<void> {
    RETURN_IF_ERROR(regions_.admit(parser_hello_.session, parser_hello_.key));
    if (transport_ == TransportKind::kShm) {
      ASSIGN_OR_RETURN(pool_fd, regions_.pool_fd(answer.pool_size));
      ASSIGN_OR_RETURN(answer.epoch_offset, regions_.epoch_word_offset(parser_hello_.session.file_system));
    }
    return success();
  });
  if (!result.ok()) {
    log::debug("data plane: a session is refused: {}", result.error().message());
    answer.status = result.error().code;
    answer_hello(answer, -1);
    return false;
  }
  admitted_.store(true, std::memory_order_seq_cst);
  const bool newest = current_turn_->outside([&] { return table_.supersede(*this); });
  if (!newest || ended()) return false;
  answer.ok = true;
  answer.boot = regions_.boot();
  input_.resize(kInputBytes);
  open_.store(true, std::memory_order_relaxed);
  return answer_hello(answer, pool_fd);
}

bool TargetStream::answer_hello(wire::HelloReply answer, int passed_fd) {
  answer.clock_ns = node_clock_ns();
  std::array<std::byte, wire::kHelloReplyBytes> bytes;
  wire::encode_hello_reply(transport_, answer, bytes);
  iovec piece{bytes.data(), bytes.size()};
  alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (passed_fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &passed_fd, sizeof passed_fd);
  }
  // Nothing was sent before, so there is room; an agent that makes none is not waited for.
  return ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(bytes.size());
}

void TargetStream::reply(std::uint64_t id, Errc error) {
  wire::Reply failed;
  failed.status = error;
  failed.clock_ns = node_clock_ns();
  Outgoing& out = outgoing_.emplace_back();
  out.id = failed.id = id;
  wire::encode_reply(failed, out.header);
}

void TargetStream::reply_ok(wire::Reply done) {
  done.ok = true;
  done.clock_ns = node_clock_ns();
  Outgoing& out = outgoing_.emplace_back();
  out.id = done.id;
  wire::encode_reply(done, out.header);
}

void TargetStream::attach(const wire::Request& request) {
  if (slots_.size() <= request.slot) slots_.resize(request.slot + 1);
  auto region = current_turn_->outside([&] {
    return regions_.open_region(parser_hello_.session.file_system, request.region, request.generation, request.key);
  });
  Slot& slot = slots_[request.slot];
  slot = Slot{};
  slot.bound = true;
  if (region.ok())
    slot.region = std::move(*region);
  else
    slot.error = region.error().code;
  if (request.id == 0) return;
  if (slot.region == nullptr) return reply(request.id, slot.error);
  wire::Reply attached;
  attached.id = request.id;
  attached.writable = slot.region->writable;
  attached.length = slot.region->memory.size();
  attached.value = slot.region->pool_offset;
  reply_ok(attached);
}

bool TargetStream::execute(const wire::Request& request) {
  if (request.kind == wire::Kind::kAttach) {
    attach(request);
    return true;
  }
  const bool served = transport_ == TransportKind::kTcp || request.kind == wire::Kind::kPersist;
  if (!served || request.slot >= slots_.size() || !slots_[request.slot].bound) {
    log::debug("data plane: a stream is closed: a request on no region, or not of this transport");
    return false;
  }
  const Slot& slot = slots_[request.slot];
  std::optional<Errc> error;
  if (slot.region == nullptr) {
    error = slot.error;
  } else if (slot.region->revoked()) {
    error = Errc::kRegionLost;
  } else {
    const wire::Verdict verdict = wire::check_bounds(request, slot.region->memory.size(), slot.region->writable);
    if (!verdict.ok)
      error = verdict.error;
    else if (expired(request))
      error = Errc::kDeadline;
  }
  if (request.kind == wire::Kind::kWrite) {
    writing_ = error ? nullptr : slot.region;
    writing_error_ = error;
    writing_at_ = request.offset;
    if (request.length == 0) finish_write();
    return true;
  }
  if (error) {
    reply(request.id, *error);
    return true;
  }
  wire::Reply done;
  done.id = request.id;
  switch (request.kind) {
    case wire::Kind::kRead: {
      done.length = request.length;
      reply_ok(done);
      Outgoing& out = outgoing_.back();
      out.region = slot.region;
      out.payload = slot.region->memory.data() + request.offset;
      out.payload_bytes = static_cast<std::size_t>(request.length);
      return true;
    }
    case wire::Kind::kPersist: {
      const std::shared_ptr<TargetRegion> region = slot.region;
      const Result<void> result =
          current_turn_->outside([&] { return region->persist(request.offset, request.length); });
      if (result.ok())
        reply_ok(done);
      else
        reply(request.id, result.error().code);
      return true;
    }
    case wire::Kind::kCompareSwap: {
      std::byte* const at = slot.region->memory.data() + request.offset;
      if (reinterpret_cast<std::uintptr_t>(at) % 8 != 0) {
        reply(request.id, Errc::kInvalid);
        return true;
      }
      std::uint64_t found = request.expected;
      std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(at))
          .compare_exchange_strong(found, request.desired);
      done.value = found;
      reply_ok(done);
      return true;
    }
    case wire::Kind::kAttach:
    case wire::Kind::kWrite:
      break;
  }
  return false;
}

// A region may be revoked, the stream put between turns, or the deadline pass while a long payload is arriving.
void TargetStream::check_writing() {
  if (writing_ == nullptr) return;
  if (writing_->revoked())
    writing_error_ = Errc::kRegionLost;
  else if (expired(parser_.request()))
    writing_error_ = Errc::kDeadline;
  else
    return;
  writing_.reset();
}

void TargetStream::take_payload(std::span<const std::byte> bytes) {
  check_writing();
  if (writing_ != nullptr) std::memcpy(writing_->memory.data() + writing_at_, bytes.data(), bytes.size());
  writing_at_ += bytes.size();
  if (parser_.payload_left() == 0) finish_write();
}

void TargetStream::finish_write() {
  const std::uint64_t id = parser_.request().id;
  writing_.reset();
  if (writing_error_) return reply(id, *writing_error_);
  wire::Reply done;
  done.id = id;
  reply_ok(done);
}

// A READ's payload goes out straight from the region, possibly long after the request: false closes the stream, because
// the agent already has a header that promises other bytes.
bool TargetStream::refuse_revoked(Outgoing& out, bool begun) {
  if (begun) return false;
  wire::Reply failed;
  failed.id = out.id;
  failed.status = Errc::kRegionLost;
  failed.clock_ns = node_clock_ns();
  wire::encode_reply(failed, out.header);
  out.region.reset();
  out.payload = nullptr;
  out.payload_bytes = 0;
  return true;
}

bool TargetStream::send_replies(Progress& progress) {
  while (outgoing_begin_ < outgoing_.size()) {
    std::array<iovec, kPieces> pieces;
    std::size_t used = 0;
    std::size_t skip = outgoing_sent_;
    std::size_t total = 0;
    const auto add = [&](const std::byte* data, std::size_t size) {
      const std::size_t skipped = std::min(skip, size);
      skip -= skipped;
      size = std::min(size - skipped, kMaxSend - total);
      if (size == 0) return;
      pieces[used++] = {const_cast<std::byte*>(data) + skipped, size};
      total += size;
    };
    for (std::size_t i = outgoing_begin_; i < outgoing_.size() && used + 2 <= pieces.size() && total < kMaxSend; ++i) {
      Outgoing& out = outgoing_[i];
      if (out.region != nullptr && out.region->revoked() &&
          !refuse_revoked(out, i == outgoing_begin_ && outgoing_sent_ > 0)) {
        return false;
      }
      add(out.header.data(), out.header.size());
      add(out.payload, out.payload_bytes);
    }
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = used;
    const ssize_t n = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return false;
      writable_ = false;
      break;
    }
    progress.moved = true;
    std::size_t left = static_cast<std::size_t>(n);
    while (left > 0) {
      Outgoing& out = outgoing_[outgoing_begin_];
      const std::size_t rest = out.header.size() + out.payload_bytes - outgoing_sent_;
      if (left < rest) {
        outgoing_sent_ += left;
        break;
      }
      left -= rest;
      out.region.reset();
      outgoing_sent_ = 0;
      ++outgoing_begin_;
    }
    if (static_cast<std::size_t>(n) < total) {
      writable_ = false;
      break;
    }
    if (total >= kMaxSend) break;  // the turn has been long enough
  }
  if (outgoing_begin_ == outgoing_.size() || outgoing_begin_ >= kMaxReplies) {
    outgoing_.erase(outgoing_.begin(), outgoing_.begin() + static_cast<std::ptrdiff_t>(outgoing_begin_));
    outgoing_begin_ = 0;
  }
  return true;
}

}  // namespace rmemfs
