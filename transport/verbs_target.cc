#include "transport/verbs_target.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "transport/name_lookup.h"
#include "util/check.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr int kBacklog = 128;
constexpr int kReadsAtOnce = 16;
constexpr unsigned kMostWorkers = 4;  // per device; they answer what is rare
// Of queue pairs that are to be destroyed. One that waits for the network sleeps in the kernel.
constexpr std::size_t kMostEndingThreads = 8, kMostEnding = 256;

void wake(const UniqueFd& event) {
  const std::uint64_t one = 1;
  (void)!::write(event.get(), &one, sizeof one);  // an eventfd that is not full always takes it
}
void clear(const UniqueFd& event) {
  std::uint64_t count;
  (void)!::read(event.get(), &count, sizeof count);
}

}  // namespace

// One thread and the completion channel of the streams that were given to it.
class VerbsTarget::Worker {
 public:
  static Result<std::unique_ptr<Worker>> make(ibv_context* context, const UniqueFd& ended) {
    std::unique_ptr<Worker> worker(new Worker(ended));
    worker->channel_ = ::ibv_create_comp_channel(context);
    worker->wakeup_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (worker->channel_ == nullptr || !worker->wakeup_.valid() ||
        ::fcntl(worker->channel_->fd, F_SETFL, O_NONBLOCK) != 0) {
      return Error(errc_from_errno(errno), "completion channel");
    }
    worker->thread_ = std::thread([raw = worker.get()] { raw->run(); });
    return worker;
  }
  ~Worker() {
    stop_.store(true, std::memory_order_release);
    if (wakeup_.valid()) wake(wakeup_);
    if (thread_.joinable()) thread_.join();
    streams_.clear();
    if (channel_ != nullptr) CHECK(::ibv_destroy_comp_channel(channel_) == 0);
  }
  ibv_comp_channel* channel() const { return channel_; }
  void add(const std::shared_ptr<VerbsStream>& stream) {
    MutexLock lock(mutex_);
    streams_.emplace(stream->number(), stream);
  }
  void remove(const VerbsStream& stream) {
    MutexLock lock(mutex_);
    streams_.erase(stream.number());
  }

 private:
  explicit Worker(const UniqueFd& ended) : ended_(ended) {}
  void run() {
    while (!stop_.load(std::memory_order_acquire)) {
      pollfd fds[] = {{channel_->fd, POLLIN, 0}, {wakeup_.get(), POLLIN, 0}};
      if (::poll(fds, 2, -1) < 0) CHECK(errno == EINTR);
      ibv_cq* queue = nullptr;
      void* number = nullptr;
      while (::ibv_get_cq_event(channel_, &queue, &number) == 0) {
        ::ibv_ack_cq_events(queue, 1);  // whoever destroys the queue waits for it
        std::shared_ptr<VerbsStream> stream;
        {
          MutexLock lock(mutex_);
          const auto found = streams_.find(reinterpret_cast<std::uint64_t>(number));
          if (found != streams_.end()) stream = found->second;
        }
        if (stream == nullptr) continue;
        stream->serve();
        if (stream->ended()) wake(ended_);
      }
    }
  }

  const UniqueFd& ended_;  // the target's
  ibv_comp_channel* channel_ = nullptr;
  UniqueFd wakeup_;
  std::atomic<bool> stop_{false};
  Mutex mutex_{LockRank::kLeaf};
  std::unordered_map<std::uint64_t, std::shared_ptr<VerbsStream>> streams_;  // guarded by mutex_
  std::thread thread_;
};

VerbsTarget::VerbsTarget(RegionSource& regions, const Options& options)
    : regions_(regions), options_(options), disposal_(kMostEndingThreads, kMostEnding) {}

Result<std::unique_ptr<VerbsTarget>> VerbsTarget::make(RegionSource& regions, const Options& options,
                                                       const std::vector<NodeAddress>& addresses) {
  if (const auto reason = why_no_rdma()) {
    return Error(Errc::kNotSupported, "listen",
                 (addresses.empty() ? "" : addresses.front().to_string() + ": ") + *reason);
  }
  std::unique_ptr<VerbsTarget> target(new VerbsTarget(regions, options));
  target->wakeup_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  target->channel_ = ::rdma_create_event_channel();
  if (!target->wakeup_.valid() || target->channel_ == nullptr ||
      ::fcntl(target->channel_->fd, F_SETFL, O_NONBLOCK) != 0) {
    return Error(errc_from_errno(errno), "listen", "no RDMA event channel");
  }
  for (const NodeAddress& address : addresses) RETURN_IF_ERROR(target->listen(address));
  return target;
}

void VerbsTarget::start() {
  thread_ = std::thread([this] { run(); });
}

