// Invariants:
//   L1  A descriptor is in exactly one of: a listening socket, a silent stream, the watch of a control stream; closing
//   it
//       or handing it over removes it from epoll first.
//   L2  The first bytes are looked at with MSG_PEEK; what receives the stream reads them again.
//   L3  Silent streams are in a list by age, so the oldest and the late ones are found without a search.
// Silent streams wait edge-triggered: a few bytes of a magic that never comes whole do not make the thread spin.
// A control stream is watched through a duplicate of its descriptor, only to count the living ones.
#include "memnode/listener.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <list>
#include <thread>
#include <unordered_map>

#include "memnode/listening_socket.h"
#include "util/check.h"
#include "util/clock.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::size_t kMagicBytes = 8;
static_assert(sizeof kTcpMagic == kMagicBytes + 1 && sizeof kShmMagic == kMagicBytes + 1 &&
              sizeof kHttp2Magic == kMagicBytes + 1);
constexpr int kPauseMs = 100;
constexpr int kAcceptBurst = 64;  // per socket and turn, so that one busy socket does not starve the others

struct SilentStream {
  UniqueFd fd;
  bool is_unix;
  TimePoint deadline;
};

class PollingListener final : public Listener {
 public:
  PollingListener(const Options& options, const Routes& routes) : options_(options), routes_(routes) {}

  ~PollingListener() override {
    if (!thread_.joinable()) return;
    const std::uint64_t one = 1;
    CHECK(::write(stop_.get(), &one, sizeof one) == sizeof one);
    thread_.join();
  }

