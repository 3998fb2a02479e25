#include "tests/unit/transport/test_node.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

#include "transport/name_lookup.h"
#include "transport/verbs_target.h"
#include "util/check.h"

namespace rmemfs::test {

class TestRegions::Region final : public TargetRegion {
 public:
  explicit Region(TestRegions& owner) : owner_(owner) {}
  bool revoked() const override { return revoked_.load(); }
  Result<void> persist(std::uint64_t, std::uint64_t length) override {
    ++owner_.persists;
    owner_.last_persisted = length;
    while (owner_.persists_held) ::poll(nullptr, 0, 5);
    return success();
  }
  std::atomic<bool> revoked_{false};

 private:
  TestRegions& owner_;
};

TestRegions::TestRegions(std::uint64_t pool_bytes) : size_(pool_bytes) {
  file_.reset(::memfd_create("test pool", MFD_CLOEXEC));
  CHECK(file_.valid() && ::ftruncate(file_.get(), static_cast<off_t>(size_)) == 0);
  void* const data = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
  CHECK(data != MAP_FAILED);
  data_ = static_cast<std::byte*>(data);
  void* const outside = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
  CHECK(outside != MAP_FAILED);
  outside_ = static_cast<std::byte*>(outside);
  raise_epoch(MountEpoch(1));
}

TestRegions::~TestRegions() {
  ::munmap(data_, size_);
  ::munmap(outside_, size_);
}

Result<void> TestRegions::admit(const SessionId& session, const AccessKey& key) {
  ++admissions;
  while (admissions_held) ::poll(nullptr, 0, 5);
  {
    std::lock_guard lock(mutex_);
    if (session.file_system != file_system) return Error(Errc::kNotFound, "admit");
    if (!key.matches(file_system_key)) return Error(Errc::kRefused, "admit");
    if (session.epoch < epoch_) return Error(Errc::kFenced, "admit");
    if (session.epoch == epoch_) return success();
  }
  raise_epoch(session.epoch);
  if (Target* const serving = target.load()) serving->end_sessions(file_system, session.epoch);
  return success();
}

Result<std::shared_ptr<TargetRegion>> TestRegions::open_region(const Uuid& owner, RegionId id, Generation generation,
                                                               const AccessKey& key) {
  std::lock_guard lock(mutex_);
  if (owner != file_system) return Error(Errc::kRefused, "open region");
  if (generation != generation_) return Error(Errc::kRegionLost, "open region");
  const auto found = leased_.find(id.value());
  if (found == leased_.end()) return Error(Errc::kNotFound, "open region");
  if (!found->second.remote.key.matches(key)) return Error(Errc::kRefused, "open region");
  return std::shared_ptr<TargetRegion>(found->second.region);
}

Result<int> TestRegions::pool_fd(std::uint64_t& size_bytes) {
  size_bytes = claimed_size != 0 ? claimed_size.load() : size_;
  return file_.get();
}

Result<std::uint64_t> TestRegions::epoch_word_offset(const Uuid&) { return std::uint64_t{0}; }

RemoteRegion TestRegions::lease(const Shape& shape) {
  std::lock_guard lock(mutex_);
  CHECK(next_offset_ + shape.length <= size_);
  RemoteRegion remote;
  remote.id = RegionId(next_id_++);
  remote.generation = generation_;
  remote.key = AccessKey::random();
  remote.length_bytes = shape.length;
  remote.address = next_offset_;
  remote.durability = shape.durability;
  auto region = std::make_shared<Region>(*this);
  region->memory = {data_ + next_offset_, shape.length};
  region->writable = shape.writable;
  region->durability = shape.durability;
  region->pool_offset = next_offset_;
  next_offset_ += (shape.length + kPageBytes - 1) / kPageBytes * kPageBytes;
  leased_[remote.id.value()] = {remote, region};
  return remote;
}

void TestRegions::revoke(const RemoteRegion& region) {
  std::lock_guard lock(mutex_);
  leased_.at(region.id.value()).region->revoked_ = true;
}

void TestRegions::reopen(const RemoteRegion& region) {
  std::lock_guard lock(mutex_);
  std::shared_ptr<Region>& entry = leased_.at(region.id.value()).region;
  auto again = std::make_shared<Region>(*this);
  again->memory = entry->memory;
  again->writable = entry->writable;
  again->durability = entry->durability;
  again->pool_offset = entry->pool_offset;
  entry->revoked_ = true;
  entry = std::move(again);
}

void TestRegions::start_over() {
  std::lock_guard lock(mutex_);
  generation_ = generation_.next();
  leased_.clear();
}

void TestRegions::raise_epoch(MountEpoch epoch) {
  std::lock_guard lock(mutex_);
  epoch_ = epoch;
  std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(data_)).store(epoch.value());
}

