#define BOOST_TEST_DYN_LINK
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <thread>
#include <vector>

#include "util/mutex.h"

namespace rmemfs {
namespace {

// Runs `action` in a child process; true when a CHECK stopped it.
template <typename Action>
bool stops_the_program(Action action) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(2);
    ::signal(SIGABRT, SIG_DFL);  // Boost.Test would catch it
    action();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

#if !defined(NDEBUG) || defined(RMEMFS_CHECK_LOCK_ORDER)
constexpr bool kOrderIsChecked = true;
#else
constexpr bool kOrderIsChecked = false;
#endif

BOOST_AUTO_TEST_SUITE(MutexTest)

BOOST_AUTO_TEST_CASE(one_thread_at_a_time_is_inside) {
  Mutex mutex(LockRank::kLeaf);
  long counter = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; ++i) {
        MutexLock lock(mutex);
        ++counter;
        if (i % 5000 == 0) std::this_thread::yield();  // others come to sleep
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  BOOST_TEST(counter == 80000);
}
BOOST_AUTO_TEST_CASE(try_lock_does_not_wait) {
  Mutex mutex(LockRank::kLeaf);
  MutexLock lock(mutex);
  bool taken = true;
  std::thread([&] { taken = mutex.try_lock(); }).join();
  BOOST_TEST(!taken);
  lock.unlock();
  BOOST_TEST(mutex.try_lock());
  mutex.unlock();
}
BOOST_AUTO_TEST_CASE(a_sleeper_is_woken) {
  Mutex mutex(LockRank::kLeaf);
  MutexLock lock(mutex);
  bool inside = false;
  std::thread sleeper([&] {
    MutexLock own(mutex);
    inside = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  lock.unlock();
  sleeper.join();
  BOOST_TEST(inside);
}
BOOST_AUTO_TEST_CASE(growing_ranks_are_right) {
  BOOST_TEST(!stops_the_program([] {
    Mutex outer(LockRank::kJournalCommit), inner(LockRank::kJournalLists), again(LockRank::kJournalLists);
    MutexLock a(outer), b(inner);
    again.lock_same_rank();
    again.unlock();
    a.unlock();  // in any order
    b.unlock();
    MutexLock c(outer);
  }));
}
BOOST_AUTO_TEST_CASE(a_falling_rank_stops_a_checked_build) {
  BOOST_TEST(stops_the_program([] {
               Mutex outer(LockRank::kJournalCommit), inner(LockRank::kJournalLists);
               MutexLock b(inner), a(outer);
             }) == kOrderIsChecked);
}
BOOST_AUTO_TEST_CASE(the_same_rank_twice_stops_a_checked_build) {
  BOOST_TEST(stops_the_program([] {
               Mutex one(LockRank::kInode), two(LockRank::kInode);
               MutexLock a(one), b(two);
             }) == kOrderIsChecked);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace rmemfs
