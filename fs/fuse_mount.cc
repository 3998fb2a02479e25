#include "fs/fuse_mount.h"

#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

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

long unused_read(int fd, void* buffer, std::size_t size, void*) { return ::read(fd, buffer, size); }

}  // namespace

FuseMount::FuseMount(const FuseMountOptions& options, ConnectionFactory factory)
    : options_(options), factory_(std::move(factory)) {}

FuseMount::~FuseMount() {
  lanes_.clear();
  if (session_ != nullptr) {
    if (mounted_) unmount();
    fuse_session_destroy(session_);
  }
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

Result<void> FuseMount::mount(FileOperations& files) {
  files_ = &files;
  adapter_ = std::make_unique<FuseAdapter>(files, options_.adapter);
  std::string joined = "default_permissions,subtype=rmemfs,fsname=" + escaped(options_.source);
  for (const std::string& option : options_.kernel_options) joined += "," + option;
  std::string program = "rmemfs", flag = "-o";
  char* argv[] = {program.data(), flag.data(), joined.data(), nullptr};
  fuse_args args = FUSE_ARGS_INIT(3, argv);
  const fuse_lowlevel_ops& operations = FuseAdapter::operations();
  session_ = fuse_session_new(&args, &operations, sizeof operations, adapter_.get());
  fuse_opt_free_args(&args);
  if (session_ == nullptr) return Error(Errc::kInvalid, "mount options", joined);
  if (fuse_session_mount(session_, options_.mountpoint.c_str()) != 0) {
    return Error(Errc::kNotPermitted, "mount", options_.mountpoint);
  }
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
  fuse_session_unmount(session_);
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
