// Invariants:
//   L1  A reply is written by the thread and to the descriptor that read the request.
//   L2  A coroutine posted by another thread is seen: the poster appends and then looks at sleeping_, the lane sets
//       sleeping_ and then looks at the queue, both in one total order.
//   L3  A lane with operations outstanding or timers set never sleeps longer than kTimerTick: deadlines are kept by
//       polling. Completions are looked at before timers, so that what was answered in time is seen in time.
#include "fs/fuse_lane.h"

#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "util/log.h"

namespace rmemfs {
namespace {

constexpr int kBurst = 16;         // requests read before completions are looked at
constexpr unsigned kFewCores = 4;  // up to here spinning takes the client's core
constexpr double kLongestSpinUs = 100;
constexpr std::uint64_t kDeviceTag = UINT64_MAX, kEventTag = UINT64_MAX - 1;

thread_local FuseLane* current_lane = nullptr;

double microseconds_since(TimePoint from) {
  return std::chrono::duration<double, std::micro>(MonoClock::now() - from).count();
}

}  // namespace

FuseLane::FuseLane(const LaneOptions& options, fuse_session* session, UniqueFd device, ConnectionFactory factory)
    : options_(options),
      session_(session),
      device_(std::move(device)),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      buffers_(options.buffers, options.local_memory),
      connections_(options.index, *this, std::move(factory)) {
  CHECK(epoll_.valid() && event_.valid());
  connections_.on_event_fd = [this](int fd, NodeId node) { watch(fd, node.value()); };
  watch(event_.get(), kEventTag);
}

FuseLane::~FuseLane() {
  stop();
  join();
}

FuseLane& FuseLane::current() {
  CHECK(current_lane != nullptr);
  return *current_lane;
}

long FuseLane::write_reply(int fd, iovec* parts, int count, void*) {
  if (current_lane != nullptr && std::exchange(current_lane->offers_kill_priv_, false) && count == 2 &&
      parts[1].iov_len >= offsetof(fuse_init_out, flags) + sizeof(std::uint32_t)) {
    auto* const flags = static_cast<std::byte*>(parts[1].iov_base) + offsetof(fuse_init_out, flags);
    std::uint32_t bits;
    std::memcpy(&bits, flags, sizeof bits);
    bits |= FUSE_HANDLE_KILLPRIV_V2;
    std::memcpy(flags, &bits, sizeof bits);
  }
  return ::writev(current_lane != nullptr ? current_lane->device_.get() : fd, parts, count);
}

void FuseLane::watch(int fd, std::uint64_t tag) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = tag;
  // With many lanes one request must not wake them all; with few, waking all wakes the one on the client's core.
  if (tag == kDeviceTag && options_.lanes > kFewCores) event.events |= EPOLLEXCLUSIVE;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    log::error("lane {}: epoll_ctl: {}", options_.index, std::strerror(errno));
  }
}

void FuseLane::start() {
  // Signals are the main thread's.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void FuseLane::post(std::coroutine_handle<> handle) {
  if (current_lane == this) {
    local_.push_back(handle);
    return;
  }
  {
    MutexLock lock(remote_mutex_);
    remote_.push_back(handle);
    posted_flag_.store(true);
  }
  if (sleeping_.load()) wake();
}

void FuseLane::wake() {
  const std::uint64_t one = 1;
  // EAGAIN means that the counter is full, so the lane is woken anyway.
  [[maybe_unused]] auto written = ::write(event_.get(), &one, sizeof one);
}

void FuseLane::stop_reading() {
  stop_reading_.store(true);
  wake();
}

void FuseLane::stop() {
  stop_.store(true);
  wake();
}

bool FuseLane::run_posted() {
  running_.swap(local_);
  if (posted_flag_.load(std::memory_order_acquire)) {
    MutexLock lock(remote_mutex_);
    running_.insert(running_.end(), remote_.begin(), remote_.end());
    remote_.clear();
    posted_flag_.store(false);
  }
  if (running_.empty()) return false;
  for (std::size_t i = 0; i < running_.size(); ++i) running_[i].resume();
  running_.clear();
  return true;
}

