// nullfs: mounts NullFiles on rmemfs's own lanes, with its adapter and its options: what rmemfs would be if everything
// below FUSE cost nothing. The same requests arrive as at an rmemfs mount, and rmemctl counts them (`rmemctl stats
// DIR`).
//
// usage: nullfs [-l LANES] [-c COPY_MIB] DIR MOUNTPOINT
//   DIR    gets the socket that rmemctl asks
//   -l     lanes (default: one per core)
//   -c     copy data to and from so much memory (default: none)
// Stays in the foreground; ends when it is unmounted, or unmounts itself on SIGTERM and SIGINT.
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/null_files.h"
#include "control/admin.h"
#include "fs/fuse_mount.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kDrainMs = 5000;

// No memory node is ever asked for.
Result<std::unique_ptr<Connection>> no_connection(NodeId, std::uint32_t) {
  return Error(Errc::kNotFound, "connection");
}

Result<void> serve(const std::string& directory, const FuseMountOptions& options, std::size_t copy_bytes) {
  // Before the first thread, so that every thread leaves the signals to this one.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  const UniqueFd signals(::signalfd(-1, &set, SFD_CLOEXEC));
  const UniqueFd ended(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  CHECK(signals.valid() && ended.valid());

  NullFiles files(copy_bytes);
  FuseMount mount(options, no_connection);
  mount.on_ended = [&ended] {
    const std::uint64_t one = 1;
    [[maybe_unused]] auto written = ::write(ended.get(), &one, sizeof one);
  };
  RETURN_IF_ERROR(mount.mount(files));

  AdminHandlers handlers;
  handlers.remount = [](unsigned long) -> Result<void> { return Error(Errc::kNotSupported, "remount"); };
  handlers.status = [&] {
    AdminStatus status;
    status.directory = directory;
    status.mountpoint = options.mountpoint;
    status.version = RMEMFS_VERSION;
    status.state = "serving";
    status.survives = "nothing is kept";
    status.pid = static_cast<std::uint64_t>(::getpid());
    status.lanes = mount.lane_count();
    return status;
  };
  handlers.counters = [&] {
    AdminCounters counters;
    for (std::size_t i = 0; i < kCounterCount; ++i) {
      counters.emplace_back(kCounterNames[i], static_cast<double>(mount.counter(static_cast<Counter>(i))));
    }
    return counters;
  };
  handlers.nodes = [] { return std::vector<AdminNode>(); };
  handlers.lost_files = [] { return std::vector<std::string>(); };
  ASSIGN_OR_RETURN(auto admin, AdminServer::start(directory, std::move(handlers)));
  mount.serve();

  pollfd fds[] = {{signals.get(), POLLIN, 0}, {ended.get(), POLLIN, 0}};
  while (::poll(fds, 2, -1) < 0) {}
  mount.unmount();
  // A detached mount lives on while files are open there.
  ::poll(&fds[1], 1, kDrainMs);
  admin.reset();
  mount.drain(deadline_after_ms(kDrainMs));
  return success();
}

int usage() {
  std::fprintf(stderr, "usage: nullfs [-l LANES] [-c COPY_MIB] DIR MOUNTPOINT\n");
  return 2;
}

int main_of(int argc, char** argv) {
  FuseMountOptions options;
  std::size_t copy_bytes = 0;
  for (int letter; (letter = ::getopt(argc, argv, "l:c:")) != -1;) {
    const unsigned long value = letter != '?' ? std::strtoul(optarg, nullptr, 10) : 0;
    if (value == 0) return usage();
    if (letter == 'l')
      options.lanes = static_cast<unsigned>(value);
    else
      copy_bytes = value << 20;
  }
  if (argc - optind != 2) return usage();
  options.source = argv[optind];
  options.mountpoint = argv[optind + 1];
  options.flags = MS_NOSUID | MS_NODEV;
  options.allow_other = ::geteuid() == 0;
  auto result = log_setup("nullfs", LogTarget::kStderr, false, "");
  if (result.ok()) result = serve(argv[optind], options, copy_bytes);
  if (result.ok()) return 0;
  std::fprintf(stderr, "nullfs: %s\n", result.error().message().c_str());
  return 1;
}

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) { return rmemfs::main_of(argc, argv); }