Result<void> VerbsTarget::listen(const NodeAddress& address) {
  const std::vector<SocketAddress> found = look_up(address.host, address.port, AI_PASSIVE);
  if (found.empty()) return Error(Errc::kInvalid, "listen", address.to_string() + " cannot be resolved");
  SocketAddress name = found.front();
  rdma_cm_id* id = nullptr;
  if (::rdma_create_id(channel_, &id, nullptr, RDMA_PS_TCP) != 0) {
    return Error(errc_from_errno(errno), "listen", address.to_string() + ": no RDMA identifier");
  }
  listeners_.push_back(id);
  if (::rdma_bind_addr(id, name.get()) != 0 || ::rdma_listen(id, kBacklog) != 0) {
    const int number = errno;
    const Errc code = number == EADDRINUSE ? Errc::kBusy : number == ENODEV ? Errc::kInvalid : errc_from_errno(number);
    return Error(
        code, "listen",
        address.to_string() + ": " +
            (number == ENODEV || number == EADDRNOTAVAIL ? "no RDMA device has this address" : std::strerror(number)));
  }
  NodeAddress real = address;
  real.port = be16toh(::rdma_get_src_port(id));
  addresses_.push_back(std::move(real));
  return success();
}

VerbsTarget::~VerbsTarget() {
  stop_.store(true, std::memory_order_release);
  if (wakeup_.valid()) wake(wakeup_);
  if (thread_.joinable()) thread_.join();
  std::vector<rdma_cm_id*> ids;
  for (const auto& [id, connected] : streams_) ids.push_back(id);
  for (rdma_cm_id* id : ids) end(id);
  disposal_.finish();  // the workers' channels and the domains outlive all queue pairs
  workers_.clear();    // joined
  for (rdma_cm_id* id : listeners_) ::rdma_destroy_id(id);
  if (channel_ != nullptr) ::rdma_destroy_event_channel(channel_);
}

std::vector<std::shared_ptr<VerbsStream>> VerbsTarget::streams() const {
  std::vector<std::shared_ptr<VerbsStream>> list;
  MutexLock lock(mutex_);
  for (const auto& [id, connected] : streams_) list.push_back(connected.stream);
  return list;
}

std::size_t VerbsTarget::connections() const {
  std::size_t count = 0;
  MutexLock lock(mutex_);
  for (const auto& [id, connected] : streams_) count += connected.stream->ended() ? 0 : 1;
  return count;
}

std::size_t VerbsTarget::domains() const {
  MutexLock lock(mutex_);
  return domains_.size();
}

void VerbsTarget::end_sessions(const Uuid& file_system, MountEpoch epoch) {
  bool any = false;
  for (const auto& stream : streams()) {
    const SessionId& session = stream->hello().session;
    if (session.file_system != file_system || session.epoch >= epoch) continue;
    stream->end();
    any = true;
  }
  if (any) wake(wakeup_);
}

void VerbsTarget::quiesce() {
  std::vector<std::shared_ptr<VerbsDomain>> domains;
  {
    MutexLock lock(mutex_);
    for (const Domain& entry : domains_) domains.push_back(entry.domain);
  }
  for (const auto& domain : domains) domain->drop_revoked();
}

