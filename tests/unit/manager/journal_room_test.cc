// The journal's geometry against what one transaction may need.
#include "fixture.h"
#include "journal/journal_format.h"

namespace rmemfs {

BOOST_AUTO_TEST_SUITE(JournalRoom)

BOOST_AUTO_TEST_CASE(the_smallest_journal_that_mkfs_makes_holds_the_largest_operations) {
  const std::size_t largest = Manager::largest_transaction_bytes();
  for (const std::uint32_t slot_bytes : {256u, 1024u, 4096u}) {
    const JournalGeometry journal{slot_bytes, transaction_slots({slot_bytes, 1048576}, largest)};
    BOOST_TEST_CONTEXT(journal.slot_count << " slots of " << slot_bytes << " bytes") {
      Fixture fixture({.journal = journal});
      const auto m = fixture.mount();
      const std::string a(kMaxNameBytes, 'a'), b(kMaxNameBytes, 'b'), c(kMaxNameBytes, 'c');
      const InodeRef d = m->directory(m->root(), "d"), e = m->directory(m->root(), "e");
      m->file(d, a);
      m->file(e, b);
      m->must(m->manager->rename(d, a, e, b, RenameMode::kReplace, 0));
      m->file(d, a);
      m->must(m->manager->rename(d, a, e, b, RenameMode::kExchange, 0));
      const std::string target(kMaxSymlinkBytes, 't');
      const InodeRef link =
          m->must(m->manager->make_node(d, c, NewNode{.mode = S_IFLNK | 0777, .symlink_target = target}, 0));
      BOOST_CHECK(*m->manager->readlink(*link) == target);
      m->must(m->manager->rename(d, c, e, b, RenameMode::kReplace, 0));
    }
  }
  // One slot less, and the longest link is refused for ever: what mkfs keeps from happening.
  Fixture fixture({.journal = {1024, transaction_slots({1024, 1048576}, largest) - 1}});
  const auto m = fixture.mount();
  const std::string name(kMaxNameBytes, 'n'), target(kMaxSymlinkBytes, 't');
  const NewNode node{.mode = S_IFLNK | 0777, .symlink_target = target};
  BOOST_CHECK(m->error(m->manager->make_node(m->root(), name, node, 0)) == Errc::kTooBig);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
