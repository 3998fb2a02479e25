// Not done here: ordering overlapping operations (C3); a native FLUSH, which rdma-core 44 does not have: a region whose
// descriptor asks for it is made persistent by the node's message, which is slower and promises as much.
#include "transport/verbs_connection.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "transport/local_memory.h"
#include "transport/operation.h"
#include "util/check.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kDepth = 256;        // work requests in flight
constexpr std::uint32_t kSignalEvery = 32;   // V1
constexpr std::uint32_t kInlineBytes = 220;  // what common devices take without a larger work queue entry
constexpr std::uint32_t kMessages = 32;      // requests in flight; the node may grant fewer
constexpr std::uint32_t kResults = 64;       // words of COMPARE_SWAP and of reads behind writes
constexpr std::uint32_t kBounces = 4;
constexpr std::size_t kBounceBytes = 64 << 10;
constexpr std::uint64_t kMostBytes = 4 << 20;  // of one work request; a deadline is kept between two of them
constexpr double kLongestSpinUs = 100;         // as a lane
constexpr unsigned kLooksPerClock = 8;         // at the completion queue, when it is empty
constexpr std::uint64_t kReceiveMark = std::uint64_t{1} << 63;
constexpr std::size_t kPage = 4096;
// A device ends what is on a queue pair in the error state within microseconds; after this it is destroyed, with a
// wait.
constexpr Duration kQuietLimit = std::chrono::milliseconds(20);

// The layout of messages_.
constexpr std::size_t kResultsAt = 0;
constexpr std::size_t kRequestsAt = kResultsAt + kResults * 8;
constexpr std::size_t kRepliesAt = kRequestsAt + kMessages * verbs::kRequestBytes;
constexpr std::size_t kReplySpace = 1024;
constexpr std::size_t kMessageMemory = kRepliesAt + kMessages * kReplySpace;
static_assert(verbs::kMaxReplyBytes <= kReplySpace);

double microseconds(Duration time) { return std::chrono::duration<double, std::micro>(time).count(); }

// Refused by the node's device: the key, the bounds or the permission were wrong.
bool refused_by_node(ibv_wc_status status) {
  return status == IBV_WC_REM_ACCESS_ERR || status == IBV_WC_REM_INV_REQ_ERR || status == IBV_WC_REM_OP_ERR;
}
// The operation's own fault on this side.
bool refused_here(ibv_wc_status status) {
  return status == IBV_WC_LOC_PROT_ERR || status == IBV_WC_LOC_LEN_ERR || status == IBV_WC_LOC_QP_OP_ERR ||
         status == IBV_WC_LOC_ACCESS_ERR;
}

// V8: it matters which queue pair wrote.
bool counts_writes(const Operation& op) { return op.region->durability.method == PersistMethod::kReadAfterWrite; }

void fill(std::vector<std::uint32_t>& list, std::uint32_t count) {
  list.clear();
  while (count > 0) list.push_back(--count);
}

}  // namespace

Result<std::unique_ptr<Connection>> VerbsConnection::make(const NodeAddress& address, const ConnectOptions& options) {
  std::unique_ptr<VerbsConnection> connection(new VerbsConnection(address, options));
  RETURN_IF_ERROR(connection->link_.open());
  return std::unique_ptr<Connection>(std::move(connection));
}

VerbsConnection::VerbsConnection(const NodeAddress& address, const ConnectOptions& options)
    : options_(options),
      places_(options.region_places != nullptr ? options.region_places : std::make_shared<RegionPlaces>()),
      link_(address, options, {.sends = kDepth, .receives = kMessages, .inline_bytes = kInlineBytes},
            [this](QueuePair& pair, const std::shared_ptr<VerbsDevice>& device) { return prepare(pair, device); }) {
  CHECK(options_.max_outstanding > 0);
}

VerbsConnection::~VerbsConnection() {
  link_.close(quiet());  // V2
  fail_all(Errc::kCancelled);
}

ConnectionStatistics VerbsConnection::statistics() const {
  ConnectionStatistics statistics = statistics_;
  statistics.reconnects = link_.connects() > 0 ? link_.connects() - 1 : 0;
  return statistics;
}