FuseLane::Serve FuseLane::serve() {
  if (ended_) return Serve::kNothing;
  BufferRef buffer = buffers_.take();
  if (!buffer) return Serve::kStalled;
  active_.store(buffers_.in_use());  // before stop_reading_ is looked at: drain() must not miss this request
  if (stop_reading_.load()) return Serve::kNothing;
  const std::span<std::byte> room = buffer.request();
  const ssize_t got = ::read(device_.get(), room.data(), room.size());
  if (got < 0) {
    switch (errno) {
      case EAGAIN:
        return Serve::kNothing;
      case EINTR:
      case ENOENT:
        return Serve::kServed;  // the request was withdrawn while it was read
      case ENODEV:
        break;
      default:
        log::error("lane {}: reading /dev/fuse: {}", options_.index, std::strerror(errno));
    }
    ended_ = true;
    if (device_watched_) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, device_.get(), nullptr);
    device_watched_ = false;
    if (on_ended) on_ended();
    return Serve::kNothing;
  }
  if (static_cast<std::size_t>(got) < sizeof(fuse_in_header)) return Serve::kServed;
  fuse_in_header header;
  std::memcpy(&header, room.data(), sizeof header);
  request_number_ = header.unique;
  connections_.counters.add(Counter::kRequests);
  temporary_file_request_ = header.opcode == FUSE_TMPFILE;
  if (temporary_file_request_) {
    header.opcode = FUSE_CREATE;
    std::memcpy(room.data(), &header, sizeof header);
  }
  if (header.opcode == FUSE_INIT && static_cast<std::size_t>(got) >= sizeof header + 16) {
    fuse_init_in init{};
    std::memcpy(&init, room.data() + sizeof header, 16);  // what every version has
    offers_kill_priv_ = (init.flags & FUSE_HANDLE_KILLPRIV_V2) != 0;
  }
  fuse_buf request{};
  request.size = static_cast<std::size_t>(got);
  request.mem = room.data();
  buffer_ = std::move(buffer);
  fuse_session_process_buf(session_, &request);
  buffer_.reset();
  if (!announced_ && on_request) announced_ = on_request();
  return Serve::kServed;
}

bool FuseLane::spin() {
  const bool remote = connections_.outstanding() > 0;
  double bound = 0;
  switch (options_.poll) {
    case PollMode::kOff:
      return false;
    case PollMode::kFixed:
      bound = options_.spin_us;
      break;
    case PollMode::kAdaptive:
      if (remote) {
        bound = wait_us_ <= kLongestSpinUs ? std::min(2 * wait_us_ + 5, kLongestSpinUs) : 0;
      } else {
        bound = options_.cores > kFewCores ? 20 : 0;
      }
  }
  if (bound <= 0) return false;
  connections_.counters.add(Counter::kSpins);
  const TimePoint began = MonoClock::now();
  do {
    if (remote && connections_.poll()) {
      connections_.counters.add(Counter::kSpinHits);
      return true;
    }
    if (posted_flag_.load(std::memory_order_acquire) || !local_.empty()) return true;
    const Serve served = serve();
    if (served == Serve::kServed) {
      connections_.counters.add(Counter::kSpinHits);
      return true;
    }
    __builtin_ia32_pause();
  } while (microseconds_since(began) < bound && !stop_.load(std::memory_order_relaxed));
  return false;
}

void FuseLane::sleep(bool stalled) {
  const bool watch_device = !ended_ && !stalled && !stop_reading_.load(std::memory_order_relaxed);
  if (watch_device != device_watched_) {
    if (watch_device)
      watch(device_.get(), kDeviceTag);
    else
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, device_.get(), nullptr);
    device_watched_ = watch_device;
  }
  sleeping_.store(true);
  if (!posted_flag_.load() && !stop_.load()) {
    connections_.counters.add(Counter::kSleeps);
    std::array<epoll_event, 16> events;
    const int count =
        ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                     connections_.outstanding() > 0 || has_timers() ? static_cast<int>(kTimerTick.count()) : -1);
    sleeping_.store(false);
    for (int i = 0; i < count; ++i) {
      const std::uint64_t tag = events[static_cast<std::size_t>(i)].data.u64;
      if (tag == kEventTag) {
        std::uint64_t value;
        [[maybe_unused]] auto got = ::read(event_.get(), &value, sizeof value);
      } else if (tag != kDeviceTag) {
        connections_.poll(NodeId(static_cast<std::uint32_t>(tag)));
      }
    }
  }
  sleeping_.store(false);
}

void FuseLane::run() {
  current_lane = this;
  set_current(this);
  pthread_setname_np(pthread_self(), ("lane" + std::to_string(options_.index)).c_str());
  if (options_.cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(options_.cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  }
  while (!stop_.load(std::memory_order_relaxed)) {
    bool busy = run_posted();
    Serve last = Serve::kServed;
    for (int i = 0; i < kBurst && last == Serve::kServed; ++i) last = serve();
    active_.store(buffers_.in_use(), std::memory_order_release);
    connections_.submit();
    if (connections_.outstanding() > 0) {
      if (waiting_since_ == TimePoint{}) waiting_since_ = MonoClock::now();
      if (connections_.poll()) {
        busy = true;
        wait_us_ += (std::min(microseconds_since(waiting_since_), 10000.0) - wait_us_) / 8;
        waiting_since_ = TimePoint{};
        connections_.submit();
      }
    } else {
      waiting_since_ = TimePoint{};
    }
    if (has_timers()) run_timers(MonoClock::now());
    if (last == Serve::kServed || !local_.empty() || busy) continue;
    if (spin()) {
      active_.store(buffers_.in_use(), std::memory_order_release);
      connections_.submit();
      continue;
    }
    active_.store(buffers_.in_use(), std::memory_order_release);
    sleep(last == Serve::kStalled);
  }
  set_current(nullptr);
  current_lane = nullptr;
}

}  // namespace rmemfs
