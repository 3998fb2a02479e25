#include "transport/shm_connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "transport/operation.h"
#include "util/log.h"

namespace rmemfs {

Result<std::unique_ptr<Connection>> ShmConnection::make(const NodeAddress& address, const ConnectOptions& options) {
  std::unique_ptr<ShmConnection> connection(new ShmConnection(address, options));
  RETURN_IF_ERROR(connection->link_.open());
  return std::unique_ptr<Connection>(std::move(connection));
}

ShmConnection::ShmConnection(const NodeAddress& address, const ConnectOptions& options)
    : options_(options), link_(address, options) {}

ShmConnection::~ShmConnection() { fail_all(Errc::kCancelled); }

ConnectionStatistics ShmConnection::statistics() const {
  ConnectionStatistics statistics = statistics_;
  statistics.reconnects = link_.connects() > 0 ? link_.connects() - 1 : 0;
  return statistics;
}

ShmConnection::Region& ShmConnection::region_of(const RemoteRegion& remote) {
  const RegionName name = RegionName::of(remote);
  if (last_ != nullptr && last_->name == name) return *last_;
  last_ = &regions_.try_emplace(name, Region{.name = name}).first->second;
  return *last_;
}

Posted ShmConnection::post(Operation& op) {
  if (copy_at_once(op)) return Posted::kCompleted;
  if (const auto refusal = link_.refusal()) {
    fail(op, *refusal);
  } else if (needs_link(op)) {
    Region& region = region_of(*op.region);
    if (region.data == nullptr || !access(op, region)) {
      wait(op, region);
      return Posted::kPending;
    }
  }
  count(statistics_, op);
  return Posted::kCompleted;
}

// What nearly every call is: a READ or WRITE of the same region as the last one. Whatever is unusual takes the long
// way, which says what it is.
inline bool ShmConnection::copy_at_once(Operation& op) {
  if (last_ == nullptr || last_->data == nullptr || op.length_bytes - 1 >= kMaxOperationBytes) return false;
  const Region& region = *last_;
  const RemoteRegion& asked = *op.region;
  if (region.name.id != asked.id || region.name.generation != asked.generation ||
      region.name.key.bytes != asked.key.bytes) {
    return false;
  }
  const std::uint64_t length = std::min(region.length, asked.length_bytes);
  if (op.offset > length || op.length_bytes > length - op.offset) return false;
  if (epoch_of(region) > options_.session.epoch.value()) return false;
  std::byte* const at = region.data + op.offset;
  if (op.kind == OperationKind::kRead) {
    std::memcpy(op.buffer, at, op.length_bytes);
    ++statistics_.reads;
    statistics_.read_bytes += op.length_bytes;
  } else if (op.kind == OperationKind::kWrite && region.writable) {
    std::memcpy(at, op.buffer, op.length_bytes);
    ++statistics_.writes;
    statistics_.written_bytes += op.length_bytes;
  } else {
    return false;
  }
  std::atomic_signal_fence(std::memory_order_seq_cst);                  // H2, as in access()
  if (epoch_of(region) > options_.session.epoch.value()) return false;  // fenced: the long way refuses it
  finish(op);
  return true;
}

bool ShmConnection::fenced(const Region& region) {
  if (epoch_of(region) <= options_.session.epoch.value()) return false;
  if (!fence_logged_) log::error("node {}: {}", link_.name(), sentence(Errc::kFenced));
  fence_logged_ = true;
  return true;
}

bool ShmConnection::access(Operation& op, Region& region) {
  if (fenced(region)) {
    fail(op, Errc::kFenced);
    return true;
  }
  const std::uint64_t length = op.kind == OperationKind::kCompareSwap ? 8 : op.length_bytes;
  if (op.offset > region.length || length > region.length - op.offset) {
    fail(op, Errc::kOutOfBounds);
    return true;
  }
  if (!region.writable && (op.kind == OperationKind::kWrite || op.kind == OperationKind::kCompareSwap)) {
    fail(op, Errc::kNotPermitted);
    return true;
  }
  std::byte* const at = region.data + op.offset;
  switch (op.kind) {
    case OperationKind::kRead:
      std::memcpy(op.buffer, at, op.length_bytes);
      break;
    case OperationKind::kWrite:
      std::memcpy(at, op.buffer, op.length_bytes);
      break;
    case OperationKind::kCompareSwap:
      op.previous = op.expected;
      std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(at))
          .compare_exchange_strong(op.previous, op.desired);
      break;
    case OperationKind::kPersist:
      return false;
  }
  // H2: the second look comes after the access. A full fence would cost half as much again as the copy of a page, and
  // would only close the nanoseconds in which stores wait in this processor's buffer; a takeover takes far longer.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (fenced(region))
    fail(op, Errc::kFenced);
  else
    finish(op);
  return true;
}