Result<void> VerbsConnection::own(OwnMemory& memory, std::size_t size, const std::shared_ptr<VerbsDevice>& device) {
  if (memory.registration != nullptr && memory.device == device) return success();
  memory.registration.reset();
  if (memory.bytes == nullptr) {
    memory.bytes = {static_cast<std::byte*>(std::aligned_alloc(kPage, (size + kPage - 1) / kPage * kPage)), &std::free};
    if (memory.bytes == nullptr) return Error(Errc::kNoMemory, "connection");
  }
  ASSIGN_OR_RETURN(memory.registration, device->register_own({memory.bytes.get(), size}));
  memory.device = device;
  return success();
}

Result<void> VerbsConnection::prepare(QueuePair& pair, const std::shared_ptr<VerbsDevice>& device) {
  device_ = device;
  local_ = {};
  RETURN_IF_ERROR(own(messages_, kMessageMemory, device));
  RETURN_IF_ERROR(own(bounce_, kBounces * kBounceBytes, device));
  for (std::uint32_t i = 0; i < kMessages; ++i) {
    if (!pair.receive(kReceiveMark | i, messages_.bytes.get() + kRepliesAt + i * kReplySpace, kReplySpace,
                      messages_.registration->lkey)) {
      return Error(Errc::kNoMemory, "receives");
    }
  }
  return success();
}

void VerbsConnection::began() {
  ring_.resize(link_.pair().sends());
  forget_queue();
  most_ = std::min<std::uint64_t>(kMostBytes, link_.most_message_bytes());
  fill(free_messages_, std::min<std::uint32_t>(kMessages, link_.answer().credits));
  link_.kick(true);
}

// What belonged to a queue pair that is gone, or to none yet.
void VerbsConnection::forget_queue() {
  ring_.assign(ring_.size(), {});
  requests_.resize(kDepth);
  pieces_.resize(kDepth);
  sent_.resize(kMessages);
  next_ = done_ = ended_ = 0;
  gathered_ = 0;
  for (const auto& [name, region] : regions_) {
    if (region.writes > region.persisted) strays_.insert(name);
  }
  regions_.clear();
  to_ask_.clear();
  fill(free_bounces_, kBounces);
  fill(free_results_, kResults);
  free_messages_.clear();
  armed_ = heard_since_armed_ = false;
  found_ = 0;
  flight_began_ = TimePoint{};
}

Posted VerbsConnection::post(Operation& op) {
  if (const auto refusal = link_.refusal()) {
    fail(op, *refusal);
    count(statistics_, op);
    return Posted::kCompleted;
  }
  if (!needs_link(op)) {
    count(statistics_, op);
    return Posted::kCompleted;
  }
  if (!std::exchange(waited_, true)) watch_.begin(MonoClock::now());
  if (free_.empty()) free_.emplace_back();
  free_.front() = Entry{};
  free_.front().op = &op;
  ready_.splice(ready_.end(), free_, free_.begin());
  ++unfinished_;
  if (op.deadline < next_deadline_) {
    next_deadline_ = op.deadline;
    link_.wake_at(next_deadline_);
  }
  return Posted::kPending;
}

void VerbsConnection::complete(Entries& from, Entries::iterator entry) {
  count(statistics_, *entry->op);
  completed_.push_back(entry->op);
  --unfinished_;
  free_.splice(free_.begin(), from, entry);
}

void VerbsConnection::complete(Entry& entry) {
  Entries& home = entry.whole ? posted_ : ready_;
  const auto found = std::find_if(home.begin(), home.end(), [&](const Entry& other) { return &other == &entry; });
  CHECK(found != home.end());  // at or near the front: completions come in the order of posting
  complete(home, found);
}

void VerbsConnection::fail_all(Errc error) {
  CHECK(!link_.ready());
  for (Entries* list : {&posted_, &ready_, &waiting_}) {
    while (!list->empty()) {
      fail(*list->front().op, error);
      complete(*list, list->begin());
    }
  }
  forget_queue();
  next_deadline_ = kNoDeadline;
}

