// NodeClock: what an agent knows about a node's clock, to give its requests deadlines that the node keeps (C5).
//
// The node reads its clock before it sends a reply, so at the moment the reply was received the node's clock was at
// least `clock_ns`: their difference is a lower bound of the node's clock minus ours. The bound is good for that moment
// only. Two hosts' clocks drift apart, by less than 1/1000 we assume (the kernel slews by 1/2000 at most), so it sinks
// by 1/1000 of the time that passes until the deadline. Every reply offers a new one and the highest is kept.
//
// So expires() is never later than the agent's own deadline, and it is earlier by the reply's way back and 1/1000 of
// the time between the reply and the deadline. After a long silence that is much: a node may then refuse what is not
// late, and its refusal is a reply that brings the bound up to date.
//
// Thread-safety: one thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "util/clock.h"

namespace rmemfs {

// Above it nothing that says it is a clock is believed: 146 years. It keeps the sums below from overflowing.
inline constexpr std::uint64_t kMaxClockNs = std::uint64_t{1} << 62;

inline std::int64_t nanoseconds_of(TimePoint time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

// A node's clock as it tells it: CLOCK_MONOTONIC, never 0.
inline std::uint64_t node_clock_ns() {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(nanoseconds_of(MonoClock::now()), 1));
}

class NodeClock {
 public:
  NodeClock() = default;
  // From a stream's first answer: nothing that another stream told counts, since the node may have been booted anew.
  // `received`: read after the answer was.
  NodeClock(std::uint64_t clock_ns, TimePoint received)
      : ahead_ns_(static_cast<std::int64_t>(clock_ns) - nanoseconds_of(received)), at_ns_(nanoseconds_of(received)) {}

  void learn(std::uint64_t clock_ns, TimePoint received) {
    const NodeClock fresh(clock_ns, received);
    if (fresh.ahead_ns_ >= ahead_ns_ - drift_ns(fresh.at_ns_)) *this = fresh;
  }

  // A deadline in the node's clock; 0: none.
  std::uint64_t expires_ns(TimePoint deadline) const {
    const std::int64_t ours = nanoseconds_of(deadline);
    if (deadline == kNoDeadline || ours >= static_cast<std::int64_t>(kMaxClockNs)) return 0;
    const std::int64_t at = std::max(ours, at_ns_);  // one before the answer has passed in the node's clock as well
    return static_cast<std::uint64_t>(std::max<std::int64_t>(ahead_ns_ + at - drift_ns(at), 1));
  }

 private:
  std::int64_t drift_ns(std::int64_t until_ns) const { return until_ns <= at_ns_ ? 0 : (until_ns - at_ns_) / 1000 + 1; }

  std::int64_t ahead_ns_ = 0;  // the node's clock was at least this far ahead of ours
  std::int64_t at_ns_ = 0;     // at this time of ours
};

}  // namespace rmemfs
