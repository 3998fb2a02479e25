// Bytes of a journal that are not what was written: nothing of them is ever applied.
#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>

#include "tests/unit/journal/journal_fixture.h"

namespace rmemfs {
namespace {

struct DamageFixture : JournalFixture {
  DamageFixture() {
    format();
    open();
    leave_in_slots(3);
  }
  // Three transactions; the third is damaged: the first two are there, the third is not, and nothing else.
  void expect_third_discarded() {
    const auto report = recover();
    BOOST_REQUIRE(report.ok());
    BOOST_TEST(report->last.value() == 2u);
    BOOST_TEST(home.size() == 2u);
    BOOST_TEST(home.get("key3").empty());
  }
  void reseal(std::byte* slot) {  // as a program that computes right checksums over wrong fields would
    SlotHeader header;
    std::memcpy(&header, slot, sizeof header);
    const std::size_t length = std::min<std::size_t>(header.length, kGeometry.slot_bytes - kSlotHeaderBytes);
    std::uint32_t crc = crc32c({slot + kSlotHeaderBytes, length});
    const std::uint32_t magic = header.magic;
    seal_slot_header(header, crc);
    header.magic = magic;
    std::memcpy(slot, &header, sizeof header);
  }
};

BOOST_FIXTURE_TEST_SUITE(SlotDamage, DamageFixture)

BOOST_AUTO_TEST_CASE(undamaged_slots_are_replayed) {
  const auto report = recover();
  BOOST_REQUIRE(report.ok());
  BOOST_TEST(report->replayed == 3u);
  BOOST_TEST(home.get("key3") == "value3");
}
BOOST_AUTO_TEST_CASE(a_torn_header_is_ignored) {
  std::memset(slot_of(3) + 40, 0, 24);
  BOOST_TEST((scan()->slots.back().state == SlotState::kTorn));
  expect_third_discarded();
}
BOOST_AUTO_TEST_CASE(a_torn_payload_is_ignored) {
  std::memset(slot_of(3) + kSlotHeaderBytes + 8, 0, 4);
  expect_third_discarded();
}
BOOST_AUTO_TEST_CASE(a_slot_of_another_file_system_is_ignored) {
  std::byte* slot = slot_of(3);
  slot[8] ^= std::byte{1};
  reseal(slot);
  expect_third_discarded();
}
BOOST_AUTO_TEST_CASE(a_slot_of_another_epoch_is_ignored) {
  std::byte* slot = slot_of(3);
  store_le<std::uint32_t>(slot + offsetof(SlotHeader, epoch), 77);
  reseal(slot);
  expect_third_discarded();
}
BOOST_AUTO_TEST_CASE(an_impossible_length_is_ignored) {
  for (const std::uint32_t length : {0xffffffffu, 193u, 4096u}) {
    std::byte* slot = slot_of(3);
    store_le<std::uint32_t>(slot + offsetof(SlotHeader, length), length);
    reseal(slot);
    const auto found = scan();
    BOOST_REQUIRE(found.ok());
    BOOST_TEST(found->last.value() == 2u);
  }
  expect_third_discarded();
}
BOOST_AUTO_TEST_CASE(impossible_continuations_are_ignored) {
  for (const std::uint32_t count : {0xffffffffu, 15u, 16u, 1u}) {
    std::byte* slot = slot_of(3);
    store_le<std::uint32_t>(slot + offsetof(SlotHeader, continuation_count), count);
    reseal(slot);
    BOOST_TEST(scan()->last.value() == 2u);
  }
  expect_third_discarded();
}
BOOST_AUTO_TEST_CASE(a_right_checksum_over_modifications_that_do_not_parse_is_corruption) {
  std::byte* slot = slot_of(3);
  slot[kSlotHeaderBytes] = std::byte{9};
  reseal(slot);
  const auto report = recover();
  BOOST_REQUIRE(!report.ok());
  BOOST_TEST((report.error().code == Errc::kCorrupt));
}
BOOST_AUTO_TEST_CASE(a_flip_of_any_bit_of_a_slot_is_never_applied) {
  std::byte* slot = slot_of(3);
  SlotHeader header;
  std::memcpy(&header, slot, sizeof header);
  for (std::size_t bit = 0; bit < (kSlotHeaderBytes + header.length) * 8; ++bit) {
    slot[bit / 8] ^= std::byte{static_cast<unsigned char>(1u << bit % 8)};
    const auto found = scan();
    BOOST_REQUIRE(found.ok());
    BOOST_REQUIRE_MESSAGE(found->last.value() == 2u, "bit " << bit << " of the slot");
    slot[bit / 8] ^= std::byte{static_cast<unsigned char>(1u << bit % 8)};
  }
  BOOST_TEST(scan()->last.value() == 3u);
}
BOOST_AUTO_TEST_CASE(a_missing_transaction_that_was_persistent_is_corruption_and_is_named) {
  std::memset(slot_of(2), 0, kSlotHeaderBytes);  // the third says that the second was persistent
  const auto report = recover();
  BOOST_REQUIRE(!report.ok());
  BOOST_TEST((report.error().code == Errc::kCorrupt));
  BOOST_TEST(report.error().message().find("transaction 2") != std::string::npos);
  BOOST_TEST(home.size() == 0u);
  BOOST_TEST(scan()->missing->value() == 2u);
}
BOOST_AUTO_TEST_CASE(fsck_may_accept_the_gap_and_gets_what_stands_before_it) {
  std::memset(slot_of(2), 0, kSlotHeaderBytes);
  const auto report = recover(true);
  BOOST_REQUIRE(report.ok());
  BOOST_TEST(report->replayed == 1u);
  BOOST_TEST(report->discarded == 1u);
  BOOST_TEST(home.size() == 1u);
  BOOST_TEST(recover().ok());
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(SuperblockDamage, DamageFixture)

BOOST_AUTO_TEST_CASE(a_flip_of_any_bit_of_the_first_page_is_refused) {
  for (std::size_t bit = 0; bit < kJournalSuperblockBytes * 8; bit += 3) {
    media->bytes[bit / 8] ^= std::byte{static_cast<unsigned char>(1u << bit % 8)};
    BOOST_REQUIRE_MESSAGE(!scan().ok(), "bit " << bit);
    media->bytes[bit / 8] ^= std::byte{static_cast<unsigned char>(1u << bit % 8)};
  }
  BOOST_TEST(scan().ok());
}
BOOST_AUTO_TEST_CASE(each_refusal_has_its_code) {
  auto mapped = map();
  BOOST_TEST((scan_journal(*mapped, Uuid::random(), {}).error().code == Errc::kWrongFileSystem));
  MediaMemory cut(*media, kJournalSuperblockBytes + 256, Backing::kForced);
  BOOST_TEST((scan_journal(cut, uuid, {}).error().code == Errc::kCorrupt));
  MediaMemory shorter(*media, 100, Backing::kForced);
  BOOST_TEST((scan_journal(shorter, uuid, {}).error().code == Errc::kCorrupt));
  media->bytes[kEpochOffset] ^= std::byte{1};
  BOOST_TEST((scan().error().code == Errc::kChecksum));
  media->bytes[kEpochOffset] ^= std::byte{1};
  media->bytes[8] = std::byte{2};
  BOOST_TEST((scan().error().code == Errc::kVersion));
}
BOOST_AUTO_TEST_CASE(an_unknown_ro_compat_feature_allows_reading_but_not_recovery) {
  store_le<std::uint32_t>(media->bytes + offsetof(JournalSuperblock, ro_compat), 1);
  store_le<std::uint32_t>(media->bytes + offsetof(JournalSuperblock, crc), 0);
  store_le(media->bytes + offsetof(JournalSuperblock, crc), crc32c({media->bytes, sizeof(JournalSuperblock)}));
  BOOST_TEST(scan().ok());
  BOOST_TEST((recover().error().code == Errc::kUnsupportedFeature));
}
BOOST_AUTO_TEST_CASE(an_unrecovered_journal_does_not_open) {
  const auto opened = Journal::open(map(), uuid, home, options);
  BOOST_REQUIRE(!opened.ok());
  BOOST_TEST((opened.error().code == Errc::kInvalid));
}
BOOST_AUTO_TEST_CASE(impossible_geometries_are_refused) {
  auto mapped = map();
  for (const JournalGeometry& geometry :
       {JournalGeometry{100, 16}, JournalGeometry{128, 16}, JournalGeometry{131072, 2}, JournalGeometry{256, 1},
        JournalGeometry{256, 2000000}, JournalGeometry{65536, 1024}}) {
    BOOST_TEST((Journal::format(*mapped, uuid, geometry).error().code == Errc::kInvalid));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace rmemfs