// Ends what is on the queue pair, and sees its end: what completed until then has completed.
bool VerbsConnection::quiet() {
  link_.stop();
  if (!link_.ready()) return true;
  const TimePoint limit = MonoClock::now() + kQuietLimit;
  std::array<ibv_wc, 16> completions;
  bool failed = ended_ > done_;  // one that failed is known already
  while (ended_ < next_) {
    const int got = ::ibv_poll_cq(link_.pair().completions(), completions.size(), completions.data());
    if (got < 0 || (got == 0 && MonoClock::now() >= limit)) return false;
    for (int i = 0; i < got; ++i) {
      const ibv_wc& completion = completions[static_cast<std::size_t>(i)];
      failed = failed || completion.status != IBV_WC_SUCCESS;
      if ((completion.wr_id & kReceiveMark) != 0 || completion.wr_id >= next_) continue;
      ended_ = std::max(ended_, completion.wr_id + 1);
      if (!failed) finished_until(ended_);
    }
  }
  return true;
}

void VerbsConnection::break_link(TimePoint now, const std::string& why) {
  link_.broken(now, why, quiet(), true);
  waiting_.splice(waiting_.begin(), ready_);
  waiting_.splice(waiting_.begin(), posted_);
  ready_.swap(waiting_);
  for (auto entry = ready_.begin(); entry != ready_.end();) {
    const auto next = std::next(entry);
    const bool doubtful = entry->begun() && entry->op->kind == OperationKind::kCompareSwap;
    entry->region = nullptr;
    entry->cut = 0;
    entry->pending = 0;
    entry->whole = false;
    if (doubtful) {  // C4
      fail(*entry->op, Errc::kUnreachable);
      complete(ready_, entry);
    }
    entry = next;
  }
  forget_queue();
  if (!completed_.empty()) link_.wake_at(now);
}

void VerbsConnection::expire(TimePoint now) {
  bool begun = false;
  for (const Entries* list : {&posted_, &ready_}) {
    for (const Entry& entry : *list) begun = begun || (entry.begun() && entry.op->deadline <= now);
  }
  if (begun) break_link(now, "an operation's deadline passed without an answer");  // V2
  next_deadline_ = kNoDeadline;
  for (Entries* list : {&posted_, &ready_, &waiting_}) {
    for (auto entry = list->begin(); entry != list->end();) {
      const auto next = std::next(entry);
      if (entry->op->deadline > now) {
        next_deadline_ = std::min(next_deadline_, entry->op->deadline);
      } else {
        fail(*entry->op, Errc::kDeadline);
        complete(*list, entry);
      }
      entry = next;
    }
  }
}

void VerbsConnection::submit() {
  if (unfinished_ == 0) return;
  if (!link_.ready()) {
    link_.want();
    return;
  }
  pump(MonoClock::now());
}

// While this process did not run, the node may have answered in time: nobody was late but we.
void VerbsConnection::forgive(Duration frozen) {
  for (Entries* list : {&posted_, &ready_, &waiting_}) {
    for (Entry& entry : *list) {
      if (entry.op->deadline != kNoDeadline) entry.op->deadline += frozen;
    }
  }
  if (next_deadline_ != kNoDeadline) next_deadline_ += frozen;
}

// A look at the completion queue costs less than one at the clock, so of those that find nothing only some go on.
bool VerbsConnection::nothing_yet() {
  if (unfinished_ == 0 || !link_.ready() || armed_ || !completed_.empty() || ++looks_ % kLooksPerClock == 0)
    return false;
  found_ = ::ibv_poll_cq(link_.pair().completions(), static_cast<int>(completions_.size()), completions_.data());
  return found_ == 0;
}

void VerbsConnection::poll(std::vector<Operation*>& done) {
  if (nothing_yet()) return;
  const TimePoint now = MonoClock::now();
  if (waited_) {
    if (const Duration frozen = watch_.frozen(now); frozen != Duration::zero()) forgive(frozen);
  }
  const VerbsLink::Event event = link_.advance(now);
  if (event == VerbsLink::Event::kRefused) fail_all(link_.refusal().value_or(Errc::kRefused));
  if (event == VerbsLink::Event::kReady) began();
  if (link_.ready()) reap(now);  // also before a break: what completed has completed
  if (event == VerbsLink::Event::kBroken && link_.ready()) break_link(now, "the node ended the connection");
  if (now >= next_deadline_) expire(now);
  if (unfinished_ > 0 && link_.ready()) pump(now);
  if (unfinished_ > 0 && !link_.ready()) link_.want();
  if (next_deadline_ != kNoDeadline) link_.wake_at(next_deadline_);
  waited_ = unfinished_ > 0;
  if (completed_.empty()) return;
  done.insert(done.end(), completed_.begin(), completed_.end());
  completed_.clear();
}

