#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>

#include "tests/unit/journal/journal_fixture.h"

namespace rmemfs {
namespace {

using namespace std::chrono_literals;

// Waits for `condition`, which other threads make true, at most ten seconds.
template <typename Condition>
bool eventually(Condition condition) {
  const TimePoint deadline = MonoClock::now() + 10s;
  while (!condition()) {
    if (MonoClock::now() > deadline) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

BOOST_FIXTURE_TEST_SUITE(JournalTest, JournalFixture)

BOOST_AUTO_TEST_CASE(a_commit_costs_one_drain) {
  format();
  open();
  const std::uint64_t before = memory->drains;
  for (int i = 0; i < 10; ++i) put("key" + std::to_string(i), "value");
  BOOST_TEST(memory->drains - before == 10u);
  BOOST_TEST(journal->statistics().drains == 10u);
  BOOST_TEST(journal->persisted_id().value() == 10u);
}
BOOST_AUTO_TEST_CASE(what_is_handed_over_reaches_the_home_coalesced) {
  format({256, 2048});
  options.apply_interval_ms = 100;
  open({256, 2048});
  std::atomic<std::uint64_t> told{0};
  journal->on_applied = [&](CommitId id) { told = id.value(); };
  for (int i = 0; i < 1000; ++i) put("key" + std::to_string(i % 10), std::to_string(i));
  BOOST_REQUIRE(journal->checkpoint().ok());
  BOOST_TEST(told == 1000u);
  BOOST_TEST(home.get("key7") == "997");
  const JournalStatistics statistics = journal->statistics();
  BOOST_TEST(statistics.transactions == 1000u);
  BOOST_TEST(statistics.modifications == 1000u);
  BOOST_TEST(statistics.home_writes < 500u);
  BOOST_TEST(statistics.home_writes == home.writes);
  BOOST_TEST(statistics.home_batches == home.batches);
  BOOST_TEST(statistics.durable_id.value() == 1000u);
  BOOST_TEST(statistics.slots_free == 2048u);
  BOOST_TEST(statistics.slots_in_flight == 0u);
  BOOST_TEST(statistics.slots_in_flight_max > 0u);
}
BOOST_AUTO_TEST_CASE(nothing_behind_a_transaction_that_is_not_handed_over_is_applied) {
  format();
  open();
  TransactionBuilder transaction;
  transaction.put("first", "1");
  const CommitId first = commit(transaction);
  put("second", "2");
  std::this_thread::sleep_for(30ms);
  BOOST_TEST(journal->applied_id().value() == 0u);
  BOOST_TEST(home.size() == 0u);
  journal->hand_over(first);
  BOOST_TEST(eventually([&] { return journal->applied_id().value() == 2u; }));
}
BOOST_AUTO_TEST_CASE(the_applier_wakes_again_after_a_long_rest) {
  format();
  open();
  put("a", "1");
  BOOST_REQUIRE(eventually([&] { return journal->applied_id().value() == 1u; }));
  std::this_thread::sleep_for(300ms);
  put("b", "2");
  BOOST_TEST(eventually([&] { return journal->applied_id().value() == 2u; }));
}
BOOST_AUTO_TEST_CASE(slots_are_free_only_when_the_home_is_durable) {
  format();
  options.durable_interval_ms = 100000;
  home.hold_durable = false;
  open();
  home.hold_durable = true;
  for (int i = 0; i < 7; ++i) put("key", std::to_string(i));
  BOOST_REQUIRE(eventually([&] { return journal->applied_id().value() == 7u; }));
  BOOST_TEST(journal->statistics().slots_free == 9u);
  home.hold_durable = false;
  BOOST_REQUIRE(journal->checkpoint().ok());
  BOOST_TEST(journal->statistics().slots_free == 16u);
}
BOOST_AUTO_TEST_CASE(an_unused_reservation_returns_its_slots) {
  format();
  open();
  {
    SlotReservation room = journal->try_reserve(1000);
    BOOST_REQUIRE(bool(room));
    BOOST_TEST(room.capacity_bytes() >= 1000u);
    BOOST_TEST(journal->statistics().slots_free == 10u);
    SlotReservation moved = std::move(room);
    BOOST_TEST(!room);  // NOLINT(bugprone-use-after-move): it is what is tested
    SlotReservation assigned;
    assigned = std::move(moved);
  }
  BOOST_TEST(journal->statistics().slots_free == 16u);
}
BOOST_AUTO_TEST_CASE(slots_that_the_payload_does_not_need_are_returned) {
  format();
  open();
  SlotReservation room = journal->try_reserve(1000);
  TransactionBuilder transaction;
  transaction.put("a", "1");
  journal->commit(std::move(room), transaction, 0);
  BOOST_TEST(journal->statistics().slots_free == 15u);
}
BOOST_AUTO_TEST_CASE(a_payload_that_never_fits_is_too_big) {
  format();
  open();
  const std::size_t most = journal->max_payload_bytes();
  BOOST_TEST(bool(journal->try_reserve(most)));
  BOOST_TEST(!journal->try_reserve(most + 1));
  const auto room = executor.run(journal->reserve(most + 1));
  BOOST_REQUIRE(!room.ok());
  BOOST_TEST((room.error().code == Errc::kTooBig));
}
BOOST_AUTO_TEST_CASE(a_full_journal_gives_up_at_the_deadline) {
  format({256, 2});
  options.slot_deadline_ms = 50;
  open({256, 2});
  const SlotReservation a = journal->try_reserve(10);
  const SlotReservation b = journal->try_reserve(10);
  const auto room = executor.run(journal->reserve(10));
  BOOST_REQUIRE(!room.ok());
  BOOST_TEST((room.error().code == Errc::kJournalFull));
  BOOST_TEST(journal->statistics().slot_waits == 1u);
}
BOOST_AUTO_TEST_CASE(a_long_transaction_is_not_starved_by_short_ones) {
  format({256, 4});
  open({256, 4});
  SlotReservation held = journal->try_reserve(10);
  bool granted = false;
  spawn([](Journal& j, bool& done) -> Task<void> {
    const auto room = co_await j.reserve(600);
    done = room.ok();
  }(*journal, granted));
  BOOST_TEST(!granted);
  BOOST_TEST(!journal->try_reserve(10));  // three are free, but somebody waits for four
  held = SlotReservation();
  executor.run([](bool& done) -> Task<void> {
    while (!done) co_await Yield();
  }(granted));
  BOOST_TEST(granted);
}
BOOST_AUTO_TEST_CASE(two_slots_and_sixteen_writers_make_progress) {
  const JournalGeometry two{256, 2};
  for (const Backing backing : {Backing::kForced, Backing::kFile}) {
    format(two);
    home.reopen();
    auto fresh = recover(false, two);
    BOOST_REQUIRE(fresh.ok());
    const std::uint64_t before = fresh->last.value();
    open(two, backing);
    std::vector<std::thread> writers;
    std::atomic<int> errors{0};
    for (int w = 0; w < 16; ++w) {
      writers.emplace_back([&, w] {
        LoopExecutor own;
        for (int i = 0; i < 20; ++i) {
          TransactionBuilder transaction;
          transaction.put("writer" + std::to_string(w), std::string(i % 4 == 0 ? 300 : 20, 'x'));
          auto room = own.run(journal->reserve(transaction.payload_bytes()));
          if (!room.ok()) {
            ++errors;
            return;
          }
          journal->hand_over(journal->commit(std::move(*room), transaction, 0));
        }
      });
    }
    for (std::thread& writer : writers) writer.join();
    BOOST_TEST(errors == 0);
    BOOST_TEST(journal->close().ok());
    BOOST_TEST(journal->statistics().last_id.value() == before + 320u);
    BOOST_TEST(!home.went_back);
    journal.reset();
  }
}
BOOST_AUTO_TEST_CASE(a_failed_home_is_reported_once_and_nobody_hangs) {
  format({256, 2});
  open({256, 2});
  std::atomic<int> failures{0};
  journal->on_failure = [&](const Error&) { ++failures; };
  home.fail_apply = true;
  put("a", "1");
  put("b", "2");
  const auto room = executor.run(journal->reserve(10));
  BOOST_REQUIRE(!room.ok());
  BOOST_TEST((room.error().code == Errc::kStore));
  BOOST_TEST((executor.run(journal->reserve(10)).error().code == Errc::kStore));
  BOOST_TEST(!journal->try_reserve(10));
  BOOST_TEST((journal->checkpoint().error().code == Errc::kStore));
  BOOST_TEST((journal->close().error().code == Errc::kStore));
  BOOST_TEST(eventually([&] { return failures == 1; }));
  journal.reset();
  home.fail_apply = false;
  BOOST_TEST(recover(false, {256, 2})->replayed == 2u);
}
BOOST_AUTO_TEST_CASE(a_home_that_cannot_become_durable_is_a_failed_home) {
  format();
  open();
  std::atomic<int> failures{0};
  journal->on_failure = [&](const Error&) { ++failures; };
  home.fail_durable = true;
  put("a", "1");
  BOOST_TEST((journal->checkpoint().error().code == Errc::kStore));
  BOOST_TEST(eventually([&] { return failures == 1; }));
}
BOOST_AUTO_TEST_CASE(a_checkpoint_of_what_nobody_hands_over_gives_up) {
  format();
  options.stall_deadline_ms = 60;
  open();
  TransactionBuilder transaction;
  transaction.put("a", "1");
  commit(transaction);
  BOOST_TEST((journal->checkpoint().error().code == Errc::kDeadline));
}

BOOST_AUTO_TEST_SUITE_END()

struct FileFixture : JournalFixture {
  FileFixture() {
    format();
    options.commit_interval_ms = 100000;
    options.durable_interval_ms = 100000;
  }
};

BOOST_FIXTURE_TEST_SUITE(GroupCommitTest, FileFixture)

BOOST_AUTO_TEST_CASE(a_commit_on_a_file_does_not_sync) {
  open(kGeometry, Backing::kFile);
  const std::uint64_t before = memory->syncs;
  for (int i = 0; i < 5; ++i) put("key", "value");
  BOOST_TEST(memory->syncs == before);
  BOOST_TEST(journal->persisted_id().value() == 0u);
}
BOOST_AUTO_TEST_CASE(persist_syncs_at_once_and_tells) {
  open(kGeometry, Backing::kFile);
  std::atomic<std::uint64_t> told{0};
  journal->on_persisted = [&](CommitId id) { told = std::max(told.load(), id.value()); };
  const CommitId id = put("key", "value");
  BOOST_TEST(executor.run(journal->persist(id)).ok());
  BOOST_TEST(journal->persisted_id().value() == 1u);
  BOOST_TEST(told == 1u);
  const std::uint64_t syncs = journal->statistics().syncs;
  BOOST_TEST(executor.run(journal->persist(id)).ok());
  BOOST_TEST(journal->statistics().syncs == syncs);
}
BOOST_AUTO_TEST_CASE(the_interval_syncs_without_being_asked) {
  options.commit_interval_ms = 20;
  open(kGeometry, Backing::kFile);
  put("key", "value");
  BOOST_TEST(eventually([&] { return journal->persisted_id().value() == 1u; }));
}
BOOST_AUTO_TEST_CASE(a_failed_sync_is_reported_and_the_next_one_tries_again) {
  open(kGeometry, Backing::kFile);
  const CommitId id = put("key", "value");
  memory->fail_sync = true;
  const auto result = executor.run(journal->persist(id));
  BOOST_REQUIRE(!result.ok());
  BOOST_TEST((result.error().code == Errc::kLocalIo));
  BOOST_TEST(journal->persisted_id().value() == 0u);
  memory->fail_sync = false;
  BOOST_TEST(executor.run(journal->persist(id)).ok());
  BOOST_TEST(journal->persisted_id().value() == 1u);
}
BOOST_AUTO_TEST_CASE(everybody_who_waits_for_a_sync_shares_it_and_its_failure) {
  open(kGeometry, Backing::kFile);
  const CommitId first = put("a", "1");
  memory->hold_sync = true;
  std::atomic<int> ok{0}, failed{0};
  std::atomic<bool> begun{false};
  const auto wait = [&](CommitId id) {
    LoopExecutor own;
    (own.run(journal->persist(id)).ok() ? ok : failed)++;
  };
  std::thread one([&] { wait(first); });
  std::this_thread::sleep_for(30ms);  // the sync for `one` is under way, or about to be
  const CommitId second = put("b", "2");
  std::vector<std::thread> others;
  for (int i = 0; i < 8; ++i) others.emplace_back([&] { wait(second); });
  std::this_thread::sleep_for(30ms);
  BOOST_TEST(ok + failed == 0);
  memory->fail_sync = true;
  memory->hold_sync = false;
  one.join();
  for (std::thread& other : others) other.join();
  BOOST_TEST(failed == 9);
  BOOST_TEST(memory->syncs <= 4u);  // at most: format's are of another mapping
  BOOST_TEST(journal->persisted_id().value() == 0u);
}
BOOST_AUTO_TEST_CASE(a_sync_that_never_ends_is_given_up_at_the_deadline) {
  options.persist_deadline_ms = 50;
  open(kGeometry, Backing::kFile);
  const CommitId id = put("a", "1");
  memory->hold_sync = true;
  const auto result = executor.run(journal->persist(id));
  memory->hold_sync = false;
  BOOST_REQUIRE(!result.ok());
  BOOST_TEST((result.error().code == Errc::kDeadline));
}
BOOST_AUTO_TEST_CASE(what_is_durable_at_home_is_persistent) {
  open(kGeometry, Backing::kFile);
  put("a", "1");
  BOOST_REQUIRE(journal->checkpoint().ok());
  BOOST_TEST(journal->persisted_id().value() == 1u);
  BOOST_TEST(journal->statistics().syncs == 0u);
}
BOOST_AUTO_TEST_CASE(a_header_says_what_was_persistent_when_it_was_written) {
  open(kGeometry, Backing::kFile);
  put("a", "1");
  BOOST_REQUIRE(executor.run(journal->persist(put("b", "2"))).ok());
  put("c", "3");
  journal.reset();
  const auto found = scan();
  BOOST_TEST(found->highest_persisted.value() == 2u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace rmemfs
