#include "tools/node_ping.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>
#include <span>

#include "control/node_client.h"
#include "transport/local_memory.h"
#include "util/clock.h"

namespace rmemfs {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::uint64_t kRegionTag = 0x676e6970;  // "ping", for who looks at a node's table
constexpr std::uint64_t kMostRegion = std::uint64_t{1} << 30;
constexpr Duration kStopCheck = std::chrono::milliseconds(10);  // how often a spinning measurement looks at stop_fd

constexpr int kPollsInARow = 64;

double seconds_between(TimePoint from, TimePoint to) { return std::chrono::duration<double>(to - from).count(); }

bool readable(int fd) {
  pollfd polled{fd, POLLIN, 0};
  return fd >= 0 && ::poll(&polled, 1, 0) > 0;
}

RemoteRegion remote(const LeasedRegion& leased) {
  RemoteRegion region;
  region.id = leased.id;
  region.generation = leased.generation;
  region.key = leased.key;
  region.length_bytes = leased.length_bytes;
  region.address = leased.address;
  region.rkey = leased.rkey;
  region.durability = {static_cast<Durability>(leased.durability), static_cast<PersistMethod>(leased.persist_method)};
  return region;
}

// A file system that exists for one measurement. What the node holds of it goes with this object.
class Visitor {
 public:
  Visitor(NodeClient& client, std::uint32_t timeout_ms)
      : client_(client), timeout_ms_(timeout_ms), who_{Uuid::random(), AccessKey::random(), MountEpoch(1)} {}

  const FileSystemIdentity& who() const { return who_; }

  Result<LeasedRegion> lease(std::uint64_t bytes) { return client_.lease(who_, bytes, bytes, kRegionTag, timeout_ms_); }

  // Every region that the node has of it: also one whose lease was never answered.
  Result<void> leave() {
    ASSIGN_OR_RETURN(const std::vector<LeasedRegion> regions, client_.list(who_, timeout_ms_));
    for (const LeasedRegion& region : regions) RETURN_IF_ERROR(client_.release(who_, region.id, timeout_ms_));
    return client_.forget(who_, timeout_ms_);
  }

 private:
  NodeClient& client_;
  const std::uint32_t timeout_ms_;
  const FileSystemIdentity who_;
};

class Measurer {
 public:
  Measurer(const RemoteRegion& region, const PingOptions& options, std::string address)
      : region_(region),
        options_(options),
        address_(std::move(address)),
        local_memory_(std::make_shared<LocalMemory>()) {
    std::uint64_t largest = options.bandwidth_size.value_or(0);
    for (const std::uint64_t size : options.latency_sizes) largest = std::max(largest, size);
    const std::uint64_t slot_bytes = (largest + kPage - 1) / kPage * kPage;
    slots_.resize(options.bandwidth_size ? options.depth : 1);
    memory_.resize(slot_bytes * slots_.size() + kPage);
    // Pages of their own, announced, as the buffers of a mount's requests are.
    const auto start = reinterpret_cast<std::uintptr_t>(memory_.data());
    arena_ = std::span(memory_).subspan((start + kPage - 1) / kPage * kPage - start, slot_bytes * slots_.size());
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      slots_[i].region = &region_;
      slots_[i].buffer = arena_.data() + i * slot_bytes;
    }
    local_memory_->announce(arena_, slot_bytes);
  }
  ~Measurer() {
    connection_.reset();  // operations under way use the memory
    local_memory_->withdraw(arena_);
  }
  Measurer(const Measurer&) = delete;
  Measurer& operator=(const Measurer&) = delete;

  Result<void> connect(const NodeAddress& address, ConnectOptions connect) {
    if (address.transport == TransportKind::kVerbs) {
      // A connection that fails says that it failed; this says why.
      const Result<void> probed = probe_verbs(address, connect, options_.timeout_ms);
      if (!probed.ok()) return Error(probed.error().code, "ping", address_ + ": " + probed.error().detail);
    }
    connect.session.lane = 1;  // the probe's was 0
    connect.deadline_ms = options_.timeout_ms;
    connect.local_memory = local_memory_;
    ASSIGN_OR_RETURN(connection_, make_connection(address, connect));
    return success();
  }

  static std::uint64_t region_bytes(const PingOptions& options) {
    std::uint64_t bytes = kPage;
    for (const std::uint64_t size : options.latency_sizes) bytes = std::max(bytes, size);
    if (options.bandwidth_size) bytes = std::max(bytes, *options.bandwidth_size * options.depth);
    return (bytes + kPage - 1) / kPage * kPage;
  }

  bool stopped() const { return stopped_; }