void VerbsConnection::pump(TimePoint now) {
  while (!ready_.empty() && posted_.size() < options_.max_outstanding && link_.ready()) {
    if (!advance_front(now)) break;
  }
  while (!to_ask_.empty() && !free_messages_.empty() && room()) {
    Region* const region = to_ask_.front();
    to_ask_.pop_front();
    ask(*region);
  }
  if (gathered_ > 0 && link_.ready()) ring_doorbell(now);
}

VerbsConnection::Region& VerbsConnection::region_of(Entry& entry) {
  if (entry.region != nullptr) return *entry.region;
  const RegionName name = RegionName::of(*entry.op->region);
  Region& region = regions_[name];
  region.name = name;
  if (region.place == nullptr) region.place = places_->find(link_.answer().instance, name);
  entry.region = &region;
  return region;
}

bool VerbsConnection::advance_front(TimePoint now) {
  const auto entry = ready_.begin();
  Operation& op = *entry->op;
  if (op.deadline <= now && !entry->begun()) {
    fail(op, Errc::kDeadline);
    complete(ready_, entry);
    return true;
  }
  Region& region = region_of(*entry);
  const bool asks_node = op.kind == OperationKind::kPersist && !persists_by_read(op);
  if (region.place == nullptr || (asks_node && !region.attached)) {
    if (!region.asked) to_ask_.push_back(&region);
    region.asked = true;
    waiting_.splice(waiting_.end(), ready_, entry);
    return true;
  }
  if (!entry->begun()) {
    const std::uint64_t length = op.kind == OperationKind::kCompareSwap ? 8 : op.length_bytes;
    const bool writes = op.kind == OperationKind::kWrite || op.kind == OperationKind::kCompareSwap;
    const bool outside = op.offset > region.place->length || length > region.place->length - op.offset;
    if (outside || (writes && !region.place->writable)) {
      fail(op, outside ? Errc::kOutOfBounds : Errc::kNotPermitted);
      complete(ready_, entry);
      return true;
    }
  }
  if (!cut(*entry)) return false;
  entry->whole = true;
  posted_.splice(posted_.end(), ready_, entry);
  return true;
}

bool VerbsConnection::cut(Entry& entry) {
  switch (entry.op->kind) {
    case OperationKind::kRead:
    case OperationKind::kWrite:
      return cut_transfer(entry);
    case OperationKind::kCompareSwap:
      return cut_word(entry);
    case OperationKind::kPersist:
      break;
  }
  entry.covers = entry.region->writes;
  if (persists_by_read(*entry.op)) return cut_word(entry);
  // Strays are anywhere in the region, so it is taken as a whole then.
  const bool whole = entry.op->length_bytes == 0 || strays_.contains(entry.region->name);
  verbs::Request request;
  request.kind = verbs::Kind::kPersist;
  request.region = entry.op->region->id;
  request.offset = whole ? 0 : entry.op->offset;
  request.length = whole ? entry.region->place->length : entry.op->length_bytes;
  if (!send_request(request, nullptr, &entry)) return false;
  ++entry.pending;  // until it is answered
  return true;
}

bool VerbsConnection::persists_by_read(const Operation& op) const {
  return counts_writes(op) && !strays_.contains(RegionName::of(*op.region));
}

void VerbsConnection::persisted(Entry& entry) {
  if (!counts_writes(*entry.op)) return;
  entry.region->persisted = std::max(entry.region->persisted, entry.covers);
  strays_.erase(entry.region->name);
}

