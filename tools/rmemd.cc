// rmemd: a memory node. Parses, opens the pool, wires the targets, the control plane and the listener, and waits for a
// signal. Everything that must outlive the process is in the pool.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "control/node_client.h"
#include "control/node_server.h"
#include "memnode/listener.h"
#include "memnode/memory_node.h"
#include "memnode/pool.h"
#include "tools/cli.h"
#include "transport/target.h"
#include "transport/verbs_target.h"
#include "util/log.h"
#include "util/oom_score.h"
#include "util/service_manager.h"
#include "util/unique_fd.h"

namespace rmemfs {
namespace {

constexpr const char* kProgram = "rmemd";
constexpr std::string_view kPmemPrefix = "pmem:";

struct Arguments {
  std::uint64_t size = 0;
  std::string pool, log, pid_file;  // log: empty for standard error, or the journal where that is its end
  std::vector<std::string> listen;
  std::string socket_mode = "0600";
  Hugepages hugepages = Hugepages::kAuto;
  unsigned threads = 2;
  std::uint32_t poll_us = 0;
  int ready_fd = -1;
  bool insecure = false, daemonize = false, debug = false;
};

Hugepages parse_hugepages(const std::string& text) {
  static const std::map<std::string, Hugepages> kNames{
      {"auto", Hugepages::kAuto}, {"off", Hugepages::kOff}, {"2M", Hugepages::k2M}, {"1G", Hugepages::k1G}};
  const auto found = kNames.find(text);
  if (found == kNames.end()) throw CLI::ValidationError("--hugepages", "\"" + text + "\" is not auto, off, 2M or 1G");
  return found->second;
}

std::optional<int> parse(int argc, char** argv, Arguments& arguments) {
  CLI::App app("Lends a part of this machine's memory to rmemfs file systems");
  cli::prepare(app, kProgram);
  cli::add_size(app, "--size", arguments.size, "Memory to lend; may be left out for a pool that exists");
  app.add_option("--pool", arguments.pool,
                 "Keep the memory in this file (in /dev/shm or on hugetlbfs) and find it again after a restart; "
                 "pmem:PATH for persistent memory. Without it the memory ends with the process")
      ->type_name("PATH");
  app.add_option(
         "--listen", arguments.listen,
         "Where to serve: unix:PATH, tcp://HOST:PORT or rdma://HOST:PORT (RDMA, and TCP at the same address for "
         "what RDMA does not carry); may be repeated [unix:/run/rmemd.sock]")
      ->type_name("ADDRESS")
      ->take_all()
      ->allow_extra_args(false);
  app.add_flag("--insecure", arguments.insecure, "Allow addresses that other machines can reach, unencrypted");
  app.add_option("--socket-mode", arguments.socket_mode, "Permissions of unix sockets, in octal")
      ->type_name("MODE")
      ->capture_default_str()
      ->check([](const std::string& text) {
        const bool octal = !text.empty() && text.size() <= 4 && text.find_first_not_of("01234567") == std::string::npos;
        return octal && std::stoul(text, nullptr, 8) <= 0777 ? "" : "\"" + text + "\" is not an octal mode up to 0777";
      });
  app.add_option_function<std::string>(
         "--hugepages", [&arguments](const std::string& text) { arguments.hugepages = parse_hugepages(text); },
         "Huge pages for memory without --pool: auto (where there are enough), off, 2M or 1G")
      ->type_name("WHICH")
      ->default_str("auto");
  app.add_option("--threads", arguments.threads, "Threads that serve data over TCP")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--poll", arguments.poll_us, "Microseconds to look for work before sleeping")
      ->type_name("US")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app.add_flag("--daemonize", arguments.daemonize, "Go to the background once it serves");
  app.add_option("--pid-file", arguments.pid_file, "Write the process id here once it serves")->type_name("PATH");
  app.add_option("--ready-fd", arguments.ready_fd, "Write a line to this descriptor once it serves, then close it")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--log", arguments.log, "stderr, syslog, journal or a file's path")->type_name("WHERE");
  app.add_flag("--debug", arguments.debug, "Log more");
  if (const std::optional<int> status = cli::parse(app, argc, argv)) return status;
  if (arguments.listen.empty()) arguments.listen.push_back("unix:/run/rmemd.sock");
  if (arguments.daemonize && app.count("--log") == 0) arguments.log = "syslog";
  return std::nullopt;
}

// A daemon changes its directory, so every path is made absolute first.
std::string absolute(const std::string& path) {
  std::error_code error;
  const std::filesystem::path full = std::filesystem::absolute(path, error);
  return error ? path : full.string();
}

void make_absolute(Arguments& arguments) {
  if (arguments.pool.starts_with(kPmemPrefix)) {
    arguments.pool = std::string(kPmemPrefix) + absolute(arguments.pool.substr(kPmemPrefix.size()));
  } else if (!arguments.pool.empty()) {
    arguments.pool = absolute(arguments.pool);
  }
  for (std::string& address : arguments.listen) {
    if (address.starts_with("unix:") && address.size() > 5) address = "unix:" + absolute(address.substr(5));
  }
  if (!arguments.pid_file.empty()) arguments.pid_file = absolute(arguments.pid_file);
  if (!arguments.log.empty() && arguments.log != "stderr" && arguments.log != "syslog" && arguments.log != "journal") {
    arguments.log = absolute(arguments.log);
  }
}

// The pool's and the listener's errors say everything in their detail; others need the code's sentence.
int fail(const Error& error) {
  const std::string_view where = error.where;
  if (!error.detail.empty() && (where == "pool" || where == "listen" || where == "pool size")) {
    cli::print_error(kProgram, std::string(where) + ": " + error.detail);
    return cli::kFailure;
  }
  return cli::fail(kProgram, error);
}

Result<void> set_up_log(const Arguments& arguments) {
  if (arguments.log.empty()) {
    // Lines on standard error would all have one priority in the journal.
    if (stderr_is_journal() && log_setup(kProgram, LogTarget::kJournal, arguments.debug).ok()) return success();
    return log_setup(kProgram, LogTarget::kStderr, arguments.debug);
  }
  if (arguments.log == "stderr") return log_setup(kProgram, LogTarget::kStderr, arguments.debug);
  if (arguments.log == "journal") return log_setup(kProgram, LogTarget::kJournal, arguments.debug);
  if (arguments.log == "syslog") return log_setup(kProgram, LogTarget::kSyslog, arguments.debug);
  return log_setup(kProgram, LogTarget::kFile, arguments.debug, arguments.log);
}

// A thousand agents are a thousand descriptors.
void raise_descriptor_limit() {
  rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) log::warn("the limit on open files stays: {}", std::strerror(errno));
}

// The parent waits for the child's word that it serves, or for its end, whose status it passes on.
std::optional<int> go_to_background(UniqueFd& ready) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return cli::fail(kProgram, Error(errc_from_errno(errno), "pipe"));
  UniqueFd read_end(ends[0]);
  ready.reset(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return cli::fail(kProgram, Error(errc_from_errno(errno), "fork"));
  if (child > 0) {
    ready.reset();
    char byte = 0;
    ssize_t got;
    while ((got = ::read(read_end.get(), &byte, 1)) < 0 && errno == EINTR) continue;
    if (got == 1) return 0;
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    return WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : cli::kFailure;
  }
  ::setsid();
  if (::chdir("/") != 0) return cli::fail(kProgram, Error(errc_from_errno(errno), "chdir"));
  return std::nullopt;
}

void leave_terminal(const UniqueFd& ready) {
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (null.valid()) {
    for (int fd = 0; fd <= 2; ++fd) ::dup2(null.get(), fd);
  }
  const char byte = 1;
  if (::write(ready.get(), &byte, 1) != 1) log::warn("nobody waits for this daemon's start");
}

Result<void> write_pid_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  const std::string line = std::to_string(::getpid()) + "\n";
  if (!fd.valid() || ::write(fd.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    return Error(errc_from_errno(errno), "pid file", path);
  }
  return success();
}

std::string ready_line(const Pool& pool, const Arguments& arguments, const Listener& listener) {
  std::string line = std::string(kProgram) + ": lending " + cli::format_size(pool.data_bytes()) + " on ";
  const char* separator = "";
  for (const std::string& address : listener.addresses()) {
    line += separator + address;
    separator = ", ";
  }
  line += ", pool " + (arguments.pool.empty() ? "anonymous" : arguments.pool) +
          (pool.adopted() ? " re-adopted" : " new") + ", generation " + std::to_string(pool.generation().value()) +
          ", " + std::to_string(pool.region_count()) + (pool.region_count() == 1 ? " region" : " regions");
  return line;
}

void tell_ready(int fd, const std::string& line) {
  const std::string text = line + "\n";
  if (::write(fd, text.data(), text.size()) < 0)
    log::warn("the ready line could not be written: {}", std::strerror(errno));
}

// Binds the rdma:// addresses among `listen`, and gives them their real ports: TCP listens at the same ones.
Result<void> listen_for_rdma(MemoryNode& node, std::vector<std::string>& listen, std::unique_ptr<VerbsTarget>& verbs) {
  std::vector<NodeAddress> addresses;
  std::vector<std::string*> texts;
  for (std::string& text : listen) {
    if (!text.starts_with("rdma://")) continue;
    // The address form of a node has no port 0, which here means any.
    const bool any = text.ends_with(":0");
    auto address = NodeAddress::parse(any ? text.substr(0, text.size() - 1) + "1" : text);
    if (!address.ok()) return Error(Errc::kInvalid, "listen", address.error().detail);
    if (any) address->port = 0;
    addresses.push_back(std::move(*address));
    texts.push_back(&text);
  }
  if (addresses.empty()) return success();
  ASSIGN_OR_RETURN(verbs, VerbsTarget::make(node, Target::Options{}, addresses));
  for (std::size_t i = 0; i < texts.size(); ++i) *texts[i] = verbs->addresses()[i].to_string();
  return success();
}

// The watchdog is told while this node answers its own control plane.
void watch(const ServiceManager& service, const std::string& address, std::uint32_t within_ms) {
  const auto client = NodeClient::make(address);
  const auto answer = client.ok() ? (*client)->describe(within_ms) : Result<NodeDescription>(client.error());
  if (answer.ok()) return service.notify("WATCHDOG=1");
  log::error("this node does not answer itself: {}", answer.error().message());
}

// The signal that ends this process. SIGHUP does not: it opens the log again.
int wait_for_end(const sigset_t& signals, const ServiceManager& service, const std::string& address) {
  const std::uint32_t period_ms = service.watchdog_ms().value_or(3'600'000);
  const timespec period{period_ms / 1000, static_cast<long>(period_ms % 1000) * 1'000'000};
  if (service.watchdog_ms()) watch(service, address, period_ms / 2);
  for (;;) {
    const int signal = ::sigtimedwait(&signals, nullptr, &period);
    if (signal == SIGHUP) {
      if (log_reopen()) log::info("signal {}: the log goes on here", signal);
    } else if (signal > 0) {
      return signal;
    } else if (errno == EAGAIN && service.watchdog_ms()) {
      watch(service, address, period_ms / 2);
    }
  }
}

int serve(const Arguments& arguments, const sigset_t& signals, const UniqueFd& background,
          const ServiceManager& service) {
  PoolOptions pool_options;
  pool_options.persistent = arguments.pool.starts_with(kPmemPrefix);
  pool_options.path = pool_options.persistent ? arguments.pool.substr(kPmemPrefix.size()) : arguments.pool;
  const char* const force = std::getenv("PMEM_IS_PMEM_FORCE");  // libpmem's own, for those who have no such memory
  pool_options.forced = force != nullptr && std::string_view(force) == "1";
  pool_options.data_bytes = arguments.size;
  pool_options.hugepages = arguments.hugepages;
  if (pool_options.persistent && pool_options.path.empty()) {
    cli::print_error(kProgram, "--pool pmem: names no file");
    return cli::kUsage;
  }
  Result<std::unique_ptr<Pool>> pool = Pool::open(pool_options);
  if (!pool.ok()) {
    if (pool.error().code == Errc::kInvalid && arguments.size == 0) {
      cli::print_error(kProgram, "pool: " + pool.error().detail + "; give --size");
      return cli::kUsage;
    }
    return fail(pool.error());
  }
  MemoryNode node(**pool);
  Target::Options target_options;
  target_options.threads = arguments.threads;
  target_options.spin_us = arguments.poll_us;
  Result<std::unique_ptr<Target>> tcp = Target::make_tcp(node, target_options);
  if (!tcp.ok()) return fail(tcp.error());
  target_options.threads = 1;  // over shm a target only hands out the mapping
  target_options.spin_us = 0;
  Result<std::unique_ptr<Target>> shm = Target::make_shm(node, target_options);
  if (!shm.ok()) return fail(shm.error());
  std::unique_ptr<VerbsTarget> verbs;
  std::vector<std::string> listen = arguments.listen;
  if (const Result<void> bound = listen_for_rdma(node, listen, verbs); !bound.ok()) return fail(bound.error());
  std::vector<Target*> targets{tcp->get(), shm->get()};
  if (verbs != nullptr) targets.push_back(verbs.get());
  node.set_targets(targets);
  Result<std::unique_ptr<NodeServer>> control = NodeServer::start(node);
  if (!control.ok()) return fail(control.error());

  Listener::Options listener_options;
  listener_options.addresses = listen;
  listener_options.insecure = arguments.insecure;
  listener_options.socket_mode = static_cast<std::uint32_t>(std::stoul(arguments.socket_mode, nullptr, 8));
  Result<std::unique_ptr<Listener>> listener =
      Listener::start(listener_options, {tcp->get(), shm->get(), control->get()});
  if (!listener.ok()) return fail(listener.error());
  if (verbs != nullptr) verbs->start();
  if (!arguments.pid_file.empty()) {
    if (const Result<void> written = write_pid_file(arguments.pid_file); !written.ok()) return fail(written.error());
  }

  const std::string line = ready_line(**pool, arguments, **listener);
  tell_ready(STDOUT_FILENO, line);
  if (arguments.ready_fd >= 0) {
    tell_ready(arguments.ready_fd, line);
    ::close(arguments.ready_fd);
  }
  if (arguments.daemonize) {
    log::info("{}", line.substr(std::strlen(kProgram) + 2));
    leave_terminal(background);
  }

  service.notify("READY=1\nMAINPID=" + std::to_string(::getpid()) +
                 "\nSTATUS=" + line.substr(std::strlen(kProgram) + 2));
  const int signal = wait_for_end(signals, service, (*listener)->addresses().front());
  service.notify("STOPPING=1");
  log::info("ends on signal {}{}", signal, arguments.pool.empty() ? "" : "; the pool stays");
  if (!arguments.pid_file.empty()) ::unlink(arguments.pid_file.c_str());
  return 0;
}

int main_of(int argc, char** argv) {
  Arguments arguments;
  if (const std::optional<int> status = parse(argc, argv, arguments)) return *status;
  make_absolute(arguments);
  UniqueFd background;
  if (arguments.daemonize) {
    if (const std::optional<int> status = go_to_background(background)) return *status;
  }
  if (const Result<void> log_ready = set_up_log(arguments); !log_ready.ok()) return fail(log_ready.error());
  raise_descriptor_limit();
  protect_from_oom();
  const ServiceManager service = ServiceManager::from_environment();
  // Blocked before the first thread starts, so that only sigwait() gets them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  // A terminal that is gone ends what ran on it; a daemon's SIGHUP is for its log.
  if (::isatty(STDERR_FILENO) == 0 || arguments.daemonize) sigaddset(&signals, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return serve(arguments, signals, background, service);
}

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) { return rmemfs::main_of(argc, argv); }
