// Not done here: ordering overlapping operations (C3); a native FLUSH, which rdma-core 44 does not have: a region whose
// descriptor asks for it is made persistent by the node's message, which is slower and promises as much.
#include "transport/verbs_connection.h"

#include <algorithm>
#include <cstdlib>

#include "transport/local_memory.h"
#include "transport/operation.h"
#include "transport/verbs_layout.h"
#include "util/check.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kDepth = 256;          // work requests in flight
constexpr std::uint32_t kInlineBytes = 220;    // what common devices take without a larger work queue entry
constexpr std::uint64_t kMostBytes = 4 << 20;  // of one work request; a deadline is kept between two of them
constexpr std::size_t kPage = 4096;
// A device ends what is on a queue pair in the error state within microseconds; after this it is destroyed, with a
// wait.
constexpr Duration kQuietLimit = std::chrono::milliseconds(20);

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
      link_(address, options, {.sends = kDepth, .receives = verbs::kMessages, .inline_bytes = kInlineBytes},
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
  RETURN_IF_ERROR(own(messages_, verbs::kMessageMemory, device));
  RETURN_IF_ERROR(own(bounce_, verbs::kBounces * verbs::kBounceBytes, device));
  for (std::uint32_t i = 0; i < verbs::kMessages; ++i) {
    if (!pair.receive(verbs::kReceiveMark | i, messages_.bytes.get() + verbs::kRepliesAt + i * verbs::kReplySpace,
                      verbs::kReplySpace, messages_.registration->lkey)) {
      return Error(Errc::kNoMemory, "receives");
    }
  }
  return success();
}

void VerbsConnection::began() {
  ring_.resize(link_.pair().sends());
  forget_queue();
  most_ = std::min<std::uint64_t>(kMostBytes, link_.most_message_bytes());
  granted_ = std::min<std::uint32_t>(verbs::kMessages, link_.answer().credits);
  fill(free_messages_, granted_);
  link_.kick(true);
}

// What belonged to a queue pair that is gone, or to none yet.
void VerbsConnection::forget_queue() {
  ring_.assign(ring_.size(), {});
  requests_.resize(kDepth);
  pieces_.resize(kDepth);
  sent_.resize(verbs::kMessages);
  next_ = done_ = ended_ = 0;
  gathered_ = 0;
  for (const auto& [name, region] : regions_) {
    if (region.writes > region.persisted) strays_.insert(name);
  }
  regions_.clear();
  last_region_ = nullptr;
  to_ask_.clear();
  fill(free_bounces_, verbs::kBounces);
  fill(free_results_, verbs::kResults);
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
      if ((completion.wr_id & verbs::kReceiveMark) != 0 || completion.wr_id >= next_) continue;
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
  const TimePoint now = MonoClock::now();
  if (!std::exchange(waited_, true)) watch_.begin(now);
  if (!link_.ready()) {
    link_.want();
    return;
  }
  pump(now);
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

void VerbsConnection::hand_over(std::vector<Operation*>& done) {
  done.insert(done.end(), completed_.begin(), completed_.end());
  completed_.clear();
}

void VerbsConnection::poll(std::vector<Operation*>& done) {
  if (glance(done)) return;
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
  if (!completed_.empty()) hand_over(done);
}

}  // namespace rmemfs
