#include <boost/test/unit_test.hpp>
#include <random>
#include <vector>

#include "memnode/region_allocator.h"

using rmemfs::RegionAllocator;

namespace {
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kHuge = 2 << 20;
}  // namespace

BOOST_AUTO_TEST_SUITE(region_allocator)

BOOST_AUTO_TEST_CASE(the_first_run_that_fits_is_taken) {
  RegionAllocator allocator(10 * kPage, kPage, kHuge);
  const auto a = allocator.take(2 * kPage, kPage);
  const auto b = allocator.take(3 * kPage, kPage);
  BOOST_REQUIRE((a && b));
  BOOST_TEST(a->offset == 0u);
  BOOST_TEST(b->offset == 2 * kPage);
  allocator.give(*a);
  const auto c = allocator.take(kPage, kPage);
  BOOST_REQUIRE(c);
  BOOST_TEST(c->offset == 0u);
  BOOST_TEST(allocator.free_bytes() == 6 * kPage);
}

BOOST_AUTO_TEST_CASE(less_than_asked_but_not_less_than_the_minimum_is_given) {
  RegionAllocator allocator(4 * kPage, kPage, kHuge);
  BOOST_TEST(!allocator.take(8 * kPage, 5 * kPage));
  const auto run = allocator.take(8 * kPage, 3 * kPage);
  BOOST_REQUIRE(run);
  BOOST_TEST(run->length == 4 * kPage);
  BOOST_TEST(!allocator.take(kPage, kPage));
}

BOOST_AUTO_TEST_CASE(large_runs_begin_on_huge_pages) {
  RegionAllocator allocator(4 * kHuge, kPage, kHuge);
  BOOST_REQUIRE(allocator.take(kPage, kPage));
  const auto run = allocator.take(kHuge, kHuge);
  BOOST_REQUIRE(run);
  BOOST_TEST(run->offset == kHuge);
  // What is left before it serves small ones.
  const auto small = allocator.take(kPage, kPage);
  BOOST_REQUIRE(small);
  BOOST_TEST(small->offset == kPage);
}

BOOST_AUTO_TEST_CASE(taking_exactly_refuses_what_is_taken_or_outside) {
  RegionAllocator allocator(8 * kPage, kPage, kHuge);
  BOOST_TEST(allocator.take_exactly({2 * kPage, 2 * kPage}));
  BOOST_TEST(!allocator.take_exactly({3 * kPage, kPage}));
  BOOST_TEST(!allocator.take_exactly({kPage, 2 * kPage}));
  BOOST_TEST(!allocator.take_exactly({7 * kPage, 2 * kPage}));
  BOOST_TEST(!allocator.take_exactly({8 * kPage, kPage}));
  BOOST_TEST(!allocator.take_exactly({4 * kPage, 0}));
  BOOST_TEST(!allocator.take_exactly({4 * kPage, 100}));
  BOOST_TEST(!allocator.take_exactly({4 * kPage, UINT64_MAX - kPage + 1}));
  BOOST_TEST(allocator.take_exactly({4 * kPage, 4 * kPage}));
  BOOST_TEST(allocator.free_bytes() == 2 * kPage);
}

BOOST_AUTO_TEST_CASE(random_takes_and_gives_never_overlap_and_end_as_one_run) {
  const unsigned seed = std::random_device{}();
  BOOST_TEST_MESSAGE("seed " << seed);
  std::mt19937 random(seed);
  constexpr std::uint64_t kSize = 16 * kHuge;
  RegionAllocator allocator(kSize, kPage, kHuge);
  std::vector<bool> taken(kSize / kPage);
  std::vector<RegionAllocator::Run> runs;
  for (int step = 0; step < 5000; ++step) {
    if (runs.empty() || random() % 2 == 0) {
      const std::uint64_t length = (random() % 1200 + 1) * kPage;
      const auto run = allocator.take(length, kPage * (random() % (length / kPage) + 1));
      if (!run) continue;
      BOOST_REQUIRE(run->length <= length);
      for (std::uint64_t page = run->offset / kPage; page < (run->offset + run->length) / kPage; ++page) {
        BOOST_REQUIRE(!taken[page]);
        taken[page] = true;
      }
      runs.push_back(*run);
    } else {
      const std::size_t i = random() % runs.size();
      for (std::uint64_t page = runs[i].offset / kPage; page < (runs[i].offset + runs[i].length) / kPage; ++page) {
        taken[page] = false;
      }
      allocator.give(runs[i]);
      runs[i] = runs.back();
      runs.pop_back();
    }
  }
  for (const auto& run : runs) allocator.give(run);
  BOOST_TEST(allocator.free_bytes() == kSize);
  BOOST_TEST(allocator.largest_free() == kSize);
}

BOOST_AUTO_TEST_SUITE_END()
