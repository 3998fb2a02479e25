#include "fs/fuse_mount.h"

#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>
#include <utility>

#include "util/log.h"

namespace rmemfs {
namespace {

std::vector<int> usable_cores() {
  cpu_set_t set;
  std::vector<int> cores;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cores.push_back(cpu);
    }
  }
  if (cores.empty()) cores.push_back(0);
  return cores;
}

// In libfuse's option strings a comma and a backslash stand for themselves behind a backslash.
std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == ',' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

constexpr const char* kFuseType = "fuse.rmemfs";

// What libfuse and fusermount3 know of mount(2)'s flags.
constexpr std::pair<unsigned long, const char*> kUserOptions[] = {{MS_RDONLY, "ro"},
                                                                  {MS_NOEXEC, "noexec"},
                                                                  {MS_SYNCHRONOUS, "sync"},
                                                                  {MS_DIRSYNC, "dirsync"},
                                                                  {MS_NOATIME, "noatime"}};

const char* no_context() {
  if (::access("/sys/fs/selinux", F_OK) != 0) return "it has no SELinux, or it is disabled";
  return "this is not a context of its SELinux policy, or not one for a mount";
}

// As ResumeOn, from a thread that is no executor's.
struct PostTo {
  Executor& executor;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) const { executor.post(handle); }
  void await_resume() const noexcept {}
};

long unused_read(int fd, void* buffer, std::size_t size, void*) { return ::read(fd, buffer, size); }

}  // namespace

FuseMount::FuseMount(const FuseMountOptions& options, ConnectionFactory factory)
    : options_(options), factory_(std::move(factory)) {}

FuseMount::~FuseMount() {
  lanes_.clear();
  unmount();
  if (session_ != nullptr) fuse_session_destroy(session_);
}

Result<UniqueFd> FuseMount::clone_device() const {
  UniqueFd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!device.valid()) return Error(errc_from_errno(errno), "open", "/dev/fuse");
  std::uint32_t session = static_cast<std::uint32_t>(fuse_session_fd(session_));
  if (::ioctl(device.get(), FUSE_DEV_IOC_CLONE, &session) != 0) {
    return Error(errc_from_errno(errno), "clone", "/dev/fuse");
  }
  return device;
}

Result<UniqueFd> FuseMount::attach() const {
  struct stat root;
  if (::stat(options_.mountpoint.c_str(), &root) != 0) {
    return Error(errc_from_errno(errno), "mount point", options_.mountpoint);
  }
  UniqueFd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!device.valid()) return Error(errc_from_errno(errno), "open", "/dev/fuse");
  char rootmode[16];
  std::snprintf(rootmode, sizeof rootmode, "%o", root.st_mode & S_IFMT);
  std::string data = "fd=" + std::to_string(device.get()) + ",rootmode=" + rootmode +
                     ",user_id=" + std::to_string(::getuid()) + ",group_id=" + std::to_string(::getgid()) +
                     ",default_permissions";
  if (options_.allow_other) data += ",allow_other";
  for (const std::string& context : options_.contexts) data += "," + context;
  if (::mount(options_.source.c_str(), options_.mountpoint.c_str(), kFuseType, options_.flags, data.c_str()) == 0) {
    return device;
  }
  const int error = errno;
  if (error == EINVAL && !options_.contexts.empty()) {
    return Error(Errc::kInvalid, "", "the kernel refuses " + options_.contexts.front() + ": " + no_context());
  }
  return Error(errc_from_errno(error), "mount", options_.mountpoint + ": " + std::strerror(error));
}

Result<std::string> FuseMount::options_for_user() const {
  std::string text = "default_permissions,subtype=rmemfs,fsname=" + escaped(options_.source);
  unsigned long left = options_.flags & ~(MS_NOSUID | MS_NODEV | MS_RELATIME);  // which are so in any case
  for (const auto& [flag, word] : kUserOptions) {
    if ((left & flag) != 0) text += std::string(",") + word;
    left &= ~flag;
  }
  if (options_.allow_other) text += ",allow_other";
  if (left != 0 || !options_.contexts.empty()) {
    return Error(Errc::kNotPermitted, "mount",
                 "strictatime, nodiratime, lazytime and SELinux contexts are for root: fusermount3 does not take them");
  }
  return text;
}

