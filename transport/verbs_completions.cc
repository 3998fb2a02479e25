// VerbsConnection's way back: from completions and the node's answers to ended operations.
#include <algorithm>
#include <cstring>

#include "transport/operation.h"
#include "transport/verbs_connection.h"
#include "transport/verbs_layout.h"
#include "util/check.h"

namespace rmemfs {
namespace {

constexpr double kLongestSpinUs = 100;  // as a lane
constexpr unsigned kLooksPerClock = 8;  // at the completion queue

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

}  // namespace

// A look at the completion queue costs less than one at the clock and at all the rest, so only some go on: those that
// find something which leaves more to do, and every kLooksPerClock-th. The latter are what wait_us_ is learned from.
bool VerbsConnection::glance(std::vector<Operation*>& done) {
  if (unfinished_ == 0 || !link_.ready() || armed_ || !completed_.empty() || ++looks_ % kLooksPerClock == 0)
    return false;
  found_ = ::ibv_poll_cq(link_.pair().completions(), static_cast<int>(completions_.size()), completions_.data());
  if (found_ == 0) return true;
  if (!ends_everything()) return false;
  found_ = 0;
  ended_ = next_;
  flight_began_ = TimePoint{};
  finished_until(next_);
  CHECK(unfinished_ == 0);
  waited_ = false;
  hand_over(done);
  return true;
}

// What was found is the good end of every operation there is.
bool VerbsConnection::ends_everything() const {
  if (found_ != 1 || unfinished_ != posted_.size()) return false;
  return completions_[0].status == IBV_WC_SUCCESS && completions_[0].wr_id + 1 == next_ &&
         free_messages_.size() == granted_;
}

void VerbsConnection::reap(TimePoint now) {
  for (;;) {
    int got = std::exchange(found_, 0);  // by glance()
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
      if ((mark & verbs::kReceiveMark) == 0) ended_ = std::max(ended_, mark + 1);
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
  if ((completion.wr_id & verbs::kReceiveMark) != 0) {
    if (take_reply(static_cast<std::uint32_t>(completion.wr_id & ~verbs::kReceiveMark), completion.byte_len))
      return true;
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
      std::memcpy(work.copy_to, bounce_.bytes.get() + work.index * verbs::kBounceBytes, work.length);
    }
    free_bounces_.push_back(work.index);
  } else if (work.lands == Lands::kResult) {
    std::memcpy(&work.entry->op->previous, messages_.bytes.get() + verbs::kResultsAt + work.index * 8, work.length);
    free_results_.push_back(work.index);
  }
  if (work.entry == nullptr) return;
  Entry& entry = *work.entry;
  --entry.pending;
  if (!entry.whole || entry.pending > 0) return;
  if (entry.op->kind == OperationKind::kPersist) persisted(entry);
  finish(*entry.op, link_.answer().boot);
  complete(entry);
}

void VerbsConnection::failed_work(const ibv_wc& completion, TimePoint now) {
  const std::string why = ::ibv_wc_status_str(completion.status);
  if ((completion.wr_id & verbs::kReceiveMark) == 0 && completion.wr_id >= done_ && completion.wr_id < next_) {
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
  if (index >= verbs::kMessages || size > verbs::kReplySpace) return false;
  std::byte* const bytes = messages_.bytes.get() + verbs::kRepliesAt + index * verbs::kReplySpace;
  auto reply = verbs::decode_reply({bytes, size});
  if (!reply.ok()) return false;
  if (!link_.pair().receive(verbs::kReceiveMark | index, bytes, verbs::kReplySpace, messages_.registration->lkey))
    return false;
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
    finish(*entry->op, link_.answer().boot);
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
