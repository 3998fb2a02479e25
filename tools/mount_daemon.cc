#include "tools/mount_daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "control/admin.h"
#include "fs/file_system.h"
#include "fs/fuse_mount.h"
#include "manager/manager.h"
#include "recovery/recover.h"
#include "tools/format_file_system.h"
#include "tools/lost_files.h"
#include "tools/mounts.h"
#include "tools/node_check.h"
#include "tools/survival.h"
#include "transport/local_memory.h"
#include "transport/region_places.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kBusyUnmountMs = 5000;  // how long SIGTERM waits for open files after detaching the mount
constexpr std::uint32_t kNodeCheckMs = 3000;    // how long a node may take to answer before it is called unreachable
constexpr std::uint32_t kMomentMs = 200;        // within which a lock is taken, or given back, and said so
constexpr std::uint32_t kNoticeMs = 2000;       // within which a daemon whose mount is gone has begun to end
constexpr std::uint32_t kLockMarginMs = 5000;   // beside the deadline, for such a daemon's end
constexpr std::size_t kLostFilesLimit = 10000;
constexpr std::string_view kUnmounting = "unmounting ";

// Wakes the main thread from lanes and helper threads.
class Events {
 public:
  Events() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { CHECK(fd_.valid()); }
  void raise(std::atomic<bool>& flag) {
    flag.store(true);
    const std::uint64_t one = 1;
    [[maybe_unused]] auto written = ::write(fd_.get(), &one, sizeof one);
  }
  int fd() const { return fd_.get(); }
  void clear() {
    std::uint64_t value;
    [[maybe_unused]] auto got = ::read(fd_.get(), &value, sizeof value);
  }
  std::atomic<bool> serving{false}, ended{false}, fenced{false};

 private:
  UniqueFd fd_;
};

std::string_view health_name(NodeHealth health) {
  switch (health) {
    case NodeHealth::kUnknown:
      return "unknown";
    case NodeHealth::kAlive:
      return "alive";
    case NodeHealth::kUnreachable:
      return "unreachable";
    case NodeHealth::kRestartedEmpty:
      return "restarted empty";
  }
  return "unknown";
}

std::string_view durability_name(Durability durability) {
  switch (durability) {
    case Durability::kVolatile:
      return "volatile";
    case Durability::kSaved:
      return "saved";
    case Durability::kPersistent:
      return "persistent";
  }
  return "unknown";
}

class MountDaemon {
 public:
  explicit MountDaemon(const MountJob& job) : job_(job) {}

  Result<void> run(const std::function<void()>& on_serving);

 private:
  std::string lock_purpose() const { return "mounted on " + job_.mountpoint + " by rmemfs"; }
  Result<void> lock();
  Result<void> remount(unsigned long flags);
  void begin_end();
  void watch_lanes();
  Result<void> make_local();
  void unmake_local();
  Result<void> open();
  Result<void> mount();
  Result<void> start_admin();
  void wait_for_end(int signals);
  void end();
  AdminStatus status() const;
  AdminCounters counters() const;
  std::vector<AdminNode> nodes() const;

  const MountJob& job_;
  const TimePoint started_ = MonoClock::now();
  Events events_;
  std::string in_memory_;                  // of the metadata; constant once open() is through
  std::optional<LocalNode> local_, made_;  // made_: by this run, with its file system
  std::atomic<bool> announced_{false};     // it serves, or has served
  bool ending_ = false;                    // who asks has been told that it ends
  TimePoint next_watch_ = kNoDeadline;     // when the service manager's watchdog is to be told next
  UniqueFd lock_;
  // In the order of their making; destroyed the other way round.
  std::optional<RecoveredStore> store_;
  std::unique_ptr<BlockingPool> pool_;
  std::unique_ptr<Manager> manager_;
  std::unique_ptr<FileSystem> files_;
  std::unique_ptr<FuseMount> mount_;
  std::unique_ptr<AdminServer> admin_;
};