Result<void> FuseMount::mount(FileOperations& files) {
  files_ = &files;
  adapter_ = std::make_unique<FuseAdapter>(files, options_.adapter);
  std::string program = "rmemfs", flag = "-o", options, place = options_.mountpoint;
  auto connection = attach();
  if (connection.ok()) {
    mounted_ = true;
    place = "/dev/fd/" + std::to_string(connection->get());  // libfuse serves what is attached already
  } else if (connection.error().code == Errc::kNotPermitted || connection.error().code == Errc::kAccess) {
    ASSIGN_OR_RETURN(options, options_for_user());
    by_user_ = true;
  } else {
    return connection.error();
  }
  char* argv[] = {program.data(), flag.data(), options.data(), nullptr};
  fuse_args args = FUSE_ARGS_INIT(by_user_ ? 3 : 1, argv);
  const fuse_lowlevel_ops& operations = FuseAdapter::operations();
  session_ = fuse_session_new(&args, &operations, sizeof operations, adapter_.get());
  fuse_opt_free_args(&args);
  if (session_ == nullptr) return Error(Errc::kInvalid, "mount options", options);
  if (fuse_session_mount(session_, place.c_str()) != 0) {
    return Error(Errc::kNotPermitted, "mount", options_.mountpoint);
  }
  if (connection.ok()) connection->release();  // the session's
  mounted_ = true;

  static const fuse_custom_io io = {
      .writev = &FuseLane::write_reply, .read = &unused_read, .splice_receive = nullptr, .splice_send = nullptr};
  const int session_fd = fuse_session_fd(session_);
  if (fuse_session_custom_io(session_, &io, session_fd) != 0) {
    return Error(Errc::kNotSupported, "mount", "libfuse's custom I/O");
  }

  const std::vector<int> cores = usable_cores();
  std::size_t wanted = options_.lanes != 0 ? options_.lanes : cores.size();
  for (std::size_t i = 0; i < wanted; ++i) {
    auto device = clone_device();
    if (!device.ok()) {
      if (i > 0) break;
      // An ordinary user usually cannot open /dev/fuse; fusermount3 opened the one descriptor there is.
      log::info("one lane only: {}", device.error().message());
      const int copy = ::fcntl(session_fd, F_DUPFD_CLOEXEC, 0);
      if (copy < 0) return Error(errc_from_errno(errno), "mount", "duplicating the FUSE descriptor");
      ::fcntl(copy, F_SETFL, ::fcntl(copy, F_GETFL) | O_NONBLOCK);
      device = UniqueFd(copy);
      wanted = 1;
    }
    LaneOptions lane;
    lane.index = static_cast<std::uint32_t>(i);
    lane.lanes = static_cast<std::uint32_t>(wanted);
    lane.cpu = wanted > 1 ? cores[i % cores.size()] : -1;
    lane.cores = static_cast<unsigned>(cores.size());
    lane.poll = options_.poll;
    lane.spin_us = options_.spin_us;
    lane.local_memory = options_.local_memory;
    lanes_.push_back(std::make_unique<FuseLane>(lane, session_, std::move(*device), factory_));
  }
  lane_count_ = lanes_.size();
  return {};
}

void FuseMount::serve() {
  for (auto& lane : lanes_) {
    lane->on_ended = on_ended;
    lane->connections().on_first_use = [this](const Chunk& chunk) { prepare_lanes(chunk); };
  }
  // The first lane reads INIT alone; the others start once it is answered.
  lanes_.front()->on_request = [this] {
    if (!adapter_->initialized) return false;
    for (std::size_t i = 1; i < lanes_.size(); ++i) lanes_[i]->start();
    if (on_serving) on_serving();
    return true;
  };
  lanes_.front()->start();
}

void FuseMount::unmount() {
  if (!std::exchange(mounted_, false)) return;
  if (by_user_) {
    fuse_session_unmount(session_);
    return;
  }
  // Somebody else may have unmounted it, and mounted another one there.
  pollfd connection{session_ != nullptr ? fuse_session_fd(session_) : -1, 0, 0};
  if (::poll(&connection, 1, 0) == 1 && (connection.revents & POLLERR) != 0) return;
  if (::umount2(options_.mountpoint.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
    log::warn("{} could not be unmounted: {}", options_.mountpoint, std::strerror(errno));
  }
}

bool FuseMount::lanes_run(std::uint32_t within_ms) {
  const auto waited_for = std::make_shared<std::atomic<std::size_t>>(lanes_.size());
  for (const auto& lane : lanes_) {
    [](FuseLane& there, std::shared_ptr<std::atomic<std::size_t>> left) -> Detached {
      co_await PostTo{there};
      left->fetch_sub(1);
    }(*lane, waited_for);
  }
  const TimePoint deadline = deadline_after_ms(within_ms);
  while (waited_for->load() > 0 && MonoClock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return waited_for->load() == 0;
}

void FuseMount::prepare_lanes(const Chunk& chunk) {
  for (const auto& lane : lanes_) {
    // A chunk stays where it is for the mount's life.
    [](FuseLane& there, const Chunk& used) -> Detached {
      co_await ResumeOn{there};
      there.connections().prepare(used);
    }(*lane, chunk);
  }
}

bool FuseMount::drain(TimePoint deadline) {
  for (auto& lane : lanes_) lane->stop_reading();
  const auto busy = [&] {
    std::size_t active = files_ != nullptr ? files_->purging() : 0;
    for (const auto& lane : lanes_) active += lane->active();
    return active > 0;
  };
  while (busy() && MonoClock::now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const bool done = !busy();
  for (auto& lane : lanes_) lane->stop();
  for (auto& lane : lanes_) lane->join();
  return done;
}

ConnectionSet* FuseMount::connections(std::uint32_t lane) {
  return lane < lanes_.size() ? &lanes_[lane]->connections() : nullptr;
}

std::uint64_t FuseMount::counter(Counter counter) const {
  std::uint64_t sum = 0;
  for (const auto& lane : lanes_) sum += lane->connections().counters.get(counter);
  return sum;
}

}  // namespace rmemfs
