#include "transport/disposal.h"

#include <boost/test/unit_test.hpp>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>

namespace rmemfs {

BOOST_AUTO_TEST_SUITE(disposal)

BOOST_AUTO_TEST_CASE(whoever_gives_waits_for_nothing_and_knows_when_it_is_full) {
  std::promise<void> gate;
  const std::shared_future<void> open = gate.get_future().share();
  std::atomic<int> running{0}, most{0}, done{0};
  {
    Disposal disposal(2, 5);
    for (int i = 0; i < 5; ++i) {
      BOOST_TEST(!disposal.full());
      disposal.take([&] {
        const int now = ++running;
        int seen = most;
        while (now > seen && !most.compare_exchange_weak(seen, now)) {}
        open.wait();
        --running;
        ++done;
      });
    }
    BOOST_TEST(disposal.full());
    BOOST_TEST(disposal.pending() == 5u);
    disposal.take([&] { ++done; });  // never refused
    BOOST_TEST(disposal.pending() == 6u);
    while (running < 2) std::this_thread::yield();
    BOOST_TEST(done == 0);
    gate.set_value();
  }
  BOOST_TEST(done == 6);
  BOOST_TEST(most == 2);
}

BOOST_AUTO_TEST_CASE(what_is_held_is_let_go_before_it_counts_as_done) {
  auto thing = std::make_shared<int>(1);
  const std::weak_ptr<int> watched = thing;
  Disposal disposal(1, 1);
  disposal.take([kept = std::move(thing)] {});
  while (disposal.pending() > 0) std::this_thread::yield();
  BOOST_TEST(watched.expired());
  BOOST_TEST(!disposal.full());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