bool VerbsConnection::cut_transfer(Entry& entry) {
  Operation& op = *entry.op;
  const bool write = op.kind == OperationKind::kWrite;
  while (entry.cut < op.length_bytes) {
    if (!room()) return false;
    verbs::Part part =
        verbs::first_part(*entry.region->place, op.offset + entry.cut, op.length_bytes - entry.cut, most_);
    std::byte* const data = op.buffer + entry.cut;
    Work work;
    work.entry = &entry;
    const std::byte* local = data;
    std::uint32_t key = 0;
    const bool by_value = write && part.length <= link_.pair().inline_bytes();
    if (!by_value) {
      if (const auto found = local_key(data, part.length)) {
        key = *found;
      } else {
        if (free_bounces_.empty()) return false;
        work.lands = Lands::kBounce;
        work.index = free_bounces_.back();
        free_bounces_.pop_back();
        part.length = std::min<std::uint64_t>(part.length, kBounceBytes);
        std::byte* const bounce = bounce_.bytes.get() + work.index * kBounceBytes;
        if (write)
          std::memcpy(bounce, data, part.length);
        else
          work.copy_to = data;
        local = bounce;
        key = bounce_.registration->lkey;
      }
    }
    work.length = static_cast<std::uint32_t>(part.length);
    ibv_send_wr& request = gather(work, local, part.length, key);
    request.opcode = write ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ;
    if (by_value) request.send_flags = IBV_SEND_INLINE;
    request.wr.rdma.remote_addr = part.address;
    request.wr.rdma.rkey = part.rkey;
    if (write && counts_writes(op)) ++entry.region->writes;
    entry.cut += part.length;
    ++entry.pending;
  }
  return true;
}

bool VerbsConnection::cut_word(Entry& entry) {
  if (!room() || free_results_.empty()) return false;
  Operation& op = *entry.op;
  const bool swap = op.kind == OperationKind::kCompareSwap;
  const std::uint64_t length = std::min<std::uint64_t>(8, entry.region->place->length);
  const verbs::Part part = verbs::first_part(*entry.region->place, swap ? op.offset : 0, length, 8);
  Work work;
  work.entry = &entry;
  work.lands = Lands::kResult;
  work.index = free_results_.back();
  work.length = static_cast<std::uint32_t>(part.length);
  free_results_.pop_back();
  ibv_send_wr& request =
      gather(work, messages_.bytes.get() + kResultsAt + work.index * 8, part.length, messages_.registration->lkey);
  if (swap) {
    if (counts_writes(op)) ++entry.region->writes;
    request.opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
    request.wr.atomic.remote_addr = part.address;
    request.wr.atomic.rkey = part.rkey;
    request.wr.atomic.compare_add = op.expected;
    request.wr.atomic.swap = op.desired;
  } else {
    request.opcode = IBV_WR_RDMA_READ;
    request.wr.rdma.remote_addr = part.address;
    request.wr.rdma.rkey = part.rkey;
  }
  ++entry.pending;
  return true;
}

void VerbsConnection::ask(Region& region) {
  verbs::Request request;
  request.kind = verbs::Kind::kAttach;
  request.region = region.name.id;
  request.generation = region.name.generation;
  request.key = region.name.key;
  CHECK(send_request(request, &region, nullptr));
}

bool VerbsConnection::send_request(const verbs::Request& content, Region* region, Entry* entry) {
  if (free_messages_.empty() || !room()) return false;
  const std::uint32_t index = free_messages_.back();
  free_messages_.pop_back();
  Message& message = sent_[index];
  message.region = region;
  message.entry = entry;
  ++message.tag;
  verbs::Request request = content;
  request.id = (std::uint64_t{message.tag} << 32) | index;
  std::byte* const bytes = messages_.bytes.get() + kRequestsAt + index * verbs::kRequestBytes;
  verbs::encode_request(request, std::span<std::byte, verbs::kRequestBytes>(bytes, verbs::kRequestBytes));
  gather({}, bytes, verbs::kRequestBytes, messages_.registration->lkey).opcode = IBV_WR_SEND;
  return true;
}

ibv_send_wr& VerbsConnection::gather(const Work& work, const std::byte* local, std::uint64_t length,
                                     std::uint32_t lkey) {
  ring_[(next_ + gathered_) % ring_.size()] = work;
  ibv_sge& piece = pieces_[gathered_];
  piece = {reinterpret_cast<std::uint64_t>(local), static_cast<std::uint32_t>(length), lkey};
  ibv_send_wr& request = requests_[gathered_];
  request = {};
  request.wr_id = next_ + gathered_;
  request.sg_list = &piece;
  request.num_sge = 1;
  ++gathered_;
  return request;
}

