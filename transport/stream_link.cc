#include "transport/stream_link.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "transport/operation.h"
#include "util/check.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr Duration kFirstBackoff = std::chrono::milliseconds(10);
constexpr Duration kLastBackoff = std::chrono::seconds(1);
constexpr Duration kRefusalStands = std::chrono::seconds(1);

}  // namespace

StreamLink::StreamLink(const NodeAddress& address, const ConnectOptions& options)
    : address_(address), options_(options), name_(address.to_string()), backoff_(kFirstBackoff) {}

StreamLink::~StreamLink() = default;

Result<void> StreamLink::open() {
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  if (!epoll_.valid() || !timer_.valid()) return Error(errc_from_errno(errno), "connection", name_);
  watch(timer_.get(), EPOLLIN, EPOLL_CTL_ADD);
  return success();
}

void StreamLink::watch(int fd, std::uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  CHECK(::epoll_ctl(epoll_.get(), operation, fd, &event) == 0);
}

void StreamLink::arm(TimePoint when) {
  armed_ = when;
  itimerspec spec{};
  if (when != kNoDeadline) {
    // A zero time would disarm the timer; one nanosecond after the boot is as much in the past.
    const auto ns = std::max<std::int64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(when.time_since_epoch()).count(), 1);
    spec.it_value.tv_sec = ns / 1'000'000'000;
    spec.it_value.tv_nsec = ns % 1'000'000'000;
  }
  CHECK(::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr) == 0);
}

std::optional<Errc> StreamLink::standing_refusal() {
  if (*refusal_ != Errc::kFenced && MonoClock::now() >= refused_until_) refusal_.reset();
  return refusal_;
}

void StreamLink::start() {
  if (refusal()) return;
  state_ = State::kBackoff;
  const TimePoint now = MonoClock::now();
  if (now < not_before_)
    wake_at(not_before_);
  else
    begin_attempt(now);
}

StreamLink::Event StreamLink::step(TimePoint now) {
  if (now >= armed_) {
    std::uint64_t expirations;
    // The count does not matter, and an empty timer only means that it was armed anew in between.
    (void)!::read(timer_.get(), &expirations, sizeof expirations);
    armed_ = kNoDeadline;
  }
  switch (state_) {
    case State::kIdle:
    case State::kReady:
      return Event::kNone;
    case State::kBackoff:
      // An answer that came after its attempt was given up would keep event_fd() readable.
      if (lookup_ != nullptr && lookup_->done()) forget_lookup();
      if (now >= not_before_) begin_attempt(now);
      break;
    case State::kResolving:
      resolve(now);
      break;
    case State::kConnecting: {
      pollfd ask{socket_.get(), POLLOUT, 0};
      if (::poll(&ask, 1, 0) > 0) {
        int error = 0;
        socklen_t size = sizeof error;
        ::getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0)
          attempt_failed(now, std::strerror(error));
        else
          greet(now);
      }
      break;
    }
    case State::kGreeting:
      break;
  }
  if (state_ == State::kGreeting) {
    const Event event = read_greeting(now);
    if (event != Event::kNone) return event;
  }
  const bool attempting = state_ == State::kResolving || state_ == State::kConnecting || state_ == State::kGreeting;
  if (attempting && now >= attempt_ends_) attempt_failed(now, "no answer");
  if (state_ == State::kBackoff)
    wake_at(not_before_);
  else if (state_ != State::kIdle)
    wake_at(attempt_ends_);
  return Event::kNone;
}

void StreamLink::begin_attempt(TimePoint now) {
  ++attempts_;
  attempt_ends_ = now + std::chrono::milliseconds(options_.connect_timeout_ms);
  wake_at(attempt_ends_);
  if (address_.transport == TransportKind::kShm) return connect_unix(now);
  const std::vector<SocketAddress> numeric = look_up(address_.host, address_.port, AI_NUMERICHOST);
  if (!numeric.empty()) return connect_to(numeric[0].get(), numeric[0].length, now);
  state_ = State::kResolving;
  if (lookup_ == nullptr) {
    lookup_ = NameLookup::start(address_.host, address_.port);
    if (lookup_ == nullptr) return attempt_failed(now, std::strerror(errno));
    watch(lookup_->event_fd(), EPOLLIN, EPOLL_CTL_ADD);
  }
  resolve(now);
}

void StreamLink::resolve(TimePoint now) {
  if (!lookup_->done()) return;
  const std::vector<SocketAddress> found = lookup_->found();
  forget_lookup();
  if (found.empty()) return attempt_failed(now, "the host name has no address");
  const SocketAddress& address = found[attempts_ % found.size()];
  connect_to(address.get(), address.length, now);
}

void StreamLink::forget_lookup() {
  watch(lookup_->event_fd(), 0, EPOLL_CTL_DEL);
  lookup_.reset();
}

