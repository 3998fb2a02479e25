#define BOOST_TEST_DYN_LINK
#include <atomic>
#include <boost/test/unit_test.hpp>
#include <thread>
#include <vector>

#include "util/executor.h"

namespace rmemfs {
namespace {

using namespace std::chrono_literals;

Task<int> value(int n) { co_return n; }
Task<int> sum(int n) {
  int total = 0;
  for (int i = 1; i <= n; ++i) total += co_await value(i);
  co_return total;
}

struct GoTo {
  Executor& executor;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) const { executor.post(handle); }
  void await_resume() const noexcept {}
};

BOOST_AUTO_TEST_SUITE(ExecutorTest)

BOOST_AUTO_TEST_CASE(a_task_runs_when_awaited_and_returns_its_value) {
  LoopExecutor executor;
  BOOST_TEST(executor.run(sum(1000)) == 500500);
}
BOOST_AUTO_TEST_CASE(a_task_may_run_elsewhere_and_ends_where_it_was_awaited) {
  LoopExecutor home;
  std::atomic<LoopExecutor*> other{nullptr};
  std::atomic<bool> stop{false};
  std::thread thread([&] {
    LoopExecutor its;  // of the thread that makes it
    other = &its;
    its.run([](std::atomic<bool>& stopped) -> Task<void> {
      while (!stopped) co_await Yield();
    }(stop));
  });
  const std::thread::id there = thread.get_id();
  while (other.load() == nullptr) std::this_thread::yield();
  const auto visit = [](Executor& away, Executor& back) -> Task<std::thread::id> {
    co_await GoTo{away};
    const std::thread::id seen = std::this_thread::get_id();
    co_await GoTo{back};
    co_return seen;
  };
  const auto visits = [&visit](Executor& away, Executor& back, std::thread::id expected) -> Task<int> {
    int right = 0;
    for (int i = 0; i < 2000; ++i) right += (co_await visit(away, back)) == expected ? 1 : 0;
    co_return right;
  };
  BOOST_TEST(home.run(visits(*other.load(), home, there)) == 2000);
  stop = true;
  thread.join();
}
BOOST_AUTO_TEST_CASE(yield_lets_others_run) {
  LoopExecutor executor;
  std::vector<int> order;
  const auto walk = [](std::vector<int>& trace, int number) -> Task<void> {
    for (int i = 0; i < 3; ++i) {
      trace.push_back(number);
      co_await Yield();
    }
  };
  spawn(walk(order, 1));
  executor.run(walk(order, 2));
  BOOST_TEST((order == std::vector<int>{1, 2, 1, 2, 1, 2}));
}
BOOST_AUTO_TEST_CASE(an_inner_executor_gives_way_to_the_outer_one) {
  LoopExecutor outer;
  {
    LoopExecutor inner;
    BOOST_TEST(&Executor::current() == &inner);
  }
  BOOST_TEST(&Executor::current() == &outer);
}
BOOST_AUTO_TEST_CASE(blocking_work_resumes_its_coroutine_on_its_own_thread) {
  LoopExecutor executor;
  BlockingPool pool(2);
  const auto work = [](BlockingPool& p) -> Task<bool> {
    const auto home = std::this_thread::get_id();
    const auto away = co_await p.run([] { return std::this_thread::get_id(); });
    co_return away != home&& std::this_thread::get_id() == home;
  };
  BOOST_TEST(executor.run(work(pool)));
}
BOOST_AUTO_TEST_CASE(a_pool_finishes_what_is_queued_before_it_goes) {
  std::atomic<int> done{0};
  {
    BlockingPool pool(2);
    for (int i = 0; i < 50; ++i) pool.submit([&] { ++done; });
  }
  BOOST_TEST(done == 50);
}
BOOST_AUTO_TEST_CASE(idle_time_is_given_to_the_hook) {
  LoopExecutor executor;
  WaitList list;
  int idle = 0;
  executor.on_idle = [&] {
    if (++idle == 3) list.wake();
  };
  BOOST_TEST(executor.run([](WaitList& l) -> Task<bool> { co_return co_await l.wait(kNoDeadline); }(list)));
  BOOST_TEST(idle == 3);
}

BOOST_AUTO_TEST_SUITE_END()

struct WaitFixture {
  LoopExecutor executor;
  WaitList list;
  std::vector<int> woken, late;

  Task<void> wait(int number, TimePoint deadline) {
    const bool ok = co_await list.wait(deadline);
    (ok ? woken : late).push_back(number);
  }
  void settle() {
    executor.run([]() -> Task<void> { co_await Yield(); }());
  }
};

BOOST_FIXTURE_TEST_SUITE(WaitListTest, WaitFixture)

BOOST_AUTO_TEST_CASE(waiters_are_woken_first_come_first_served) {
  for (int i = 0; i < 4; ++i) spawn(wait(i, kNoDeadline));
  BOOST_TEST(list.size() == 4u);
  BOOST_TEST(list.wake(2) == 2u);
  settle();
  BOOST_TEST((woken == std::vector<int>{0, 1}));
  BOOST_TEST(list.wake() == 2u);
  settle();
  BOOST_TEST((woken == std::vector<int>{0, 1, 2, 3}));
  BOOST_TEST(list.wake() == 0u);
}
BOOST_AUTO_TEST_CASE(late_waiters_are_told_so) {
  const TimePoint now = MonoClock::now();
  spawn(wait(0, now + 1h));
  spawn(wait(1, now - 1ms));
  spawn(wait(2, now + 2h));
  BOOST_TEST(list.expire(now) == 1u);
  settle();
  BOOST_TEST((late == std::vector<int>{1}));
  BOOST_TEST(list.size() == 2u);
  list.wake();
  settle();
  BOOST_TEST((woken == std::vector<int>{0, 2}));
}
BOOST_AUTO_TEST_CASE(who_finds_the_condition_true_does_not_wait) {
  const auto ask = [](WaitList& l) -> Task<bool> { co_return co_await l.wait(kNoDeadline, [] { return true; }); };
  BOOST_TEST(executor.run(ask(list)));
  BOOST_TEST(list.size() == 0u);
}
BOOST_AUTO_TEST_CASE(another_thread_may_wake) {
  std::thread waker([&] {
    while (list.wake() == 0) std::this_thread::yield();
  });
  executor.run(wait(7, kNoDeadline));
  waker.join();
  BOOST_TEST((woken == std::vector<int>{7}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace rmemfs
