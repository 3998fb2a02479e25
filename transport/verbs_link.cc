#include "transport/verbs_link.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "transport/local_memory.h"
#include "transport/operation.h"
#include "util/check.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr Duration kFirstBackoff = std::chrono::milliseconds(10);
constexpr Duration kLastBackoff = std::chrono::seconds(1);
constexpr Duration kRefusalStands = std::chrono::seconds(1);
// Asking the connection manager is a system call, so a busy link asks only now and then. An idle one is woken by it.
constexpr Duration kLookEvery = std::chrono::milliseconds(1);
constexpr std::uint8_t kReadsAtOnce = 16;      // RDMA READs and atomics in flight; the rest wait in the queue pair
constexpr int kRejectedByConsumer = 28;        // IBTA's reason: the application said no, with private data
constexpr std::uint8_t kReceiverNotReady = 6;  // resends; receives are posted before anybody may send

}  // namespace

std::uint8_t ack_timeout_for(std::uint32_t deadline_ms) {
  // 8: a millisecond, below which a busy network would resend for nothing; 17: half a second.
  std::uint8_t exponent = 17;
  while (exponent > 8 && (kRetries + 1) * (4096ull << exponent) > std::uint64_t{deadline_ms} * 1'000'000 / 2)
    --exponent;
  return exponent;
}

VerbsLink::Attempt::~Attempt() {
  pair.reset();
  if (id != nullptr) ::rdma_destroy_id(id);
}

VerbsLink::VerbsLink(const NodeAddress& address, const ConnectOptions& options, const QueuePair::Shape& shape,
                     Prepare prepare)
    : address_(address),
      options_(options),
      shape_(shape),
      prepare_(std::move(prepare)),
      name_(address.to_string()),
      memory_(options.local_memory != nullptr ? options.local_memory : std::make_shared<LocalMemory>()),
      backoff_(kFirstBackoff) {}

VerbsLink::~VerbsLink() { close(true); }

Result<void> VerbsLink::open() {
  if (const auto reason = why_no_rdma()) return Error(Errc::kNotSupported, "connection", name_ + ": " + *reason);
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  kick_.reset(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!epoll_.valid() || !timer_.valid() || !kick_.valid()) {
    return Error(errc_from_errno(errno), "connection", name_);
  }
  channel_ = {::rdma_create_event_channel(), [](rdma_event_channel* channel) {
                if (channel != nullptr) ::rdma_destroy_event_channel(channel);
              }};
  if (channel_ == nullptr || ::fcntl(channel_->fd, F_SETFL, O_NONBLOCK) != 0) {
    return Error(errc_from_errno(errno), "RDMA event channel", name_);
  }
  watch(timer_.get(), EPOLL_CTL_ADD);
  watch(kick_.get(), EPOLL_CTL_ADD);
  watch(channel_->fd, EPOLL_CTL_ADD);
  return success();
}

void VerbsLink::watch(int fd, int operation) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  CHECK(::epoll_ctl(epoll_.get(), operation, fd, &event) == 0);
}

