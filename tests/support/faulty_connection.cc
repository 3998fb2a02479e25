#include "tests/support/faulty_connection.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>

#include "util/check.h"

namespace rmemfs {

FaultyConnection::FaultyConnection(std::unique_ptr<Connection> inner, const Faults& faults)
    : inner_(std::move(inner)), faults_(faults), random_(faults.seed) {
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  CHECK(epoll_.valid() && timer_.valid());
  epoll_event event{};
  event.events = EPOLLIN;
  CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, timer_.get(), &event) == 0);
  if (inner_->event_fd() >= 0) CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, inner_->event_fd(), &event) == 0);
}

FaultyConnection::~FaultyConnection() {
  inner_.reset();
  const auto cancel = [](Operation* op) {
    op->ok = false;
    op->error = Errc::kCancelled;
  };
  for (Held& held : held_) cancel(held.op);
  for (Torn& torn : torn_) cancel(torn.original);
  for (Operation* op : late_) cancel(op);
  for (Operation* op : ready_) cancel(op);
}

bool FaultyConnection::hit(unsigned chance) {
  return chance > 0 && std::uniform_int_distribution<unsigned>(0, 999)(random_) < chance;
}

std::size_t FaultyConnection::outstanding() const {
  return inner_->outstanding() + held_.size() + late_.size() + ready_.size();
}

Posted FaultyConnection::post(Operation& op) {
  ++posted_;
  const TimePoint now = MonoClock::now();
  if (posted_ == faults_.fail_nth) {
    ++injected_;
    op.ok = false;
    op.error = faults_.fail_error;
    return Posted::kCompleted;
  }
  if (op.deadline != kNoDeadline && hit(faults_.drop)) {
    ++injected_;
    held_.push_back({&op, op.deadline, false});
    arm();
    return Posted::kPending;
  }
  if (op.kind == OperationKind::kWrite && op.length_bytes > 1 && hit(faults_.tear)) {
    ++injected_;
    Torn& torn = torn_.emplace_back(Torn{&op, op});
    torn.part.length_bytes = std::uniform_int_distribution<std::size_t>(1, op.length_bytes - 1)(random_);
    if (inner_->post(torn.part) == Posted::kCompleted) finished(torn.part);
    arm();
    return Posted::kPending;
  }
  if (hit(faults_.delay)) {
    ++injected_;
    const auto wait = std::uniform_int_distribution<Duration::rep>(0, faults_.max_delay.count())(random_);
    held_.push_back({&op, now + Duration(wait), true});
    arm();
    return Posted::kPending;
  }
  const bool reorder = hit(faults_.reorder);
  const Posted posted = inner_->post(op);
  if (!reorder) return posted;
  ++injected_;
  if (posted == Posted::kCompleted)
    late_.push_back(&op);
  else
    reordering_.push_back(&op);
  arm();
  return Posted::kPending;
}

void FaultyConnection::submit() { inner_->submit(); }

void FaultyConnection::forward(Operation& op) {
  if (inner_->post(op) == Posted::kCompleted) ready_.push_back(&op);
}

void FaultyConnection::finished(Operation& op) {
  for (auto torn = torn_.begin(); torn != torn_.end(); ++torn) {
    if (&torn->part != &op) continue;
    Operation* const original = torn->original;
    original->ok = false;
    original->error = op.ok ? Errc::kUnreachable : op.error;
    torn_.erase(torn);
    ready_.push_back(original);
    return;
  }
  const auto reordered = std::find(reordering_.begin(), reordering_.end(), &op);
  if (reordered == reordering_.end()) {
    ready_.push_back(&op);
    return;
  }
  reordering_.erase(reordered);
  late_.push_back(&op);
}

void FaultyConnection::poll(std::vector<Operation*>& done) {
  std::uint64_t expirations;
  (void)!::read(timer_.get(), &expirations, sizeof expirations);
  std::vector<Operation*> held_back = std::exchange(late_, {});
  const TimePoint now = MonoClock::now();
  bool forwarded = false;
  for (auto held = held_.begin(); held != held_.end();) {
    const auto next = std::next(held);
    if (held->until <= now) {
      Operation& op = *held->op;
      const bool forward_it = held->forward;
      held_.erase(held);
      if (forward_it) {
        forward(op);
        forwarded = true;
      } else {
        op.ok = false;
        op.error = Errc::kDeadline;
        ready_.push_back(&op);
      }
    }
    held = next;
  }
  if (forwarded) inner_->submit();
  inner_done_.clear();
  inner_->poll(inner_done_);
  for (Operation* op : inner_done_) finished(*op);
  std::shuffle(ready_.begin(), ready_.end(), random_);
  done.insert(done.end(), ready_.begin(), ready_.end());
  ready_.clear();
  ready_.swap(held_back);  // these come with the next poll()
  arm();
}

void FaultyConnection::arm() {
  TimePoint when = kNoDeadline;
  if (!ready_.empty() || !late_.empty()) when = MonoClock::now();
  for (const Held& held : held_) when = std::min(when, held.until);
  itimerspec spec{};
  if (when != kNoDeadline) {
    const auto ns = std::max<std::int64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(when.time_since_epoch()).count(), 1);
    spec.it_value.tv_sec = ns / 1'000'000'000;
    spec.it_value.tv_nsec = ns % 1'000'000'000;
  }
  CHECK(::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr) == 0);
}

}  // namespace rmemfs
