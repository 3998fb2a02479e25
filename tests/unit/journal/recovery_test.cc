#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>

#include "tests/unit/journal/journal_fixture.h"

namespace rmemfs {
namespace {

BOOST_FIXTURE_TEST_SUITE(RecoveryTest, JournalFixture)

BOOST_AUTO_TEST_CASE(an_empty_journal_recovers_and_opens) {
  format();
  const auto report = recover();
  BOOST_REQUIRE(report.ok());
  BOOST_TEST(report->replayed == 0u);
  open();
  BOOST_TEST(journal->last_id().value() == 0u);
}
BOOST_AUTO_TEST_CASE(committed_transactions_are_replayed_once_and_in_order) {
  format();
  open();
  for (const char* operand : {"1", "2", "3"}) {
    TransactionBuilder transaction;
    transaction.merge("log", operand);
    commit(transaction);
  }
  journal.reset();
  BOOST_TEST(recover()->replayed == 3u);
  BOOST_TEST(home.get("log") == "123");
  home.reopen();
  BOOST_TEST(recover()->replayed == 0u);
  BOOST_TEST(home.get("log") == "123");
  BOOST_TEST(!home.went_back);
}
BOOST_AUTO_TEST_CASE(recovery_twice_in_one_process_does_not_apply_twice) {
  format();
  open();
  leave_in_slots(3);
  BOOST_TEST(recover()->replayed == 3u);
  BOOST_TEST(recover()->replayed == 0u);
  BOOST_TEST(!home.went_back);
}
BOOST_AUTO_TEST_CASE(ids_go_on_after_recovery) {
  format();
  open();
  leave_in_slots(3);
  BOOST_REQUIRE(recover().ok());
  open();
  BOOST_TEST(put("key4", "value4").value() == 4u);
  BOOST_REQUIRE(journal->close().ok());
  home.reopen();
  BOOST_TEST(home.size() == 4u);
}
BOOST_AUTO_TEST_CASE(a_gap_above_what_is_persistent_discards_the_tail_for_good) {
  format();
  options.commit_interval_ms = 100000;
  open(kGeometry, Backing::kFile);
  leave_in_slots(4);
  std::memset(slot_of(2), 0, kSlotHeaderBytes);  // its page never reached the disk
  const auto found = scan();
  BOOST_TEST(found->last.value() == 1u);
  BOOST_TEST(found->discarded == 2u);
  BOOST_TEST(!found->missing.has_value());
  BOOST_TEST(recover()->replayed == 1u);
  home.reopen();
  open();
  BOOST_TEST(put("other", "x").value() == 2u);
  journal.reset();
  home.reopen();
  BOOST_REQUIRE(recover().ok());
  BOOST_TEST(home.get("other") == "x");
  BOOST_TEST(home.get("key3").empty());
}
BOOST_AUTO_TEST_CASE(a_slot_is_reused_and_its_old_transaction_never_comes_back) {
  const JournalGeometry two{256, 2};
  format(two);
  open(two);
  for (int i = 0; i < 20; ++i) put("key", std::to_string(i));
  BOOST_REQUIRE(journal->checkpoint().ok());
  journal.reset();
  home.reopen();
  BOOST_TEST(recover(false, two)->replayed == 0u);
  BOOST_TEST(home.get("key") == "19");
}
BOOST_AUTO_TEST_CASE(a_transaction_of_several_slots_is_replayed_whole) {
  format();
  open();
  const std::string value(1500, 'v');
  TransactionBuilder transaction;
  transaction.put("long", value);
  transaction.put("short", "s");
  commit(transaction, 7);
  journal.reset();
  const auto found = scan();
  BOOST_REQUIRE(found.ok());
  std::string storage;
  const auto modifications = read_transaction(*map(), *found, CommitId(1), storage);
  BOOST_REQUIRE(modifications.ok());
  BOOST_TEST(modifications->size() == 2u);
  BOOST_TEST((*modifications)[0].value == value);
  std::size_t continuations = 0;
  for (const SlotReport& slot : found->slots) {
    continuations += slot.state == SlotState::kContinuation;
    if (slot.state == SlotState::kCommitted) BOOST_TEST(slot.request_id == 7u);
  }
  BOOST_TEST(continuations == 8u);
  BOOST_REQUIRE(recover().ok());
  BOOST_TEST(home.get("long") == value);
}
BOOST_AUTO_TEST_CASE(a_damaged_continuation_discards_the_whole_transaction) {
  format();
  open();
  TransactionBuilder transaction;
  transaction.put("long", std::string(500, 'v'));
  commit(transaction);
  journal.reset();
  for (std::uint32_t slot = 0; slot < kGeometry.slot_count; ++slot) {
    std::byte* at = media->bytes + slot_offset(kGeometry, slot);
    if (at != slot_of(1) && at[kSlotHeaderBytes + 5] == std::byte{'v'}) at[kSlotHeaderBytes + 5] = std::byte{'w'};
  }
  BOOST_TEST(recover()->replayed == 0u);
  BOOST_TEST(home.size() == 0u);
}
BOOST_AUTO_TEST_CASE(bytes_of_a_user_that_look_like_a_slot_are_not_one) {
  format();
  open();
  TransactionBuilder inner;
  inner.put("forged", "x");
  const CommitId id = commit(inner);
  std::string slot_image(reinterpret_cast<char*>(slot_of(id.value())), 256);
  TransactionBuilder transaction;
  transaction.put("a", slot_image + slot_image + slot_image + slot_image);
  commit(transaction);
  journal.reset();
  std::size_t committed = 0;
  const auto found = scan();
  for (const SlotReport& slot : found->slots) committed += slot.state == SlotState::kCommitted;
  BOOST_TEST(committed == 2u);
}
BOOST_AUTO_TEST_CASE(a_home_that_fails_stops_recovery_and_leaves_the_journal_as_it_was) {
  format();
  open();
  leave_in_slots(2);
  home.fail_apply = true;
  BOOST_TEST((recover().error().code == Errc::kStore));
  home.fail_apply = false;
  home.fail_durable = true;
  BOOST_TEST((recover().error().code == Errc::kStore));
  home.fail_durable = false;
  BOOST_TEST(recover()->replayed == 2u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace rmemfs