void VerbsLink::arm(TimePoint when) {
  armed_ = when;
  look_at_ = std::min(look_at_, when);
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

void VerbsLink::kick(bool raised) {
  if (raised == kicked_) return;
  kicked_ = raised;
  std::uint64_t count = 1;
  if (raised)
    CHECK(::write(kick_.get(), &count, sizeof count) == sizeof count);
  else
    CHECK(::read(kick_.get(), &count, sizeof count) == sizeof count);
}

bool VerbsLink::take_completion_event() {
  ibv_cq* queue = nullptr;
  void* mark = nullptr;
  if (::ibv_get_cq_event(attempt_->completions.get(), &queue, &mark) != 0) return false;
  ::ibv_ack_cq_events(queue, 1);
  return true;
}

std::optional<Errc> VerbsLink::standing_refusal() {
  if (*refusal_ != Errc::kFenced && MonoClock::now() >= refused_until_) refusal_.reset();
  return refusal_;
}

void VerbsLink::start() {
  if (refusal()) return;
  state_ = State::kBackoff;
  const TimePoint now = MonoClock::now();
  if (now < not_before_)
    wake_at(not_before_);
  else
    begin_attempt(now);
}

VerbsLink::Event VerbsLink::step(TimePoint now) {
  if (now >= armed_) {
    std::uint64_t expirations;
    // The count does not matter, and an empty timer only means that it was armed anew in between.
    (void)!::read(timer_.get(), &expirations, sizeof expirations);
    armed_ = kNoDeadline;
  }
  look_at_ = now + kLookEvery;
  const Event event = take_events(now);
  if (event != Event::kNone) return event;
  switch (state_) {
    case State::kIdle:
    case State::kReady:
      return Event::kNone;
    case State::kBackoff:
      // An answer that came after its attempt was given up would keep event_fd() readable.
      if (lookup_ != nullptr && lookup_->done()) forget_lookup();
      if (now >= not_before_) begin_attempt(now);
      break;
    case State::kLookingUp:
      looked_up(now);
      break;
    case State::kResolving:
    case State::kConnecting:
      break;
  }
  const bool attempting = state_ == State::kLookingUp || state_ == State::kResolving || state_ == State::kConnecting;
  if (attempting && now >= attempt_ends_) attempt_failed(now, "no answer");
  if (state_ == State::kBackoff)
    wake_at(not_before_);
  else if (state_ != State::kIdle)
    wake_at(attempt_ends_);
  return Event::kNone;
}

void VerbsLink::begin_attempt(TimePoint now) {
  ++attempts_;
  attempt_ends_ = now + std::chrono::milliseconds(options_.connect_timeout_ms);
  wake_at(attempt_ends_);
  const std::vector<SocketAddress> numeric = look_up(address_.host, address_.port, AI_NUMERICHOST);
  if (!numeric.empty()) return resolve(numeric[0], now);
  state_ = State::kLookingUp;
  if (lookup_ == nullptr) {
    lookup_ = NameLookup::start(address_.host, address_.port);
    if (lookup_ == nullptr) return attempt_failed(now, std::strerror(errno));
    watch(lookup_->event_fd(), EPOLL_CTL_ADD);
  }
  looked_up(now);
}

void VerbsLink::looked_up(TimePoint now) {
  if (!lookup_->done()) return;
  const std::vector<SocketAddress> found = lookup_->found();
  forget_lookup();
  if (found.empty()) return attempt_failed(now, "the host name has no address");
  resolve(found[attempts_ % found.size()], now);
}

void VerbsLink::forget_lookup() {
  watch(lookup_->event_fd(), EPOLL_CTL_DEL);
  lookup_.reset();
}

void VerbsLink::resolve(const SocketAddress& address, TimePoint now) {
  SocketAddress to = address;
  const int limit = static_cast<int>(options_.connect_timeout_ms);
  attempt_ = std::make_unique<Attempt>(channel_);
  if (::rdma_create_id(channel_.get(), &attempt_->id, nullptr, RDMA_PS_TCP) != 0) {
    attempt_->id = nullptr;
    return attempt_failed(now, std::string("no RDMA identifier: ") + std::strerror(errno));
  }
  state_ = State::kResolving;
  if (::rdma_resolve_addr(attempt_->id, nullptr, to.get(), limit) != 0) {
    const int number = errno;
    attempt_failed(now, std::string("no RDMA device leads there: ") + std::strerror(number),
                   number == ENODEV || number == ENETUNREACH);
  }
}

VerbsLink::Event VerbsLink::take_events(TimePoint now) {
  rdma_cm_event* raw = nullptr;
  while (::rdma_get_cm_event(channel_.get(), &raw) == 0) {
    rdma_cm_event event = *raw;
    std::array<std::byte, 256> data;
    const std::size_t size = event.param.conn.private_data == nullptr ? 0 : event.param.conn.private_data_len;
    static_assert(sizeof data > UINT8_MAX);
    if (size > 0) std::memcpy(data.data(), event.param.conn.private_data, size);
    event.param.conn.private_data = data.data();
    event.param.conn.private_data_len = static_cast<std::uint8_t>(size);
    ::rdma_ack_cm_event(raw);
    if (attempt_ == nullptr || event.id != attempt_->id) continue;  // of an attempt that is given up
    const Event outcome = handle(event, now);
    if (outcome != Event::kNone) return outcome;
  }
  return Event::kNone;
}

VerbsLink::Event VerbsLink::handle(const rdma_cm_event& event, TimePoint now) {
  const auto because = [&event](const char* what) {
    return std::string(what) + (event.status < 0 ? std::string(": ") + std::strerror(-event.status) : "");
  };
  switch (event.event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED: {
      std::uint8_t timeout = ack_timeout_for(options_.deadline_ms);
      if (::rdma_set_option(attempt_->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, sizeof timeout) != 0) {
        log::debug("node {}: the device's own resend timeout is used: {}", name_, std::strerror(errno));
      }
      if (::rdma_resolve_route(attempt_->id, static_cast<int>(options_.connect_timeout_ms)) != 0) {
        attempt_failed(now, std::string("no RDMA route: ") + std::strerror(errno), true);
      }
      return Event::kNone;
    }
    case RDMA_CM_EVENT_ADDR_ERROR:
      attempt_failed(now, because("the address is not resolved"),
                     event.status == -ENODEV || event.status == -ENETUNREACH);
      return Event::kNone;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
      route_resolved(now);
      return Event::kNone;
    case RDMA_CM_EVENT_ROUTE_ERROR:
      attempt_failed(now, because("no RDMA route"), true);
      return Event::kNone;
    case RDMA_CM_EVENT_ESTABLISHED:
      return established(event, now);
    case RDMA_CM_EVENT_REJECTED:
      return rejected(event, now);
    case RDMA_CM_EVENT_CONNECT_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE:
      attempt_failed(now, because("no answer to the connect request"));
      return Event::kNone;
    case RDMA_CM_EVENT_DISCONNECTED:
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
      if (state_ == State::kReady) return Event::kBroken;
      attempt_failed(now, "the connection was ended while it was made");
      return Event::kNone;
    default:
      return Event::kNone;
  }
}

void VerbsLink::route_resolved(TimePoint now) {
  auto device = memory_->device(attempt_->id->verbs);
  if (!device.ok()) return attempt_failed(now, device.error().message());
  attempt_->device = *device;
  ibv_port_attr port{};
  if (::ibv_query_port(attempt_->id->verbs, attempt_->id->port_num, &port) != 0)
    return attempt_failed(now, "the RDMA port says nothing");
  most_message_bytes_ = port.max_msg_sz;
  attempt_->completions.reset(::ibv_create_comp_channel(attempt_->id->verbs));
  if (attempt_->completions == nullptr || ::fcntl(attempt_->completions->fd, F_SETFL, O_NONBLOCK) != 0) {
    return attempt_failed(now, std::string("completion channel: ") + std::strerror(errno));
  }
  watch(attempt_->completions->fd, EPOLL_CTL_ADD);
  const ibv_device_attr& limits = attempt_->device->attributes();
  QueuePair::Shape shape = shape_;
  shape.sends = std::min<std::uint32_t>(shape.sends, static_cast<std::uint32_t>(limits.max_qp_wr));
  auto pair = QueuePair::make(attempt_->id, attempt_->device->domain(), attempt_->completions.get(), nullptr, shape);
  if (!pair.ok()) return attempt_failed(now, pair.error().message());
  attempt_->pair = std::move(*pair);
  if (const Result<void> prepared = prepare_(*attempt_->pair, attempt_->device); !prepared.ok()) {
    return attempt_failed(now, prepared.error().message());
  }

  verbs::Hello hello;
  hello.session = options_.session;
  hello.key = options_.file_system_key;
  // A session lives in one process, so its monotonic clock orders its connections.
  hello.incarnation = static_cast<std::uint64_t>(MonoClock::now().time_since_epoch().count());
  std::array<std::byte, verbs::kHelloBytes> bytes;
  verbs::encode_hello(hello, bytes);
  rdma_conn_param parameters{};
  parameters.private_data = bytes.data();
  parameters.private_data_len = bytes.size();
  parameters.initiator_depth = static_cast<std::uint8_t>(std::min<int>(kReadsAtOnce, limits.max_qp_init_rd_atom));
  parameters.retry_count = kRetries;
  parameters.rnr_retry_count = kReceiverNotReady;
  state_ = State::kConnecting;
  if (::rdma_connect(attempt_->id, &parameters) != 0) {
    attempt_failed(now, std::string("connect request: ") + std::strerror(errno));
  }
}

VerbsLink::Event VerbsLink::established(const rdma_cm_event& event, TimePoint now) {
  const auto* data = static_cast<const std::byte*>(event.param.conn.private_data);
  const auto answer = verbs::decode_answer({data, event.param.conn.private_data_len});
  if (!answer.ok()) return refuse(now, answer.error().code);
  if (!answer->ok) return refuse(now, Errc::kProtocol);
  answer_ = *answer;
  state_ = State::kReady;
  backoff_ = kFirstBackoff;
  attempt_ends_ = kNoDeadline;
  ++connects_;
  if (outage_logged_) log::info("node {} answers again", name_);
  outage_logged_ = false;
  logged_refusal_.reset();
  return Event::kReady;
}

VerbsLink::Event VerbsLink::rejected(const rdma_cm_event& event, TimePoint now) {
  if (event.status != kRejectedByConsumer) {
    attempt_failed(now, "nobody listens there for RDMA", true);
    return Event::kNone;
  }
  const auto* data = static_cast<const std::byte*>(event.param.conn.private_data);
  const auto answer = verbs::decode_answer({data, event.param.conn.private_data_len});
  if (!answer.ok()) return refuse(now, answer.error().code);
  if (!answer->ok && is_definite(answer->status)) return refuse(now, answer->status);
  attempt_failed(now, std::string(sentence(answer->ok ? Errc::kProtocol : answer->status)));
  return Event::kNone;
}

VerbsLink::Event VerbsLink::refuse(TimePoint now, Errc code) {
  drop(true);
  state_ = State::kIdle;
  refusal_ = code;
  refused_until_ = now + kRefusalStands;
  last_failure_ = sentence(code);
  lacks_rdma_ = false;
  if (logged_refusal_ != code) log::error("node {}: {}", name_, sentence(code));
  logged_refusal_ = code;
  return Event::kRefused;
}

// Of one that never was ready, and so has no work requests but receives that nothing was sent to.
void VerbsLink::attempt_failed(TimePoint now, const std::string& why, bool lacks_rdma) {
  drop(true);
  back_off(now, why, lacks_rdma);
}

void VerbsLink::back_off(TimePoint now, const std::string& why, bool lacks_rdma) {
  last_failure_ = why;
  lacks_rdma_ = lacks_rdma;
  if (!outage_logged_) log::warn("node {} cannot be reached: {}; trying again", name_, why);
  outage_logged_ = true;
  state_ = State::kBackoff;
  not_before_ = now + backoff_;
  backoff_ = std::min(backoff_ * 2, kLastBackoff);
  wake_at(not_before_);
}

void VerbsLink::broken(TimePoint now, const std::string& why, bool quiet, bool again) {
  drop(quiet);
  back_off(now, why, false);
  if (!again) state_ = State::kIdle;
}

void VerbsLink::close(bool quiet) {
  drop(quiet);
  state_ = State::kIdle;
}

void VerbsLink::stop() {
  if (attempt_ == nullptr || attempt_->pair == nullptr) return;
  ::rdma_disconnect(attempt_->id);  // fails when it was never connected
  ibv_qp_attr error{};
  error.qp_state = IBV_QPS_ERR;
  ::ibv_modify_qp(attempt_->pair->pair(), &error, IBV_QP_STATE);
}

void VerbsLink::drop(bool quiet) {
  if (kick_.valid()) kick(false);
  attempt_ends_ = kNoDeadline;
  look_at_ = TimePoint{};
  if (attempt_ == nullptr) return;
  if (attempt_->completions != nullptr) watch(attempt_->completions->fd, EPOLL_CTL_DEL);
  stop();
  std::unique_ptr<Attempt> over = std::move(attempt_);
  if (quiet) std::thread([over = std::move(over)]() mutable { over.reset(); }).detach();
}

Result<void> probe_verbs(const NodeAddress& address, const ConnectOptions& options, std::uint32_t timeout_ms) {
  VerbsLink link(address, options, {.sends = 1, .receives = 1},
                 [](QueuePair&, const std::shared_ptr<VerbsDevice>&) { return success(); });
  RETURN_IF_ERROR(link.open());
  const TimePoint limit = deadline_after_ms(timeout_ms);
  link.want();
  for (;;) {
    const TimePoint now = MonoClock::now();
    const VerbsLink::Event event = link.advance(now);
    if (event == VerbsLink::Event::kReady) return success();
    if (event == VerbsLink::Event::kRefused) {
      return Error(link.refusal().value_or(Errc::kRefused), "probe", address.to_string());
    }
    if (link.lacks_rdma()) return Error(Errc::kNotSupported, "probe", link.last_failure());
    if (now >= limit) return Error(Errc::kDeadline, "probe", address.to_string());
    pollfd ready{link.event_fd(), POLLIN, 0};
    ::poll(&ready, 1, static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(limit - now).count()));
  }
}

}  // namespace rmemfs