std::optional<std::uint32_t> VerbsConnection::local_key(const std::byte* data, std::size_t size) {
  if (!local_.holds(data, size) || local_.stamp != device_->stamp()) {
    const auto found = device_->find(data, size);
    if (!found) return std::nullopt;
    local_ = *found;
  }
  return local_.lkey;
}

void VerbsConnection::ring_doorbell(TimePoint now) {
  const std::size_t count = std::exchange(gathered_, 0);
  for (std::size_t i = 0; i < count; ++i) {
    const bool last = i + 1 == count;
    requests_[i].next = last ? nullptr : &requests_[i + 1];
    if (last || requests_[i].wr_id % kSignalEvery == kSignalEvery - 1) {
      requests_[i].send_flags |= IBV_SEND_SIGNALED;
      ++statistics_.signalled;
    }
  }
  if (next_ == done_) flight_began_ = now;
  quiet_since_ = now;
  next_ += count;
  statistics_.work_requests += count;
  ++statistics_.doorbells;
  ibv_send_wr* bad = nullptr;
  if (const int error = ::ibv_post_send(link_.pair().pair(), requests_.data(), &bad); error != 0) {
    break_link(now, std::string("posting to the queue pair: ") + std::strerror(error));
  }
}

void VerbsConnection::reap(TimePoint now) {
  for (;;) {
    int got = std::exchange(found_, 0);  // by nothing_yet()
    if (got == 0) {
      got = ::ibv_poll_cq(link_.pair().completions(), static_cast<int>(completions_.size()), completions_.data());
    }
    if (got < 0) return break_link(now, "the completion queue is broken");
    if (got == 0) {
      if (armed_ && !(heard_since_armed_ && link_.take_completion_event())) return;
      if (armed_) {
        armed_ = false;
        link_.kick(true);
      }
      const double spin = wait_us_ <= kLongestSpinUs ? std::min(2 * wait_us_ + 5, kLongestSpinUs) : 0;
      if (microseconds(now - quiet_since_) < spin) return;
      armed_ = link_.pair().arm();
      if (!armed_) return break_link(now, "the completion queue cannot be armed");
      heard_since_armed_ = false;
      link_.kick(false);
      continue;  // once more: what completed before it was armed makes no event
    }
    heard_since_armed_ = true;
    quiet_since_ = now;
    for (int i = 0; i < got; ++i) {
      const std::uint64_t mark = completions_[static_cast<std::size_t>(i)].wr_id;
      if ((mark & kReceiveMark) == 0) ended_ = std::max(ended_, mark + 1);
    }
    for (int i = 0; i < got; ++i) {
      if (!take(completions_[static_cast<std::size_t>(i)], now)) return;
    }
    if (unfinished_ == 0 && !armed_) return;  // nothing is left to look for
  }
}

bool VerbsConnection::take(const ibv_wc& completion, TimePoint now) {
  if (completion.status != IBV_WC_SUCCESS) {
    failed_work(completion, now);
    return false;
  }
  if ((completion.wr_id & kReceiveMark) != 0) {
    if (take_reply(static_cast<std::uint32_t>(completion.wr_id & ~kReceiveMark), completion.byte_len)) return true;
    break_link(now, "the node broke the protocol");
    return false;
  }
  if (flight_began_ != TimePoint{}) {
    wait_us_ += (std::min(microseconds(now - flight_began_), 10000.0) - wait_us_) / 8;
  }
  finished_until(completion.wr_id + 1);
  flight_began_ = next_ == done_ ? TimePoint{} : now;
  return true;
}

void VerbsConnection::finished_until(std::uint64_t sequence) {
  CHECK(sequence <= next_);
  for (; done_ < sequence; ++done_) finish_work(ring_[done_ % ring_.size()]);
}