void StreamLink::connect_to(const sockaddr* address, socklen_t length, TimePoint now) {
  socket_.reset(::socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket_.valid()) return attempt_failed(now, std::strerror(errno));
  const int one = 1;
  ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  const int result = ::connect(socket_.get(), address, length);
  if (result != 0 && errno != EINPROGRESS) return attempt_failed(now, std::strerror(errno));
  watched_ = EPOLLOUT;
  watch(socket_.get(), watched_, EPOLL_CTL_ADD);
  state_ = State::kConnecting;
  if (result == 0) greet(now);
}

void StreamLink::connect_unix(TimePoint now) {
  // sun_path holds 108 bytes; the descriptor of the socket's own file names it however long its path is.
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  UniqueFd file;
  if (address_.path.size() < sizeof name.sun_path) {
    std::memcpy(name.sun_path, address_.path.c_str(), address_.path.size() + 1);
  } else {
    file.reset(::open(address_.path.c_str(), O_PATH | O_CLOEXEC));
    if (!file.valid()) return attempt_failed(now, std::strerror(errno));
    const std::string link = "/proc/self/fd/" + std::to_string(file.get());
    std::memcpy(name.sun_path, link.c_str(), link.size() + 1);
  }
  socket_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket_.valid()) return attempt_failed(now, std::strerror(errno));
  // EAGAIN means a full backlog: a unix socket does not connect in the background, so it is tried again later.
  if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) {
    return attempt_failed(now, std::strerror(errno));
  }
  watched_ = EPOLLIN;
  watch(socket_.get(), watched_, EPOLL_CTL_ADD);
  greet(now);
}

void StreamLink::greet(TimePoint now) {
  wire::Hello hello;
  hello.transport = address_.transport;
  hello.session = options_.session;
  hello.key = options_.file_system_key;
  // A session lives in one process, so its monotonic clock orders its streams.
  hello.incarnation = static_cast<std::uint64_t>(MonoClock::now().time_since_epoch().count());
  std::array<std::byte, wire::kHelloBytes> bytes;
  wire::encode_hello(hello, bytes);
  // A new socket's buffer is empty, so a short send is a failure and not a reason to wait.
  if (::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size())) {
    return attempt_failed(now, "the stream broke before the handshake");
  }
  greeting_bytes_ = 0;
  passed_fd_.reset();
  state_ = State::kGreeting;
  if (watched_ != EPOLLIN) watch(socket_.get(), watched_ = EPOLLIN, EPOLL_CTL_MOD);
}

StreamLink::Event StreamLink::read_greeting(TimePoint now) {
  while (greeting_bytes_ < greeting_.size()) {
    iovec piece{greeting_.data() + greeting_bytes_, greeting_.size() - greeting_bytes_};
    alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Event::kNone;
    if (got <= 0) {
      attempt_failed(now, "the node closed the stream during the handshake");
      return Event::kNone;
    }
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
      if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
      if (header->cmsg_len != CMSG_LEN(sizeof(int))) continue;
      int fd;
      std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
      passed_fd_.reset(fd);
    }
    greeting_bytes_ += static_cast<std::size_t>(got);
  }
  auto reply = wire::decode_hello_reply(address_.transport, greeting_);
  if (!reply.ok()) return refuse(now, reply.error().code);
  if (!reply->ok && is_definite(reply->status)) return refuse(now, reply->status);
  if (!reply->ok) {
    attempt_failed(now, std::string(sentence(reply->status)));
    return Event::kNone;
  }
  reply_ = *reply;
  state_ = State::kReady;
  backoff_ = kFirstBackoff;
  attempt_ends_ = kNoDeadline;
  ++connects_;
  if (outage_logged_) log::info("node {} answers again", name_);
  outage_logged_ = false;
  logged_refusal_.reset();
  return Event::kReady;
}

StreamLink::Event StreamLink::refuse(TimePoint now, Errc code) {
  drop_socket();
  state_ = State::kIdle;
  refusal_ = code;
  refused_until_ = now + kRefusalStands;
  if (logged_refusal_ != code) log::error("node {}: {}", name_, sentence(code));
  logged_refusal_ = code;
  return Event::kRefused;
}

void StreamLink::attempt_failed(TimePoint now, const std::string& why) {
  drop_socket();
  if (!outage_logged_) log::warn("node {} cannot be reached: {}; trying again", name_, why);
  outage_logged_ = true;
  state_ = State::kBackoff;
  not_before_ = now + backoff_;
  backoff_ = std::min(backoff_ * 2, kLastBackoff);
  wake_at(not_before_);
}

void StreamLink::broken(TimePoint now, const char* why, bool again) {
  attempt_failed(now, why);
  if (!again) state_ = State::kIdle;
}

void StreamLink::watch_output(bool on) {
  const std::uint32_t events = on ? EPOLLIN | EPOLLOUT : EPOLLIN;
  if (!socket_.valid() || events == watched_) return;
  watch(socket_.get(), watched_ = events, EPOLL_CTL_MOD);
}

void StreamLink::drop_socket() {
  socket_.reset();  // leaves the epoll set by being closed: nobody else has this descriptor
  watched_ = 0;
  attempt_ends_ = kNoDeadline;
}

}  // namespace rmemfs