  Result<void> start() {
    for (const std::string& address : options_.addresses) {
      ASSIGN_OR_RETURN(ListeningSocket socket, listen_on(address, options_.insecure, options_.socket_mode));
      sockets_.push_back(std::move(socket));
    }
    epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    stop_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!epoll_.valid() || !stop_.valid() || !watch(stop_.get(), EPOLLIN)) {
      return Error(errc_from_errno(errno), "listen", "no descriptors for polling");
    }
    for (const ListeningSocket& socket : sockets_) {
      if (!watch(socket.fd(), EPOLLIN)) return Error(errc_from_errno(errno), "listen", socket.address);
    }
    thread_ = std::thread([this] { run(); });
    return success();
  }

  std::vector<std::string> addresses() const override {
    std::vector<std::string> list;
    for (const ListeningSocket& socket : sockets_) list.push_back(socket.address);
    return list;
  }
  std::size_t silent_streams() const override { return silent_count_.load(std::memory_order_relaxed); }

 private:
  bool watch(int fd, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
  }
  void unwatch(int fd) { ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

  void run() {
    std::array<epoll_event, 128> events;
    for (;;) {
      const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms());
      if (count < 0 && errno != EINTR) return log::error("listener: epoll_wait: {}", std::strerror(errno));
      for (int i = 0; i < count; ++i) {
        const int fd = events[static_cast<std::size_t>(i)].data.fd;
        if (fd == stop_.get()) return;
        handle(fd);
      }
      const TimePoint now = MonoClock::now();
      while (!silent_.empty() && silent_.front().deadline <= now) drop(silent_.begin());
      if (paused_until_ != kNoDeadline && paused_until_ <= now) resume();
      silent_count_.store(silent_.size(), std::memory_order_relaxed);
    }
  }

  int timeout_ms() const {
    TimePoint next = paused_until_;
    if (!silent_.empty()) next = std::min(next, silent_.front().deadline);
    if (next == kNoDeadline) return -1;  // the stop descriptor ends it
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(next - MonoClock::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(wait, 0, 60'000));
  }

  void handle(int fd) {
    for (const ListeningSocket& socket : sockets_) {
      if (socket.fd() == fd) return accept_some(socket);
    }
    if (const auto found = by_fd_.find(fd); found != by_fd_.end()) return look(found->second);
    if (const auto found = control_.find(fd); found != control_.end()) {
      unwatch(fd);
      control_.erase(found);
    }
  }

  void accept_some(const ListeningSocket& socket) {
    for (int i = 0; i < kAcceptBurst; ++i) {
      UniqueFd stream(::accept4(socket.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!stream.valid()) {
        const bool exhausted = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
        if (!exhausted) return;  // nobody is waiting, or who was has gone
        if (silent_.empty()) return pause();
        drop(silent_.begin());
        continue;
      }
      add(std::move(stream), socket.is_unix);
    }
  }

  void add(UniqueFd stream, bool is_unix) {
    if (!is_unix) {
      const int one = 1;
      ::setsockopt(stream.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      ::setsockopt(stream.get(), SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    }
    if (silent_.size() >= options_.max_silent) drop(silent_.begin());
    const int fd = stream.get();
    if (!watch(fd, EPOLLIN | EPOLLRDHUP | EPOLLET)) return;
    silent_.push_back({std::move(stream), is_unix, deadline_after_ms(options_.first_bytes_timeout_ms)});
    by_fd_[fd] = std::prev(silent_.end());
    look(by_fd_[fd]);  // most have spoken already
  }

  void drop(std::list<SilentStream>::iterator stream) {
    unwatch(stream->fd.get());
    by_fd_.erase(stream->fd.get());
    silent_.erase(stream);
  }

  // Hands the stream over when it has said what it is, drops it when it never can.
  void look(std::list<SilentStream>::iterator stream) {
    char bytes[kMagicBytes];
    const ssize_t got = ::recv(stream->fd.get(), bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return drop(stream);
    const auto size = static_cast<std::size_t>(got);
    const bool is_unix = stream->is_unix;
    const bool tcp = std::memcmp(bytes, kTcpMagic, size) == 0 && routes_.tcp != nullptr;
    const bool shm = std::memcmp(bytes, kShmMagic, size) == 0 && is_unix && routes_.shm != nullptr;
    const bool control = std::memcmp(bytes, kHttp2Magic, size) == 0 && routes_.control != nullptr;
    if (!tcp && !shm && !control) return drop(stream);
    if (size < kMagicBytes) return;
    UniqueFd fd = std::move(stream->fd);
    unwatch(fd.get());
    by_fd_.erase(fd.get());
    silent_.erase(stream);
    if (tcp) return routes_.tcp->adopt(std::move(fd));
    if (shm) return routes_.shm->adopt(std::move(fd));
    adopt_control(std::move(fd));
  }

  void adopt_control(UniqueFd stream) {
    if (control_.size() >= options_.max_control) return;
    UniqueFd duplicate(::fcntl(stream.get(), F_DUPFD_CLOEXEC, 0));
    if (!duplicate.valid() || !watch(duplicate.get(), EPOLLRDHUP | EPOLLET)) return;
    const int fd = duplicate.get();
    control_.emplace(fd, std::move(duplicate));
    routes_.control->adopt(std::move(stream));
  }

  void pause() {
    if (paused_until_ != kNoDeadline) return;
    log::warn("out of descriptors; new streams wait");
    for (const ListeningSocket& socket : sockets_) unwatch(socket.fd());
    paused_until_ = deadline_after_ms(kPauseMs);
  }
  void resume() {
    paused_until_ = kNoDeadline;
    for (const ListeningSocket& socket : sockets_) CHECK(watch(socket.fd(), EPOLLIN));
  }

  const Options options_;
  const Routes routes_;
  std::vector<ListeningSocket> sockets_;
  UniqueFd epoll_, stop_;
  std::atomic<std::size_t> silent_count_{0};

  // The listener's thread only.
  std::list<SilentStream> silent_;  // the oldest first
  std::unordered_map<int, std::list<SilentStream>::iterator> by_fd_;
  std::unordered_map<int, UniqueFd> control_;
  TimePoint paused_until_ = kNoDeadline;

  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<Listener>> Listener::start(const Options& options, const Routes& routes) {
  auto listener = std::make_unique<PollingListener>(options, routes);
  RETURN_IF_ERROR(listener->start());
  return std::unique_ptr<Listener>(std::move(listener));
}

}  // namespace rmemfs