std::string rdma_address() {
  ifaddrs* list = nullptr;
  CHECK(::getifaddrs(&list) == 0);
  std::string found;
  for (const ifaddrs* entry = list; entry != nullptr && found.empty(); entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET) continue;
    if ((entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    char text[INET_ADDRSTRLEN];
    ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(entry->ifa_addr)->sin_addr, text, sizeof text);
    TestRegions nothing(1 << 20);
    NodeAddress address;
    address.transport = TransportKind::kVerbs;
    address.host = text;
    if (VerbsTarget::make(nothing, {}, {address}).ok()) found = text;
  }
  ::freeifaddrs(list);
  return found;
}

TestNode::TestNode(TransportKind transport, TestRegions& regions, Target::Options options)
    : transport_(transport), regions_(regions), options_(options) {
  address_.transport = transport;
  start();
}

TestNode::~TestNode() {
  stop();
  if (!address_.path.empty()) ::unlink(address_.path.c_str());
}

void TestNode::listen() {
  if (transport_ == TransportKind::kShm) {
    if (address_.path.empty()) {
      static std::atomic<int> count{0};
      address_.path = "/tmp/rmemfs-unit-" + std::to_string(::getpid()) + "-" + std::to_string(++count) + ".sock";
    }
    listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    CHECK(address_.path.size() < sizeof name.sun_path);
    std::memcpy(name.sun_path, address_.path.c_str(), address_.path.size() + 1);
    ::unlink(address_.path.c_str());
    CHECK(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
  } else {
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int one = 1;
    ::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(address_.port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
    socklen_t size = sizeof name;
    CHECK(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&name), &size) == 0);
    address_.host = "127.0.0.1";
    address_.port = ntohs(name.sin_port);
  }
  CHECK(::listen(listener_.get(), 1024) == 0);
}

void TestNode::start() {
  frozen_ = false;
  if (transport_ == TransportKind::kVerbs) return start_verbs();
  auto made =
      transport_ == TransportKind::kShm ? Target::make_shm(regions_, options_) : Target::make_tcp(regions_, options_);
  CHECK(made.ok());
  target_ = std::move(*made);
  regions_.target = target_.get();
  listen();
  stop_event_.reset(::eventfd(0, EFD_CLOEXEC));
  thread_ = std::thread([this] { run(); });
}

void TestNode::start_verbs() {
  if (address_.host.empty()) address_.host = rdma_address();
  auto made = VerbsTarget::make(regions_, options_, {address_});
  CHECK(made.ok());
  address_ = (*made)->addresses().front();
  VerbsTarget& verbs = **made;
  target_ = std::move(*made);
  regions_.target = target_.get();
  verbs.start();
}

void TestNode::freeze() {
  frozen_ = true;
  if (transport_ == TransportKind::kVerbs) regions_.admissions_held = true;
}

void TestNode::stop() {
  if (transport_ == TransportKind::kVerbs) {
    regions_.admissions_held = false;
    regions_.target = nullptr;
    target_.reset();
  }
  if (!thread_.joinable()) return;
  const std::uint64_t one = 1;
  CHECK(::write(stop_event_.get(), &one, sizeof one) == sizeof one);
  thread_.join();
  listener_.reset();
  regions_.target = nullptr;
  target_.reset();
  std::lock_guard lock(mutex_);
  accepted_.clear();
}