  // One operation each way, compared: connects, and proves that this is memory.
  Result<void> try_out(std::uint64_t size) {
    Operation& slot = slots_[0];
    for (std::size_t i = 0; i < size; ++i) slot.buffer[i] = static_cast<std::byte>(i * 31 + size);
    RETURN_IF_ERROR(one(OperationKind::kWrite, size, MonoClock::now()));
    if (stopped_) return success();
    std::fill_n(slot.buffer, size, std::byte{0});
    RETURN_IF_ERROR(one(OperationKind::kRead, size, MonoClock::now()));
    if (stopped_) return success();
    for (std::size_t i = 0; i < size; ++i) {
      if (slot.buffer[i] != static_cast<std::byte>(i * 31 + size)) {
        return Error(Errc::kProtocol, "ping", address_ + ": what was read is not what was written");
      }
    }
    return success();
  }

  Result<PingMeasurement> latency(OperationKind kind, std::uint64_t size) {
    PingMeasurement measurement{kind, size, 1};
    std::vector<double> samples;
    samples.reserve(options_.count);
    const TimePoint begin = MonoClock::now();
    TimePoint now = begin;
    while (samples.size() < options_.count && seconds_between(begin, now) < options_.seconds) {
      const TimePoint before = now;  // from end to end: the clock is read once for each
      RETURN_IF_ERROR(one(kind, size, before));
      if (look_for_stop(now = MonoClock::now())) return measurement;
      samples.push_back(seconds_between(before, now));
    }
    measurement.seconds = seconds_between(begin, now);
    summarize(samples, measurement);
    return measurement;
  }

  Result<PingMeasurement> bandwidth(OperationKind kind) {
    const std::uint64_t size = *options_.bandwidth_size;
    PingMeasurement measurement{kind, size, options_.depth};
    std::vector<double> samples;
    std::vector<TimePoint> posted(slots_.size());
    // Once over every slot first: connection buffers grow and pages are touched before the clock runs.
    TimePoint begin{}, last{};
    std::uint64_t warm = slots_.size();
    const auto start = [&](std::size_t i) {
      posted[i] = MonoClock::now();
      prepare(slots_[i], kind, size, i * size, posted[i]);
      if (connection_->post(slots_[i]) == Posted::kCompleted) done_.push_back(&slots_[i]);
    };
    done_.clear();
    for (std::size_t i = 0; i < slots_.size(); ++i) start(i);
    connection_->submit();
    bool more = true;
    for (std::size_t under_way = slots_.size(); under_way > 0;) {
      if (done_.empty()) wait_for_completions();
      std::vector<Operation*> completed;
      completed.swap(done_);
      const TimePoint now = MonoClock::now();
      if (look_for_stop(now)) return measurement;  // what is under way ends with the connection
      for (Operation* op : completed) {
        const auto i = static_cast<std::size_t>(op - slots_.data());
        --under_way;
        if (!op->ok) return failure(*op);
        if (warm > 0) {
          if (--warm == 0) begin = last = now;
        } else {
          samples.push_back(seconds_between(posted[i], now));
          last = now;
          more = more && seconds_between(begin, now) < options_.seconds;
        }
        if (!more) continue;
        start(i);
        ++under_way;
      }
      connection_->submit();
    }
    measurement.seconds = seconds_between(begin, last);
    summarize(samples, measurement);
    return measurement;
  }

 private:
  void prepare(Operation& op, OperationKind kind, std::uint64_t size, std::uint64_t offset, TimePoint now) {
    op.kind = kind;
    op.offset = offset;
    op.length_bytes = size;
    op.deadline = now + std::chrono::milliseconds(options_.timeout_ms);
  }

  // Posts the first slot and waits for it. Stopped: it returns with success and stopped_ set.
  Result<void> one(OperationKind kind, std::uint64_t size, TimePoint now) {
    Operation& op = slots_[0];
    prepare(op, kind, size, 0, now);
    done_.clear();
    if (connection_->post(op) == Posted::kPending) {
      connection_->submit();
      while (done_.empty()) {
        wait_for_completions();
        // An operation that is under way still ends by its deadline; its buffer lives as long as the connection.
        if (done_.empty() && look_for_stop(MonoClock::now())) return success();
      }
    }
    if (!op.ok) return failure(op);
    return success();
  }

  void wait_for_completions() {
    connection_->poll(done_);
    // Spinning looks at nothing else for a while: the clock would be read as often as the adapter.
    for (int i = 1; i < kPollsInARow && options_.spin && done_.empty(); ++i) connection_->poll(done_);
    if (!done_.empty() || options_.spin) return;
    pollfd polled[] = {{connection_->event_fd(), POLLIN, 0}, {options_.stop_fd, POLLIN, 0}};
    // The connection's own deadlines make its descriptor readable; the limit is for a mistake there.
    (void)::poll(polled, 2, 100);
    connection_->poll(done_);
  }

  bool look_for_stop(TimePoint now) {
    if (!stopped_ && now >= next_look_) {
      next_look_ = now + kStopCheck;
      stopped_ = readable(options_.stop_fd);
    }
    return stopped_;
  }

  Error failure(const Operation& op) const { return Error(op.error, "ping", address_ + ": its data plane"); }