void VerbsConnection::finish_work(Work& work) {
  if (work.lands == Lands::kBounce) {
    if (work.copy_to != nullptr) {
      std::memcpy(work.copy_to, bounce_.bytes.get() + work.index * kBounceBytes, work.length);
    }
    free_bounces_.push_back(work.index);
  } else if (work.lands == Lands::kResult) {
    std::memcpy(&work.entry->op->previous, messages_.bytes.get() + kResultsAt + work.index * 8, work.length);
    free_results_.push_back(work.index);
  }
  if (work.entry == nullptr) return;
  Entry& entry = *work.entry;
  --entry.pending;
  if (!entry.whole || entry.pending > 0) return;
  if (entry.op->kind == OperationKind::kPersist) persisted(entry);
  finish(*entry.op);
  complete(entry);
}

void VerbsConnection::failed_work(const ibv_wc& completion, TimePoint now) {
  const std::string why = ::ibv_wc_status_str(completion.status);
  if ((completion.wr_id & kReceiveMark) == 0 && completion.wr_id >= done_ && completion.wr_id < next_) {
    finished_until(completion.wr_id);  // all before it went well (V1)
    Entry* const entry = ring_[completion.wr_id % ring_.size()].entry;
    if (entry != nullptr && (refused_by_node(completion.status) || refused_here(completion.status))) {
      if (entry->struck) {
        // The queue pair is in error, so its device sends nothing more; still it goes first (V2).
        Operation* const op = entry->op;
        const Errc error = refused_by_node(completion.status) ? Errc::kRefused : Errc::kLocalIo;
        break_link(now, why);
        const auto found = std::find_if(ready_.begin(), ready_.end(), [op](const Entry& e) { return e.op == op; });
        if (found == ready_.end()) return;  // a COMPARE_SWAP: failed already
        fail(*op, error);
        complete(ready_, found);
        link_.wake_at(now);
        return;
      }
      entry->struck = true;
      places_->forget(link_.answer().instance, RegionName::of(*entry->op->region));
      if (entry->op->kind == OperationKind::kCompareSwap) {
        // Refused, it has not happened: it is as good as not begun.
        entry->cut = 0;
        entry->pending = 0;
        entry->whole = false;
        const auto found =
            std::find_if(posted_.begin(), posted_.end(), [entry](const Entry& e) { return &e == entry; });
        if (found != posted_.end()) ready_.splice(ready_.begin(), posted_, found);
      }
    }
  }
  break_link(now, why);
}

bool VerbsConnection::take_reply(std::uint32_t index, std::size_t size) {
  if (index >= kMessages || size > kReplySpace) return false;
  std::byte* const bytes = messages_.bytes.get() + kRepliesAt + index * kReplySpace;
  auto reply = verbs::decode_reply({bytes, size});
  if (!reply.ok()) return false;
  if (!link_.pair().receive(kReceiveMark | index, bytes, kReplySpace, messages_.registration->lkey)) return false;
  const std::uint64_t number = reply->id & 0xffffffffu;
  if (number >= sent_.size()) return false;
  Message& message = sent_[number];
  if (message.tag != reply->id >> 32 || (message.region == nullptr && message.entry == nullptr)) return false;
  Region* const region = std::exchange(message.region, nullptr);
  Entry* const entry = std::exchange(message.entry, nullptr);
  free_messages_.push_back(static_cast<std::uint32_t>(number));
  if (region != nullptr) {
    if (reply->ok && reply->pieces.empty()) return false;
    attached(*region, std::move(*reply));
    return true;
  }
  if (!reply->pieces.empty()) return false;
  if (reply->ok) {
    persisted(*entry);
    finish(*entry->op);
  } else {
    fail(*entry->op, reply->status);
  }
  complete(*entry);
  return true;
}

void VerbsConnection::attached(Region& region, verbs::Reply&& reply) {
  region.asked = false;
  region.attached = reply.ok;
  const Errc refused = reply.status;
  if (reply.ok) {
    region.place = std::make_shared<const verbs::Reply>(std::move(reply));
    places_->add(link_.answer().instance, region.name, region.place);
  }
  for (auto entry = waiting_.begin(); entry != waiting_.end();) {
    const auto next = std::next(entry);
    if (entry->region == &region) {
      if (region.attached) {
        ready_.splice(ready_.end(), waiting_, entry);
      } else {
        fail(*entry->op, refused);
        complete(waiting_, entry);
      }
    }
    entry = next;
  }
}

}  // namespace rmemfs