void ShmConnection::wait(Operation& op, Region& region) {
  if (!std::exchange(waited_, true)) watch_.begin(MonoClock::now());
  pending_.push_back({&op, &region});
  if (op.deadline < next_deadline_) {
    next_deadline_ = op.deadline;
    link_.wake_at(next_deadline_);
  }
  if (!link_.ready())
    link_.want();
  else if (region.data == nullptr)
    ask(region);
  else
    ask_persist(pending_.back());
}

void ShmConnection::complete_pending(std::list<Pending>::iterator entry) {
  count(statistics_, *entry->op);
  completed_.push_back(entry->op);
  pending_.erase(entry);
}

void ShmConnection::fail_all(Errc error) {
  while (!pending_.empty()) {
    fail(*pending_.front().op, error);
    complete_pending(pending_.begin());
  }
  next_deadline_ = kNoDeadline;
}

void ShmConnection::expire(TimePoint now) {
  next_deadline_ = kNoDeadline;
  for (auto entry = pending_.begin(); entry != pending_.end();) {
    const auto next = std::next(entry);
    if (entry->op->deadline <= now) {
      fail(*entry->op, Errc::kDeadline);
      complete_pending(entry);  // a late answer finds nobody
    } else {
      next_deadline_ = std::min(next_deadline_, entry->op->deadline);
    }
    entry = next;
  }
}

void ShmConnection::prepare(const RemoteRegion& remote) {
  Region& region = region_of(remote);
  if (region.data != nullptr) return;
  if (link_.ready())
    ask(region);
  else
    link_.want();  // mapped() asks
}

void ShmConnection::submit() {
  if (link_.ready() && !output_.empty()) send(MonoClock::now());
}

// While this process did not run, the node may have answered in time: nobody was late but we.
void ShmConnection::forgive(Duration frozen) {
  for (Pending& pending : pending_) {
    if (pending.op->deadline != kNoDeadline) pending.op->deadline += frozen;
  }
  if (next_deadline_ != kNoDeadline) next_deadline_ += frozen;
}

void ShmConnection::poll(std::vector<Operation*>& done) {
  const TimePoint now = MonoClock::now();
  if (waited_) {
    if (const Duration frozen = watch_.frozen(now); frozen != Duration::zero()) forgive(frozen);
  }
  switch (link_.advance(now)) {
    case StreamLink::Event::kNone:
      break;
    case StreamLink::Event::kReady:
      mapped(now);
      break;
    case StreamLink::Event::kRefused:
      refused();
      break;
  }
  if (link_.ready()) receive(now);
  if (now >= next_deadline_) expire(now);
  if (link_.ready() && !output_.empty()) send(now);
  if (!pending_.empty() && !link_.ready()) link_.want();
  if (next_deadline_ != kNoDeadline) link_.wake_at(next_deadline_);
  waited_ = !pending_.empty();
  if (completed_.empty()) return;
  done.insert(done.end(), completed_.begin(), completed_.end());
  completed_.clear();
}

void ShmConnection::refused() {
  fail_all(link_.refusal().value_or(Errc::kRefused));
  regions_.clear();  // what this node lent is not ours any more
  last_ = nullptr;
  asked_.clear();
  output_.clear();
  input_bytes_ = 0;
  slots_.clear();
  pool_.reset();
}

void ShmConnection::mapped(TimePoint now) {
  const UniqueFd file = link_.take_passed_fd();
  const wire::HelloReply& reply = link_.hello_reply();
  auto mapping = PoolMapping::map(file, reply.pool_size, reply.epoch_offset);
  if (!mapping.ok()) {
    log::error("node {}: {}", link_.name(), mapping.error().message());
    link_.refuse(now, mapping.error().code);
    return refused();
  }
  if (pool_ == nullptr || !pool_->same_file(**mapping)) pool_ = std::move(*mapping);
  for (auto& [name, region] : regions_) ask(region);  // H4
  for (Pending& pending : pending_) {
    if (pending.region->data != nullptr) ask_persist(pending);
  }
}

void ShmConnection::ask(Region& region) {
  if (region.asked != 0) return;
  RemoteRegion remote;
  remote.id = region.name.id;
  remote.generation = region.name.generation;
  remote.key = region.name.key;
  wire::Request attach;
  attach.kind = wire::Kind::kAttach;
  attach.slot = slots_.bind(remote).slot;
  attach.id = region.asked = next_id_++;
  attach.region = remote.id;
  attach.generation = remote.generation;
  attach.key = remote.key;
  asked_.emplace(region.asked, &region);
  queue_request(attach);
}