void TestNode::run() {
  for (;;) {
    pollfd polled[2] = {{listener_.get(), POLLIN, 0}, {stop_event_.get(), POLLIN, 0}};
    ::poll(polled, 2, -1);
    if (polled[1].revents != 0) return;
    UniqueFd stream(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!stream.valid()) continue;
    {
      std::lock_guard lock(mutex_);
      accepted_.emplace_back(::fcntl(stream.get(), F_DUPFD_CLOEXEC, 0));
    }
    if (!frozen_) target_->adopt(std::move(stream));
  }
}

UniqueFd TestNode::take_frozen() {
  CHECK(frozen_);
  for (int i = 0; i < 1000; ++i) {
    {
      std::lock_guard lock(mutex_);
      if (!accepted_.empty()) {
        UniqueFd fd = std::move(accepted_.back());
        accepted_.pop_back();
        return fd;
      }
    }
    ::poll(nullptr, 0, 5);
  }
  return {};
}

void TestNode::break_streams() {
  if (transport_ == TransportKind::kVerbs) {
    target_->end_sessions(regions_.file_system, MountEpoch(UINT64_MAX));
    return;
  }
  std::lock_guard lock(mutex_);
  for (UniqueFd& fd : accepted_) ::shutdown(fd.get(), SHUT_RDWR);
  accepted_.clear();
}

Driver::Driver(const NodeAddress& address, const ConnectOptions& options) {
  auto made = make_connection(address, options);
  CHECK(made.ok());
  connection_ = std::move(*made);
}

void Driver::post(Operation& op) {
  ++posted_;
  if (connection_->post(op) == Posted::kPending) return;
  ++completed_;
  done_.push_back(&op);
}

void Driver::poll_once(int wait_ms) {
  if (wait_ms > 0 && connection_->event_fd() >= 0) {
    pollfd polled{connection_->event_fd(), POLLIN, 0};
    ::poll(&polled, 1, wait_ms);
  }
  const std::size_t before = done_.size();
  connection_->poll(done_);
  completed_ += done_.size() - before;
}

bool Driver::drain(int limit_ms) {
  const TimePoint limit = deadline_after_ms(static_cast<std::uint64_t>(limit_ms));
  connection_->submit();
  while (completed_ < posted_) {
    if (MonoClock::now() > limit) return false;
    poll_once(100);
  }
  return true;
}

bool Driver::run(Operation& op, int limit_ms) {
  post(op);
  return drain(limit_ms);
}

ConnectOptions options_for(const TestRegions& regions, std::uint32_t lane, MountEpoch epoch) {
  ConnectOptions options;
  options.session = {regions.file_system, epoch, lane};
  options.file_system_key = regions.file_system_key;
  return options;
}

Operation read_of(const RemoteRegion& region, std::uint64_t offset, std::byte* buffer, std::size_t length) {
  Operation op;
  op.kind = OperationKind::kRead;
  op.region = &region;
  op.offset = offset;
  op.buffer = buffer;
  op.length_bytes = length;
  op.deadline = deadline_after_ms(10000);
  return op;
}

Operation write_of(const RemoteRegion& region, std::uint64_t offset, const std::byte* buffer, std::size_t length) {
  Operation op = read_of(region, offset, const_cast<std::byte*>(buffer), length);
  op.kind = OperationKind::kWrite;
  return op;
}

Operation swap_of(const RemoteRegion& region, std::uint64_t offset, std::uint64_t expected, std::uint64_t desired) {
  Operation op = read_of(region, offset, nullptr, 0);
  op.kind = OperationKind::kCompareSwap;
  op.expected = expected;
  op.desired = desired;
  return op;
}

Operation persist_of(const RemoteRegion& region) {
  Operation op = read_of(region, 0, nullptr, 0);
  op.kind = OperationKind::kPersist;
  return op;
}

}  // namespace rmemfs::test
