#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>

#include "journal/coalescer.h"

namespace rmemfs {
namespace {

using enum ModificationKind;

std::string text(std::span<const Modification> modifications) {
  std::string out;
  for (const Modification& m : modifications) {
    out += m.kind == kPut ? "put " : m.kind == kErase ? "erase " : "merge ";
    out += std::string(m.key) + "=" + std::string(m.value) + ";";
  }
  return out;
}

std::string coalesce(std::initializer_list<Modification> modifications) {
  Coalescer coalescer;
  for (const Modification& m : modifications) coalescer.add({&m, 1});
  return text(coalescer.coalesced());
}

BOOST_AUTO_TEST_SUITE(CoalescerTest)

BOOST_AUTO_TEST_CASE(the_last_put_or_erase_of_a_key_wins) {
  BOOST_TEST(coalesce({{kPut, "a", "1"}, {kPut, "b", "2"}, {kPut, "a", "3"}}) == "put a=3;put b=2;");
  BOOST_TEST(coalesce({{kPut, "a", "1"}, {kErase, "a", ""}}) == "erase a=;");
  BOOST_TEST(coalesce({{kErase, "a", ""}, {kPut, "a", "1"}}) == "put a=1;");
}
BOOST_AUTO_TEST_CASE(merges_are_concatenated_in_order) {
  BOOST_TEST(coalesce({{kMerge, "a", "1"}, {kMerge, "a", "2"}, {kMerge, "a", "3"}}) == "merge a=123;");
}
BOOST_AUTO_TEST_CASE(a_put_drops_the_merges_before_it_and_keeps_those_behind_it) {
  BOOST_TEST(
      coalesce({{kMerge, "a", "1"}, {kMerge, "a", "2"}, {kPut, "a", "x"}, {kMerge, "a", "3"}, {kMerge, "a", "4"}}) ==
      "put a=x;merge a=34;");
  BOOST_TEST(coalesce({{kMerge, "a", "1"}, {kErase, "a", ""}, {kMerge, "a", "2"}}) == "erase a=;merge a=2;");
}
BOOST_AUTO_TEST_CASE(an_empty_operand_and_an_empty_key_are_kept) {
  BOOST_TEST(coalesce({{kMerge, "", ""}}) == "merge =;");
}
BOOST_AUTO_TEST_CASE(clear_forgets_everything) {
  Coalescer coalescer;
  const Modification m{kPut, "a", "1"};
  coalescer.add({&m, 1});
  coalescer.clear();
  BOOST_TEST(coalescer.coalesced().empty());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace rmemfs