void VerbsTarget::run() {
  while (!stop_.load(std::memory_order_acquire)) {
    pollfd fds[] = {{channel_->fd, POLLIN, 0}, {wakeup_.get(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0) CHECK(errno == EINTR);
    if ((fds[1].revents & POLLIN) != 0) clear(wakeup_);
    rdma_cm_event* raw = nullptr;
    while (!stop_.load(std::memory_order_acquire) && ::rdma_get_cm_event(channel_, &raw) == 0) {
      if (raw->event != RDMA_CM_EVENT_CONNECT_REQUEST) {
        const rdma_cm_event event = *raw;
        ::rdma_ack_cm_event(raw);  // first: destroying an id waits for its events
        handle(event);
        continue;
      }
      Request request{raw->id, {}, 0};
      const rdma_conn_param& wish = raw->param.conn;
      if (wish.private_data != nullptr) {
        const auto* data = static_cast<const std::byte*>(wish.private_data);
        request.data.assign(data, data + wish.private_data_len);
      }
      request.reads_at_once = std::min<std::uint8_t>(wish.responder_resources, kReadsAtOnce);
      ::rdma_ack_cm_event(raw);
      std::shared_ptr<VerbsStream> stream;
      const Result<void> connected = connect(request, stream);
      if (!connected.ok()) {
        log::debug("data plane: a connect request is refused: {}", connected.error().message());
        if (stream != nullptr) stream->end();
        refuse(request.id, connected.error().code);
        if (stream != nullptr)
          end(request.id);
        else
          ::rdma_destroy_id(request.id);
      }
    }
    reap();
  }
}

Result<void> VerbsTarget::connect(const Request& request, std::shared_ptr<VerbsStream>& stream) {
  ASSIGN_OR_RETURN(const verbs::Hello hello, verbs::decode_hello(request.data));
  if (connections() >= options_.max_connections || disposal_.full()) return Error(Errc::kTooMany, "connect request");
  ASSIGN_OR_RETURN(Worker* const worker, worker_of(request.id->verbs));
  stream = std::make_shared<VerbsStream>(next_number_++, hello, regions_);
  {
    MutexLock lock(mutex_);
    streams_.emplace(request.id, Connected{stream, worker});  // R1
  }
  RETURN_IF_ERROR(regions_.admit(hello.session, hello.key));
  stream->set_admitted();
  if (!supersede(*stream)) return Error(Errc::kBusy, "connect request", "the session has connected anew");
  ASSIGN_OR_RETURN(std::shared_ptr<VerbsDomain> domain, domain_of(request.id->verbs, hello.session.file_system));
  const auto reads = std::min<int>(request.reads_at_once, domain->attributes().max_qp_rd_atom);
  worker->add(stream);
  const Result<void> opened =
      stream->open(request.id, std::move(domain), worker->channel(), static_cast<std::uint8_t>(reads));
  if (!opened.ok()) worker->remove(*stream);
  return opened;
}

// Ends the session's older queue pairs (C5). False: a newer one is there, and this one is to go.
bool VerbsTarget::supersede(const VerbsStream& stream) {
  const verbs::Hello& mine = stream.hello();
  std::vector<std::shared_ptr<VerbsStream>> older;
  for (const auto& other : streams()) {
    const verbs::Hello& theirs = other->hello();
    // Only an admitted stream counts: anybody can state a session, but not its key.
    if (other.get() == &stream || !other->admitted() || other->ended() ||
        theirs.session.file_system != mine.session.file_system || theirs.session.epoch != mine.session.epoch ||
        theirs.session.lane != mine.session.lane) {
      continue;
    }
    if (theirs.incarnation > mine.incarnation) return false;
    older.push_back(other);
  }
  for (const auto& other : older) other->end();
  return true;
}

Result<std::shared_ptr<VerbsDomain>> VerbsTarget::domain_of(ibv_context* context, const Uuid& file_system) {
  {
    MutexLock lock(mutex_);
    for (const Domain& entry : domains_) {
      if (entry.context == context && entry.file_system == file_system) return entry.domain;
    }
  }
  ASSIGN_OR_RETURN(std::shared_ptr<VerbsDomain> domain, VerbsDomain::make(context, options_.piece_bytes));
  MutexLock lock(mutex_);
  domains_.push_back({context, file_system, domain});
  return domain;
}

Result<VerbsTarget::Worker*> VerbsTarget::worker_of(ibv_context* context) {
  auto& workers = workers_[context];
  while (workers.size() < std::clamp(options_.threads, 1u, kMostWorkers)) {
    ASSIGN_OR_RETURN(auto worker, Worker::make(context, wakeup_));
    workers.push_back(std::move(worker));
  }
  return workers[next_worker_++ % workers.size()].get();
}

void VerbsTarget::refuse(rdma_cm_id* id, Errc code) {
  std::array<std::byte, verbs::kAnswerBytes> answer;
  verbs::encode_answer({.ok = false, .status = code}, answer);
  ::rdma_reject(id, answer.data(), answer.size());
}

void VerbsTarget::handle(const rdma_cm_event& event) {
  switch (event.event) {
    case RDMA_CM_EVENT_DISCONNECTED:
    case RDMA_CM_EVENT_CONNECT_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE:
    case RDMA_CM_EVENT_REJECTED:
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
      if (std::find(listeners_.begin(), listeners_.end(), event.id) == listeners_.end()) end(event.id);
      break;
    default:
      break;
  }
}

void VerbsTarget::end(rdma_cm_id* id) {
  Connected connected{};
  {
    MutexLock lock(mutex_);
    const auto found = streams_.find(id);
    if (found != streams_.end()) {
      connected = std::move(found->second);
      streams_.erase(found);
    }
  }
  if (connected.stream == nullptr) return;
  connected.stream->end();
  connected.worker->remove(*connected.stream);
  disposal_.take([this, id, stream = std::move(connected.stream)] {
    stream->destroy();
    ::rdma_destroy_id(id);
    wake(wakeup_);  // R4
  });
}

// Streams that somebody else ended: an agent's mistake, a newer epoch, a newer connection.
void VerbsTarget::reap() {
  std::vector<rdma_cm_id*> over;
  {
    MutexLock lock(mutex_);
    for (const auto& [id, connected] : streams_) {
      if (connected.stream->ended()) over.push_back(id);
    }
  }
  for (rdma_cm_id* id : over) end(id);
  std::vector<Domain> idle;  // R4; destroyed after the lock
  MutexLock lock(mutex_);
  const auto keep = std::stable_partition(domains_.begin(), domains_.end(), [](const Domain& entry) {
    return entry.domain.use_count() > 1 || !entry.domain->empty();
  });
  std::move(keep, domains_.end(), std::back_inserter(idle));
  domains_.erase(keep, domains_.end());
}

}  // namespace rmemfs
