// The journal's geometry against what one transaction may need.
#include "fixture.h"
#include "journal/journal_format.h"
#include "manager/posix_acl.h"

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

BOOST_AUTO_TEST_CASE(attributes_that_were_taken_are_never_too_large_for_what_comes_later) {
  const JournalGeometry smallest{1024, transaction_slots({1024, 1048576}, Manager::largest_transaction_bytes())};
  Fixture fixture({.journal = smallest});
  const auto m = fixture.mount();
  const InodeRef directory = m->directory(m->root(), "d");
  const auto list = [](std::uint32_t users) {
    AccessList entries{{AccessEntry::kOwner, 7, 0}};
    for (std::uint32_t i = 0; i < users; ++i) entries.push_back({AccessEntry::kUser, 5, 1000 + i});
    entries.push_back({AccessEntry::kOwningGroup, 5, 0});
    entries.push_back({AccessEntry::kMask, 5, 0});
    entries.push_back({AccessEntry::kOther, 5, 0});
    return encode_access_list(entries);
  };
  const auto taken = [&](const InodeRef& inode, std::string_view name, std::string_view value) {
    ExtendedChange change;
    change.name = name;
    change.value = value;
    const auto set = m->run(m->manager->set_extended(inode, change, 0));
    BOOST_CHECK(set.ok() || set.error().code == Errc::kNoSpace);
    return set.ok();
  };
  // The longest default list there is room for, and below it the longest names of everything that inherits it.
  std::uint32_t users = 1000;
  while (users > 0 && !taken(directory, kDefaultListName, list(users))) --users;
  BOOST_CHECK(users > 50 && users < 1000);
  const std::string name(kMaxNameBytes, 'n');
  m->must(m->manager->make_node(directory, name, NewNode{.mode = S_IFDIR | 0777}, 0));
  m->must(m->manager->make_temporary(directory, NewNode{.mode = S_IFREG | 0777}, 0));
  // The longest record, and all that changes it or goes along with it.
  const InodeRef file = m->file(m->root(), "file");
  BOOST_REQUIRE(taken(file, kAccessListName, list(10)));
  std::size_t bytes = kMaxExtendedBytes;
  while (bytes > 0 && !taken(file, "user.x", std::string(bytes, 'x'))) bytes -= 16;
  BOOST_CHECK(bytes > 1000 && bytes < kMaxExtendedBytes);
  for (std::uint64_t i = 0; i < 5; ++i) m->write(file, i * 3 * kBlockBytes, 10);
  m->must(m->manager->set_attributes(file, AttributeChange{.mode = 0640}, 0));
  m->must(m->manager->truncate(file, 10, AttributeChange{.mode = 0600}, 0));
  BOOST_CHECK(mode_of(*decode_access_list(*m->manager->get_extended(*file, kAccessListName))) == 0600);
  BOOST_CHECK_EQUAL(m->attributes(file).size, 10u);
  BOOST_CHECK_EQUAL(m->attributes(file).blocks, 1u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
