// Time: a monotonic clock for deadlines, the wall clock for file times.
#pragma once

#include <time.h>

#include <chrono>
#include <cstdint>

namespace rmemfs {

using MonoClock = std::chrono::steady_clock;
using TimePoint = MonoClock::time_point;
using Duration = MonoClock::duration;

inline TimePoint deadline_after_ms(std::uint64_t ms) { return MonoClock::now() + std::chrono::milliseconds(ms); }
inline constexpr TimePoint kNoDeadline = TimePoint::max();

// Tells a thread that keeps deadlines whether it was not running for long (its process was frozen, or there was no
// processor): then what the deadlines limit may have happened meanwhile and wait to be seen. One thread.
class FreezeWatch {
 public:
  void begin(TimePoint now) { seen_ = now; }
  // Since begin() or the last call, when that was too long ago to be a tick; otherwise zero.
  Duration frozen(TimePoint now) {
    const Duration gap = now - seen_;
    seen_ = now;
    return gap > kLongestTick ? gap : Duration::zero();
  }

 private:
  static constexpr std::chrono::milliseconds kLongestTick{1000};  // deadlines are looked at every 50 ms
  TimePoint seen_{};
};

// A file time: seconds since the epoch (may be negative) and nanoseconds in [0, 1e9).
struct Timestamp {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;
  auto operator<=>(const Timestamp&) const = default;  // NOLINT(modernize-use-nullptr): the compiler's own 0
};

// The precise clock: two changes of a file that somebody looked at in between never have the same time, and changes of
// different files are ordered as they were made. The kernel's file systems promise the same (multigrain timestamps).
inline Timestamp now_timestamp() {
  timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  return {ts.tv_sec, static_cast<std::uint32_t>(ts.tv_nsec)};
}

}  // namespace rmemfs