void ShmConnection::ask_persist(Pending& pending) {
  const Operation& op = *pending.op;
  const RegionSlots::Binding binding = slots_.bind(*op.region);
  if (binding.fresh) {  // the slot went to another region meanwhile
    wire::Request attach;
    attach.kind = wire::Kind::kAttach;
    attach.slot = binding.slot;
    attach.region = op.region->id;
    attach.generation = op.region->generation;
    attach.key = op.region->key;
    queue_request(attach);
  }
  wire::Request request;
  request.kind = wire::Kind::kPersist;
  request.slot = binding.slot;
  request.id = pending.persist_id = next_id_++;
  request.offset = op.length_bytes == 0 ? 0 : op.offset;
  request.length = op.length_bytes == 0 ? op.region->length_bytes : op.length_bytes;
  queue_request(request);
}

void ShmConnection::queue_request(const wire::Request& request) {
  const std::size_t at = output_.size();
  output_.resize(at + wire::kRequestBytes);
  wire::encode_request(request, std::span<std::byte, wire::kRequestBytes>(output_.data() + at, wire::kRequestBytes));
  link_.watch_output(true);  // sent by submit(), or by the next poll()
}

void ShmConnection::send(TimePoint now) {
  std::size_t sent = 0;
  while (sent < output_.size()) {
    const ssize_t n = ::send(link_.socket(), output_.data() + sent, output_.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) return break_stream(now, std::strerror(errno));
    sent += static_cast<std::size_t>(n);
  }
  output_.erase(output_.begin(), output_.begin() + static_cast<std::ptrdiff_t>(sent));
  link_.watch_output(!output_.empty());
}

void ShmConnection::receive(TimePoint now) {
  for (;;) {
    const ssize_t n = ::recv(link_.socket(), input_.data() + input_bytes_, input_.size() - input_bytes_, MSG_DONTWAIT);
    if (n == 0) return break_stream(now, "the node closed the stream");
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) return break_stream(now, std::strerror(errno));
    input_bytes_ += static_cast<std::size_t>(n);
    if (input_bytes_ < input_.size()) continue;
    input_bytes_ = 0;
    const auto reply = wire::decode_reply(input_);
    if (!reply.ok() || !take_reply(*reply)) return break_stream(now, "the node broke the protocol");
  }
}

bool ShmConnection::take_reply(const wire::Reply& reply) {
  for (auto entry = pending_.begin(); entry != pending_.end(); ++entry) {
    if (entry->persist_id == 0 || entry->persist_id != reply.id) continue;
    if (reply.ok)
      finish(*entry->op);
    else
      fail(*entry->op, reply.status);
    complete_pending(entry);
    return true;
  }
  if (const auto asked = asked_.find(reply.id); asked != asked_.end()) {
    Region& region = *asked->second;
    asked_.erase(asked);
    region.asked = 0;
    return attached(region, reply);
  }
  return reply.id != 0 && reply.id < next_id_;  // an operation that was given up meanwhile
}

bool ShmConnection::attached(Region& region, const wire::Reply& reply) {
  if (reply.ok) {
    if (reply.value % 8 != 0 || reply.value > pool_->size() || reply.length > pool_->size() - reply.value) return false;
    region.pool = pool_;
    region.data = pool_->data() + reply.value;
    region.epoch_word = pool_->epoch_word();
    region.length = reply.length;
    region.writable = reply.writable;
  } else {
    region.pool.reset();
    region.data = nullptr;
  }
  for (auto entry = pending_.begin(); entry != pending_.end();) {
    const auto next = std::next(entry);
    if (entry->region == &region && entry->persist_id == 0) {
      if (!reply.ok) fail(*entry->op, reply.status);
      if (!reply.ok || access(*entry->op, region))
        complete_pending(entry);
      else
        ask_persist(*entry);
    }
    entry = next;
  }
  if (!reply.ok) {
    // Any reason may pass, a lost generation too when the node is started with the right pool again: the next operation
    // asks anew. Persists under way keep the region until they are answered.
    const bool used =
        std::any_of(pending_.begin(), pending_.end(), [&](const Pending& p) { return p.region == &region; });
    if (!used) {
      if (last_ == &region) last_ = nullptr;
      regions_.erase(RegionName(region.name));
    }
  }
  return true;
}

void ShmConnection::break_stream(TimePoint now, const char* why) {
  output_.clear();
  input_bytes_ = 0;
  slots_.clear();
  for (const auto& [id, region] : asked_) region->asked = 0;
  asked_.clear();
  for (Pending& pending : pending_) pending.persist_id = 0;
  link_.broken(now, why, true);
}

}  // namespace rmemfs