// A daemon whose mount is gone still closes its journal and lets its memory node end: whoever mounts again right after
// umount(8) waits for that. A directory that is in use is refused at once.
Result<void> MountDaemon::lock() {
  const TimePoint moment = deadline_after_ms(kMomentMs);
  const TimePoint notice = deadline_after_ms(kNoticeMs);
  const TimePoint give_up = deadline_after_ms(job_.options.deadline_ms + kLockMarginMs);
  for (;;) {
    auto lock = lock_directory(job_.directory, LockMode::kExclusive, lock_purpose());
    if (lock.ok()) {
      lock_ = std::move(*lock);
      return {};
    }
    if (lock.error().code != Errc::kLocked) return lock.error();
    const auto holder = lock_holder(job_.directory);
    const bool ends = holder && holder->purpose.starts_with(kUnmounting);
    // Between the end of the mount and the daemon's notice of it.
    const bool unseen = holder && holder->purpose.starts_with("mounted on ") && !mount_of(job_.directory);
    // It may have let go just now.
    if (!holder && MonoClock::now() < moment) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      continue;
    }
    if (!ends && !unseen) return lock.error();
    if (MonoClock::now() >= (ends ? give_up : notice)) {
      lock.error().detail += ends ? ", which has not ended" : ", but not seen here: lazily unmounted, or elsewhere";
      return lock.error();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// Makes the file system of `--local` where there is none yet, with its memory node, which goes on running. Under the
// directory's lock from the beginning: of two first mounts one makes it, and the other is refused.
Result<void> MountDaemon::make_local() {
  FormatOptions format;
  format.directory = job_.directory;
  RETURN_IF_ERROR(check_place(format));  // before anything is made there
  if (::mkdir(job_.directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return Error(errc_from_errno(errno), "metadata directory", job_.directory);
  }
  RETURN_IF_ERROR(lock());
  if (load_superblock(job_.directory).ok()) return {};  // made by another one meanwhile
  RETURN_IF_ERROR(remove_unfinished_node(job_.directory));
  const LocalNode node{job_.directory, new_local_pool(), *job_.local_bytes};
  RETURN_IF_ERROR(note_local_pool(node));
  if (auto started = start_local_node(node); !started.ok()) {
    // The pool may be there, but what DIR/node.log says of the failure stays.
    ::unlink(node.pool.c_str());
    forget_local_pool_note(node);
    return started;
  }
  format.nodes = {kLocalNodeAddress};
  format.local_bytes = node.size_bytes;
  format.local_pool = node.pool;
  format.locked = true;
  auto formatted = format_file_system(format);
  if (!formatted.ok()) {
    stop_local_node(node);
    remove_local_node(node);
    return formatted.error();
  }
  forget_local_pool_note(node);
  made_ = node;
  return {};
}

// What `--local` made for a mount that never served is nobody's: its memory would be taken for nothing.
void MountDaemon::unmake_local() {
  stop_local_node(*made_);
  const auto removed = remove_file_system(job_.directory);
  if (!removed.ok()) return log::error("taking away the new file system: {}", removed.error().message());
  remove_local_node(*made_);
}

Result<void> MountDaemon::open() {
  if (auto found = load_superblock(job_.directory); !found.ok()) {
    if (!job_.local_bytes || found.error().code != Errc::kNotFormatted) return found.error();
    RETURN_IF_ERROR(make_local());
  }
  // The private node belongs to whoever holds the lock: only then is it started, and in the end stopped.
  if (!lock_.valid()) RETURN_IF_ERROR(lock());
  ASSIGN_OR_RETURN(const Superblock superblock, load_superblock(job_.directory));
  if (superblock.local_bytes != 0) {
    LocalNode node{job_.directory, superblock.local_pool, superblock.local_bytes};
    RETURN_IF_ERROR(start_local_node(node));
    local_ = std::move(node);  // only what answers is this mount's to end
  } else if (job_.local_bytes) {
    return Error(Errc::kInvalid, "", job_.directory + " was not made by --local; mount it without");
  }

  const MountOptions& options = job_.options;
  ASSIGN_OR_RETURN(in_memory_, metadata_in_memory(job_.directory, superblock));
  if (options.require_persistent && !in_memory_.empty()) {
    return Error(Errc::kInvalid, "", "require=persistent: " + in_memory_ + ", in this host's memory");
  }
  RETURN_IF_ERROR(
      check_nodes(job_.directory, superblock, options.degraded, std::min(options.deadline_ms, kNodeCheckMs)));
  RecoverOptions recovery;
  ManagerOptions manager;
  if (options.cache_bytes) {
    recovery.metastore.block_cache_bytes = *options.cache_bytes / 2;
    recovery.metastore.write_buffer_bytes = std::max<std::size_t>(*options.cache_bytes / 4, 2u << 20);
    manager.inode_cache_entries = std::max<std::size_t>(*options.cache_bytes / 4 / 512, 1024);
  }
  recovery.journal.mode = options.sync_commit ? CommitMode::kSync : CommitMode::kGroup;
  recovery.journal.commit_interval_ms = options.commit_ms;
  recovery.journal.slot_deadline_ms = options.deadline_ms;
  // Of the local disk, not of a node: a short -o deadline must not make a busy disk's fsync fail, which programs take
  // for lost data; a long one is taken to mean patience with both.
  recovery.journal.persist_deadline_ms = std::max(options.deadline_ms, recovery.journal.persist_deadline_ms);
  ASSIGN_OR_RETURN(RecoveredStore recovered, recover(job_.directory, recovery));
  store_.emplace(std::move(recovered));

  pool_ = std::make_unique<BlockingPool>(4);
  manager.directory = job_.directory;
  manager.deadline_ms = options.deadline_ms;
  manager.sync_commit = options.sync_commit;
  manager.degraded = options.degraded;
  manager.access_times = access_times_of(options.mount_flags());
  ASSIGN_OR_RETURN(manager_, Manager::open(store_->superblock, *store_->metastore, *store_->journal, *pool_, manager));
  manager_->on_fenced = [this] { events_.raise(events_.fenced); };
  if (options.require_persistent && !survives_power_loss(manager_->nodes())) {
    return Error(Errc::kInvalid, "", "require=persistent: a memory node's memory is volatile");
  }
  return {};
}

Result<void> MountDaemon::mount() {
  const MountOptions& options = job_.options;
  FuseMountOptions mount;
  mount.source = job_.directory;
  mount.mountpoint = job_.mountpoint;
  mount.flags = options.mount_flags();
  mount.allow_other = options.allow_other || ::geteuid() == 0;
  mount.contexts = options.contexts;
  mount.lanes = options.lanes;
  mount.poll = options.poll;
  mount.spin_us = options.spin_us;
  mount.adapter.attribute_timeout_s = options.attribute_timeout_s;
  mount.adapter.entry_timeout_s = options.entry_timeout_s;
  mount.adapter.extended = options.extended;
  mount.adapter.access_lists = options.access_lists;

  ConnectOptions connect;
  connect.session.file_system = store_->superblock.uuid;
  connect.session.epoch = store_->superblock.epoch;
  connect.file_system_key = store_->superblock.key;
  connect.connect_timeout_ms = std::min<std::uint32_t>(options.deadline_ms, connect.connect_timeout_ms);
  connect.deadline_ms = options.deadline_ms;
  connect.local_memory = std::make_shared<LocalMemory>();
  connect.region_places = std::make_shared<RegionPlaces>();
  mount.local_memory = connect.local_memory;
  ASSIGN_OR_RETURN(const NodeTransports transports,
                   choose_transports(manager_->nodes(), options.transport, connect, connect.connect_timeout_ms));
  auto factory = [connect, transports](NodeId node, std::uint32_t lane) -> Result<std::unique_ptr<Connection>> {
    ConnectOptions own = connect;
    own.session.lane = lane;
    const auto found = transports.find(node);
    if (found == transports.end()) return Error(Errc::kNotFound, "connection");
    return make_connection(found->second, own);
  };
  mount_ = std::make_unique<FuseMount>(mount, factory);
  FuseMount* const lanes = mount_.get();
  FileSystemOptions files;
  files.deadline_ms = options.deadline_ms;
  files.read_only = options.read_only();
  files.extended = options.extended;
  files.access_lists = options.access_lists;
  files_ =
      std::make_unique<FileSystem>(*manager_, files, [lanes](std::uint32_t lane) { return lanes->connections(lane); });
  return mount_->mount(*files_);
}

Result<void> MountDaemon::start_admin() {
  AdminHandlers handlers;
  handlers.status = [this] { return status(); };
  handlers.counters = [this] { return counters(); };
  handlers.nodes = [this] { return nodes(); };
  handlers.lost_files = [this] { return lost_files(*store_->metastore, kLostFilesLimit, deadline_after_ms(10000)); };
  handlers.remount = [this](unsigned long flags) { return remount(flags); };
  ASSIGN_OR_RETURN(admin_, AdminServer::start(job_.directory, std::move(handlers)));
  return {};
}

Result<void> MountDaemon::remount(unsigned long flags) {
  const bool read_only = (flags & MS_RDONLY) != 0;
  if (!read_only && manager_->is_fenced()) return Error(Errc::kFenced, "remount", job_.directory);
  if (const std::string failure = manager_->store_failure(); !read_only && !failure.empty()) {
    return Error(Errc::kReadOnly, "remount", "the metadata store failed (" + failure + "); unmount and mount again");
  }
  if (files_->read_only() != read_only) {
    log::info("{} is {} now", job_.mountpoint, read_only ? "read-only" : "read and write");
  }
  files_->set_read_only(read_only);
  manager_->set_access_times(access_times_of(flags));
  return {};
}

AdminStatus MountDaemon::status() const {
  AdminStatus out;
  const SpaceStatistics space = manager_->space();
  out.uuid = store_->superblock.uuid.to_string();
  out.directory = job_.directory;
  out.mountpoint = job_.mountpoint;
  out.version = RMEMFS_VERSION;
  const std::string failure = manager_->store_failure();
  out.state = "serving";
  if (manager_->is_fenced()) {
    out.state = "fenced";
    out.reason = "a newer mount has taken over";
  } else if (!failure.empty()) {
    out.state = "read-only";
    out.reason = "the metadata store failed (" + failure + ")";
  } else if (files_->read_only()) {
    out.state = "read-only";
    out.reason = "mounted read-only";
  }
  out.survives = survival(manager_->nodes(), in_memory_);
  out.pid = static_cast<std::uint64_t>(::getpid());
  out.epoch = store_->superblock.epoch.value();
  out.lanes = mount_->lane_count();
  out.total_bytes = space.total_bytes;
  out.free_bytes = space.free_bytes;
  out.inodes = space.inodes;
  out.lost_bytes = space.lost_bytes;
  out.uptime_seconds = std::chrono::duration<double>(MonoClock::now() - started_).count();
  return out;
}

AdminCounters MountDaemon::counters() const {
  AdminCounters out;
  const auto add = [&out](std::string name, std::uint64_t value) {
    out.emplace_back(std::move(name), static_cast<double>(value));
  };
  for (std::size_t i = 0; i < kCounterCount; ++i) {
    add(std::string(kCounterNames[i]), mount_->counter(static_cast<Counter>(i)));
  }
  const JournalStatistics journal = store_->journal->statistics();
  add("journal.transactions", journal.transactions);
  add("journal.drains", journal.drains);
  add("journal.syncs", journal.syncs);
  add("journal.modifications", journal.modifications);
  add("journal.home_writes", journal.home_writes);
  add("journal.home_batches", journal.home_batches);
  add("journal.home_durable", journal.home_durable);
  add("journal.slots_total", journal.slots_total);
  add("journal.slots_free", journal.slots_free);
  add("journal.slots_in_flight", journal.slots_in_flight);
  add("journal.slots_in_flight_max", journal.slots_in_flight_max);
  add("journal.slot_waits", journal.slot_waits);
  add("journal.last_id", journal.last_id.value());
  add("journal.applied_id", journal.applied_id.value());
  add("journal.durable_id", journal.durable_id.value());
  add("journal.persisted_id", journal.persisted_id.value());
  if (journal.home_writes > 0) {
    out.emplace_back("journal.coalescing_ratio",
                     static_cast<double>(journal.modifications) / static_cast<double>(journal.home_writes));
  }
  add("inodes.referenced", files_->referenced_inodes());
  add("inodes.purging", files_->purging());
  add("metastore.overlay_entries", store_->metastore->overlay_entries());
  add("metastore.bytes", store_->metastore->approximate_bytes());
  return out;
}

std::vector<AdminNode> MountDaemon::nodes() const {
  std::vector<AdminNode> out;
  for (const NodeStatus& node : manager_->nodes()) {
    AdminNode one;
    one.id = node.id.value();
    one.address = node.address;
    one.health = health_name(node.health);
    one.durability = durability_name(node.durability.durability);
    one.pool_bytes = node.pool_bytes;
    one.free_bytes = node.free_bytes;
    one.leased_bytes = node.leased_bytes;
    one.used_bytes = node.used_bytes;
    one.lost_bytes = node.lost_bytes;
    one.chunks = node.chunks;
    one.seconds_since_answer = node.seconds_since_answer;
    out.push_back(std::move(one));
  }
  return out;
}

// Who looks for the holder of the lock sees that it is about to let go; so does the service manager.
void MountDaemon::begin_end() {
  if (std::exchange(ending_, true)) return;
  if (lock_.valid()) {
    const auto said = say_lock_purpose(lock_, std::string(kUnmounting) + job_.mountpoint + " by rmemfs");
    if (!said.ok()) log::warn("{}", said.error().message());
  }
  job_.service.notify("STOPPING=1\nSTATUS=unmounting " + job_.mountpoint);
}

// The service manager's watchdog is told only while every lane takes up work: one that hangs lets it end this process.
void MountDaemon::watch_lanes() {
  const std::uint32_t period_ms = job_.service.watchdog_ms().value_or(0);
  if (period_ms == 0 || !mount_) return;
  if (mount_->lanes_run(period_ms / 2)) {
    job_.service.notify("WATCHDOG=1");
  } else {
    log::error("a lane has not taken up work for {} ms", period_ms / 2);
  }
  next_watch_ = deadline_after_ms(period_ms);
}

void MountDaemon::wait_for_end(int signals) {
  bool detached = false, told = false;
  TimePoint give_up = kNoDeadline;
  while (!events_.ended.load() && MonoClock::now() < give_up) {
    pollfd fds[] = {{signals, POLLIN, 0}, {events_.fd(), POLLIN, 0}};
    int wait_ms = detached ? 50 : -1;
    if (next_watch_ != kNoDeadline && !detached) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(next_watch_ - MonoClock::now()).count();
      wait_ms = static_cast<int>(std::max<std::int64_t>(left, 0));
    }
    ::poll(fds, 2, wait_ms);
    if ((fds[1].revents & POLLIN) != 0) events_.clear();
    if (events_.serving.load() && !std::exchange(told, true)) {
      job_.service.notify("READY=1\nMAINPID=" + std::to_string(::getpid()) + "\nSTATUS=serving " + job_.directory +
                          " on " + job_.mountpoint);
      watch_lanes();
    }
    if (MonoClock::now() >= next_watch_) watch_lanes();
    bool asked = events_.fenced.load();
    if ((fds[0].revents & POLLIN) != 0) {
      signalfd_siginfo info;
      if (::read(signals, &info, sizeof info) != sizeof info) continue;
      if (info.ssi_signo == SIGHUP && !job_.hangup_ends) {
        if (log_reopen()) log::info("signal {}: the log goes on here", info.ssi_signo);
      } else {
        log::info("signal {}: unmounting {}", info.ssi_signo, job_.mountpoint);
        asked = true;
      }
    }
    if (!asked || detached) continue;
    detached = true;
    begin_end();
    // What programs left in the kernel's cache (mappings) is written back while the mount still serves.
    if (!events_.fenced.load()) {
      UniqueFd root(::open(job_.mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (root.valid()) ::syncfs(root.get());
    }
    mount_->unmount();
    give_up = deadline_after_ms(kBusyUnmountMs);
  }
  if (!events_.ended.load()) log::warn("{} was unmounted while files were open", job_.mountpoint);
}

void MountDaemon::end() {
  begin_end();
  admin_.reset();
  if (mount_) {
    mount_->unmount();
    if (!mount_->drain(deadline_after_ms(job_.options.deadline_ms + 2000))) {
      // What is under way holds locks that nobody will release; the next mount purges what is left.
      log::warn("requests were still under way at the end of the mount");
    } else if (!manager_->is_fenced()) {
      LoopExecutor loop;
      loop.run(files_->purge_pending());
    }
  }
  if (manager_) manager_->close();
  if (store_ && store_->journal) {
    auto closed = store_->journal->close();
    if (!closed.ok()) log::error("closing the journal: {}", closed.error().message());
  }
  pool_.reset();  // first: its jobs use the manager, and resume coroutines in lanes
  mount_.reset();
  files_.reset();
  manager_.reset();
  store_.reset();
  if (local_) stop_local_node(*local_);
  if (made_ && !announced_.load()) unmake_local();
  lock_.reset();  // last: from here on a new mount may start the node again
}

Detached purge_orphans(Manager& manager, Executor& lane) {
  co_await ResumeOn{lane};
  co_await Yield{};
  auto purged = co_await manager.purge_orphans();
  if (!purged.ok()) log::warn("files deleted before a crash could not all be purged: {}", purged.error().message());
}

Result<void> MountDaemon::run(const std::function<void()>& on_serving) {
  // The threads made from here on inherit the mask: signals are this thread's.
  sigset_t handled;
  sigemptyset(&handled);
  for (int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&handled, number);
  ::sigprocmask(SIG_BLOCK, &handled, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  UniqueFd signals(::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals.valid()) return Error(errc_from_errno(errno), "signalfd");

  Result<void> ready = open();
  if (ready.ok()) ready = mount();
  if (ready.ok()) ready = start_admin();
  if (!ready.ok()) {
    end();
    return ready;
  }
  mount_->on_serving = [&] {
    log::info("{} is mounted on {}: {} lanes, epoch {}; {}", job_.directory, job_.mountpoint, mount_->lane_count(),
              store_->superblock.epoch.value(), survival(manager_->nodes(), in_memory_));
    on_serving();
    announced_.store(true);
    events_.raise(events_.serving);
    purge_orphans(*manager_, mount_->executor(0));
  };
  mount_->on_ended = [this] { events_.raise(events_.ended); };
  mount_->serve();
  wait_for_end(signals.get());
  const bool fenced = events_.fenced.load();
  end();
  if (fenced) return Error(Errc::kFenced, "mount", job_.directory);
  if (!announced_.load()) return Error(Errc::kCancelled, "mount", job_.mountpoint);
  log::info("{} is unmounted", job_.mountpoint);
  return {};
}

}  // namespace

Result<void> run_mount(const MountJob& job, const std::function<void()>& on_serving) {
  MountDaemon daemon(job);
  return daemon.run(on_serving);
}

}  // namespace rmemfs
