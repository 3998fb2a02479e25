#define BOOST_TEST_DYN_LINK
#include <atomic>
#include <boost/test/unit_test.hpp>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "util/range_lock.h"

namespace rmemfs {
namespace {

using enum RangeLock::Mode;

struct Held {
  std::optional<RangeLock::Guard> guard;
};

Task<void> take(RangeLock& lock, std::uint64_t begin, std::uint64_t end, RangeLock::Mode mode, Held& held,
                std::vector<int>& order, int number, TimePoint deadline) {
  RangeLock::Guard guard = co_await lock.lock(begin, end, mode, deadline);
  if (!guard) {
    order.push_back(-number);
    co_return;
  }
  held.guard.emplace(std::move(guard));
  order.push_back(number);
}

struct RangeLockFixture {
  LoopExecutor executor;
  RangeLock lock;
  std::vector<Held> held = std::vector<Held>(8);
  std::vector<int> order;

  void start(int number, std::uint64_t begin, std::uint64_t end, RangeLock::Mode mode,
             TimePoint deadline = kNoDeadline) {
    spawn(take(lock, begin, end, mode, held[static_cast<std::size_t>(number)], order, number, deadline));
  }
  // Lets time pass on the executor until `count` requests have an answer, or for 5 s.
  void answered(std::size_t count) {
    const TimePoint limit = deadline_after_ms(5000);
    while (order.size() < count && MonoClock::now() < limit) {
      executor.run([]() -> Task<void> { co_await Yield(); }());
    }
  }
  void release(int number) {
    held[static_cast<std::size_t>(number)].guard.reset();
    executor.run([]() -> Task<void> { co_await Yield(); }());  // lets the woken run
  }
  bool granted(int number) const { return held[static_cast<std::size_t>(number)].guard.has_value(); }
};

BOOST_FIXTURE_TEST_SUITE(RangeLockTest, RangeLockFixture)

BOOST_AUTO_TEST_CASE(shared_ranges_overlap) {
  start(0, 0, 100, kShared);
  start(1, 50, 150, kShared);
  BOOST_TEST((granted(0) && granted(1)));
}
BOOST_AUTO_TEST_CASE(an_exclusive_range_waits_for_those_it_overlaps) {
  start(0, 0, 100, kShared);
  start(1, 99, 200, kExclusive);
  start(2, 200, 300, kExclusive);
  BOOST_TEST(!granted(1));
  BOOST_TEST(granted(2));  // touching is not overlapping
  release(0);
  BOOST_TEST(granted(1));
}
BOOST_AUTO_TEST_CASE(a_reader_that_comes_after_a_waiting_writer_waits_behind_it) {
  start(0, 0, 100, kShared);
  start(1, 0, 100, kExclusive);
  start(2, 0, 100, kShared);
  start(3, 100, 200, kShared);
  BOOST_TEST((!granted(1) && !granted(2) && granted(3)));
  release(0);
  BOOST_TEST((granted(1) && !granted(2)));
  release(1);
  BOOST_TEST(granted(2));
}
BOOST_AUTO_TEST_CASE(waiting_requests_are_granted_in_order_of_arrival) {
  start(0, 0, UINT64_MAX, kExclusive);
  for (int i = 1; i < 6; ++i) start(i, 0, 10, kExclusive);
  for (int i = 0; i < 5; ++i) release(i);
  BOOST_TEST((order == std::vector<int>{0, 1, 2, 3, 4, 5}));
}
BOOST_AUTO_TEST_CASE(a_moved_guard_releases_once) {
  start(0, 0, 10, kExclusive);
  {
    RangeLock::Guard moved = std::move(*held[0].guard);
    held[0].guard.reset();
    BOOST_TEST(!lock.idle());
  }
  BOOST_TEST(lock.idle());
}
BOOST_AUTO_TEST_CASE(who_waits_until_its_deadline_gets_nothing_and_lets_others_go_on) {
  start(0, 0, 100, kShared);
  start(1, 0, 100, kExclusive, deadline_after_ms(30));
  start(2, 0, 100, kShared, deadline_after_ms(30000));  // behind 1 only
  start(3, 0, 100, kExclusive, deadline_after_ms(30));
  const TimePoint began = MonoClock::now();
  answered(4);
  BOOST_TEST((MonoClock::now() - began < std::chrono::milliseconds(2000)));
  BOOST_TEST((!granted(1) && granted(2) && !granted(3)));
  BOOST_TEST(order.size() == 4u);
  release(0);
  release(2);
  BOOST_TEST(lock.idle());
}
BOOST_AUTO_TEST_CASE(a_deadline_that_passes_after_the_grant_changes_nothing) {
  start(0, 0, 100, kExclusive);
  start(1, 0, 100, kExclusive, deadline_after_ms(20));
  release(0);
  BOOST_TEST(granted(1));
  const TimePoint later = deadline_after_ms(60);
  while (MonoClock::now() < later) executor.run([]() -> Task<void> { co_await Yield(); }());
  BOOST_TEST((order == std::vector<int>{0, 1}));
  release(1);
  BOOST_TEST(lock.idle());
}
BOOST_AUTO_TEST_CASE(a_deadline_that_passed_while_the_thread_did_not_run_is_held_back) {
  start(0, 0, 100, kExclusive);
  start(1, 0, 100, kExclusive, deadline_after_ms(20));
  std::this_thread::sleep_for(std::chrono::milliseconds(1200));  // as when the process is frozen
  executor.run([]() -> Task<void> { co_await Yield(); }());
  BOOST_TEST((order == std::vector<int>{0}));
  release(0);  // the holder's answer was there, and is seen now
  BOOST_TEST(granted(1));
}
BOOST_AUTO_TEST_CASE(threads_never_hold_conflicting_ranges) {
  std::vector<std::atomic<int>> bytes(64);  // -1: a writer, n: readers
  std::atomic<int> conflicts{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      LoopExecutor own;
      std::mt19937 random(t);
      for (int i = 0; i < 400; ++i) {
        const std::uint64_t begin = random() % 60, end = begin + 1 + random() % 4;
        const auto mode = random() % 3 == 0 ? kExclusive : kShared;
        own.run([](RangeLock& l, std::uint64_t b, std::uint64_t e, RangeLock::Mode m, std::vector<std::atomic<int>>& at,
                   std::atomic<int>& bad) -> Task<void> {
          const RangeLock::Guard guard = co_await l.lock(b, e, m, kNoDeadline);
          for (std::uint64_t n = b; n < e; ++n) {
            if (m == kExclusive ? at[n].exchange(-1) != 0 : at[n].fetch_add(1) < 0) ++bad;
          }
          for (std::uint64_t n = b; n < e; ++n) {
            if (m == kExclusive)
              at[n] = 0;
            else
              at[n].fetch_sub(1);
          }
        }(lock, begin, end, mode, bytes, conflicts));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  BOOST_TEST(conflicts == 0);
  BOOST_TEST(lock.idle());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace rmemfs