  const RemoteRegion region_;
  const PingOptions& options_;
  const std::string address_;
  const std::shared_ptr<LocalMemory> local_memory_;
  std::vector<std::byte> memory_;
  std::span<std::byte> arena_;  // of memory_
  std::vector<Operation> slots_;
  std::vector<Operation*> done_;
  bool stopped_ = false;
  TimePoint next_look_{};
  std::unique_ptr<Connection> connection_;
};

Result<void> measure(Measurer& measurer, const PingOptions& options, PingReport& report) {
  const TimePoint begin = MonoClock::now();
  for (const std::uint64_t size : options.latency_sizes) {
    RETURN_IF_ERROR(measurer.try_out(size));
    if (report.connect_s == 0) report.connect_s = seconds_between(begin, MonoClock::now());
  }
  const auto take = [&](Result<PingMeasurement> measurement) -> Result<void> {
    if (!measurement.ok()) return measurement.error();
    if (!measurer.stopped()) report.measurements.push_back(*measurement);
    return success();
  };
  for (const std::uint64_t size : options.latency_sizes) {
    for (const OperationKind kind : {OperationKind::kRead, OperationKind::kWrite}) {
      if (!measurer.stopped()) RETURN_IF_ERROR(take(measurer.latency(kind, size)));
    }
  }
  for (const OperationKind kind : {OperationKind::kRead, OperationKind::kWrite}) {
    if (options.bandwidth_size && !measurer.stopped()) RETURN_IF_ERROR(take(measurer.bandwidth(kind)));
  }
  report.interrupted = measurer.stopped();
  return success();
}

Result<void> visit(const NodeAddress& address, Visitor& visitor, const PingOptions& options, PingReport& report) {
  const std::uint64_t bytes = Measurer::region_bytes(options);
  Result<LeasedRegion> leased = visitor.lease(bytes);
  if (!leased.ok()) {
    if (leased.error().code != Errc::kNoSpace) return leased.error();
    return Error(Errc::kNoSpace, "ping",
                 report.address + ": a region of " + std::to_string(bytes) + " bytes, which the measurement needs");
  }
  report.region_bytes = leased->length_bytes;
  ConnectOptions connect;
  connect.session = {visitor.who().uuid, visitor.who().epoch, 0};
  connect.file_system_key = visitor.who().key;
  connect.connect_timeout_ms = options.timeout_ms;
  Measurer measurer(remote(*leased), options, report.address);
  RETURN_IF_ERROR(measurer.connect(address, connect));
  return measure(measurer, options, report);
}

}  // namespace

void summarize(std::vector<double>& samples, PingMeasurement& measurement) {
  measurement.operations = samples.size();
  if (samples.empty()) return;
  std::sort(samples.begin(), samples.end());
  // Nearest rank: the smallest sample that at least this share of all do not exceed.
  const auto rank = [&](double share) {
    const auto nearest = static_cast<std::size_t>(std::ceil(share * static_cast<double>(samples.size())));
    return samples[std::clamp<std::size_t>(nearest, 1, samples.size()) - 1];
  };
  measurement.min_s = samples.front();
  measurement.median_s = rank(0.5);
  measurement.p99_s = rank(0.99);
  measurement.max_s = samples.back();
}

Result<NodeAddress> data_address_of(const std::string& address) {
  static constexpr std::string_view kUnix = "unix:";
  if (!address.starts_with(kUnix)) return NodeAddress::parse(address);
  return NodeAddress::parse("shm:" + address.substr(kUnix.size()));
}

Result<PingReport> ping_node(const std::string& address, const PingOptions& options) {
  ASSIGN_OR_RETURN(const NodeAddress data, data_address_of(address));
  std::vector<std::uint64_t> sizes = options.latency_sizes;
  if (options.bandwidth_size) sizes.push_back(*options.bandwidth_size);
  for (const std::uint64_t size : sizes) {
    if (size == 0 || size > kMaxOperationBytes) {
      return Error(
          Errc::kInvalid, "ping",
          "an operation has 1 to " + std::to_string(kMaxOperationBytes) + " bytes, not " + std::to_string(size));
    }
  }
  if (Measurer::region_bytes(options) > kMostRegion) {
    return Error(Errc::kInvalid, "ping", "size times depth is more than 1 GiB");
  }
  PingReport report;
  report.address = data.to_string();
  ASSIGN_OR_RETURN(const std::unique_ptr<NodeClient> client, NodeClient::make(report.address));
  RETURN_IF_ERROR(client->describe(options.timeout_ms));
  Visitor visitor(*client, options.timeout_ms);
  const Result<void> visited = visit(data, visitor, options, report);
  const Result<void> left = visitor.leave();
  if (!left.ok()) report.left_behind = left.error().message();
  if (!visited.ok()) {
    Error error = visited.error();
    if (!left.ok()) error.detail += " (and a region stays leased: " + report.left_behind + ")";
    return error;
  }
  return report;
}

}  // namespace rmemfs
