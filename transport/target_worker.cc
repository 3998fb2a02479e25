#include "transport/target_worker.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "util/check.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr int kEvents = 64;
constexpr int kSpinsPerWait = 16;  // looks at the hot stream between two looks at all of them

void prepare(int fd) {
  // Fail on a unix socket, which needs none of it. A dead agent's host is found out in about a minute.
  const int one = 1, idle = 30, interval = 10, probes = 3;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

}  // namespace

Result<std::unique_ptr<TargetWorker>> TargetWorker::make(TransportKind transport, RegionSource& regions,
                                                         SessionTable& table, const Target::Options& options) {
  std::unique_ptr<TargetWorker> worker(new TargetWorker(transport, regions, table, options));
  worker->epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  worker->wakeup_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!worker->epoll_.valid() || !worker->wakeup_.valid()) return Error(errc_from_errno(errno), "target");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;  // the wake-up's mark
  if (::epoll_ctl(worker->epoll_.get(), EPOLL_CTL_ADD, worker->wakeup_.get(), &event) != 0) {
    return Error(errc_from_errno(errno), "target");
  }
  worker->thread_ = std::thread([raw = worker.get()] { raw->run(); });
  return worker;
}

TargetWorker::~TargetWorker() {
  stop_.store(true, std::memory_order_release);
  const std::uint64_t one = 1;
  (void)!::write(wakeup_.get(), &one, sizeof one);  // an eventfd that is not full always takes it
  if (thread_.joinable()) thread_.join();
}

void TargetWorker::adopt(UniqueFd stream) {
  {
    MutexLock lock(mutex_);
    if (adopted_.size() >= options_.max_connections) return;  // closes it
    adopted_.push_back(std::move(stream));
  }
  const std::uint64_t one = 1;
  (void)!::write(wakeup_.get(), &one, sizeof one);
}

void TargetWorker::take_adopted() {
  std::uint64_t count;
  (void)!::read(wakeup_.get(), &count, sizeof count);
  std::vector<UniqueFd> adopted;
  {
    MutexLock lock(mutex_);
    adopted.swap(adopted_);
  }
  const TimePoint deadline = deadline_after_ms(options_.handshake_timeout_ms);
  for (UniqueFd& fd : adopted) {
    if (table_.size() >= options_.max_connections) {
      log::debug("data plane: a stream is closed: there are {} already", options_.max_connections);
      ::shutdown(fd.get(), SHUT_RDWR);
      fd.reset();
      continue;
    }
    prepare(fd.get());
    const int number = fd.get();
    auto stream =
        std::make_shared<TargetStream>(std::move(fd), transport_, regions_, table_, std::this_thread::get_id());
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.ptr = stream.get();
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, number, &event) != 0) {
      log::warn("data plane: a stream is closed: {}", sentence(errc_from_errno(errno)));
      continue;
    }
    table_.add(stream);
    greeting_.push_back({stream, deadline});
    TargetStream* const raw = stream.get();
    streams_.emplace(raw, std::move(stream));
  }
}

bool TargetWorker::serve(TargetStream& stream) {
  const TargetStream::Progress progress = stream.serve();
  if (progress.closed) {
    drop(stream);
    return true;
  }
  if (progress.again) again_.push_back(&stream);
  if (progress.moved) hot_ = &stream;
  return progress.moved;
}

void TargetWorker::drop(TargetStream& stream) {
  if (hot_ == &stream) hot_ = nullptr;
  std::erase(again_, &stream);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, stream.fd(), nullptr);
  table_.remove(stream);
  streams_.erase(&stream);
}

void TargetWorker::end_silent(TimePoint now) {
  while (!greeting_.empty()) {
    const auto stream = greeting_.front().stream.lock();
    if (stream != nullptr && !stream->open()) {
      if (now < greeting_.front().deadline) return;
      log::debug("data plane: a stream is closed: it did not introduce itself in {} ms", options_.handshake_timeout_ms);
      stream->end();
      drop(*stream);
    }
    greeting_.pop_front();
  }
}

int TargetWorker::sleep_ms(TimePoint now) const {
  if (!again_.empty()) return 0;
  if (greeting_.empty()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(greeting_.front().deadline - now).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, options_.handshake_timeout_ms));
}

void TargetWorker::run() {
  const Duration spin = std::chrono::microseconds(options_.spin_us);
  TimePoint worked = MonoClock::now();
  std::array<epoll_event, kEvents> events;
  std::vector<TargetStream*> again;
  while (!stop_.load(std::memory_order_acquire)) {
    TimePoint now = MonoClock::now();
    const bool spinning = options_.spin_us > 0 && now - worked < spin;
    if (spinning && again_.empty()) {
      for (int i = 0; i < kSpinsPerWait && hot_ != nullptr; ++i) {
        hot_->note_input();
        if (serve(*hot_)) worked = now;
        if (!again_.empty()) break;
      }
    }
    if (!greeting_.empty()) end_silent(now);
    const int count = ::epoll_wait(epoll_.get(), events.data(), kEvents, spinning ? 0 : sleep_ms(now));
    if (count < 0) CHECK(errno == EINTR);
    if (count > 0) worked = MonoClock::now();
    bool adopted = false;
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.ptr == nullptr) {
        adopted = true;
        continue;
      }
      TargetStream& stream = *static_cast<TargetStream*>(event.data.ptr);
      if ((event.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) stream.note_end();
      if ((event.events & EPOLLIN) != 0) stream.note_input();
      if ((event.events & EPOLLOUT) != 0) stream.note_output();
      serve(stream);
    }
    if (adopted) take_adopted();
    if (!again_.empty()) {
      again.swap(again_);
      std::sort(again.begin(), again.end());
      again.erase(std::unique(again.begin(), again.end()), again.end());
      // Serving drops only the stream itself, so the rest of the list stays valid.
      for (TargetStream* stream : again) serve(*stream);
      again.clear();
    }
  }
  for (auto& [raw, stream] : streams_) {
    stream->end();
    table_.remove(*stream);
  }
  streams_.clear();
}

}  // namespace rmemfs
