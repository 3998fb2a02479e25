// What POSIX asks of names, one rule per case.
#include <algorithm>
#include <set>

#include "fixture.h"

namespace rmemfs {
namespace {

std::string names_in(Mount& m, const InodeRef& directory) {
  std::set<std::string> sorted;
  for (const auto& entry : m.list(directory)) {
    if (entry.name != "." && entry.name != "..") sorted.insert(entry.name);
  }
  std::string out;
  for (const auto& name : sorted) out += name + " ";
  return out;
}

struct Names : Fixture {
  std::unique_ptr<Mount> m = mount();
  InodeRef root = m->root();

  Result<InodeRef> rename(const InodeRef& from, std::string_view name, const InodeRef& to, std::string_view new_name,
                          RenameMode mode = RenameMode::kReplace) {
    return m->run(m->manager->rename(from, name, to, new_name, mode, 0));
  }
  Errc rename_error(const InodeRef& from, std::string_view name, const InodeRef& to, std::string_view new_name,
                    RenameMode mode = RenameMode::kReplace) {
    const auto result = rename(from, name, to, new_name, mode);
    BOOST_REQUIRE(!result.ok());
    return result.error().code;
  }
  Attributes at(const InodeRef& inode) { return m->attributes(inode); }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(names, Names)

BOOST_AUTO_TEST_CASE(a_new_file_system_has_an_empty_root) {
  const Attributes a = at(root);
  BOOST_CHECK(S_ISDIR(a.mode));
  BOOST_CHECK_EQUAL(a.nlink, 2u);
  BOOST_CHECK_EQUAL(a.entries, 0u);
  const auto all = m->list(root);
  BOOST_REQUIRE_EQUAL(all.size(), 2u);
  BOOST_CHECK(all[0].name == "." && all[0].ino == kRootInode && all[0].cookie == 1);
  BOOST_CHECK(all[1].name == ".." && all[1].ino == kRootInode && all[1].cookie == 2);
}

BOOST_AUTO_TEST_CASE(a_created_file_is_found_with_what_it_was_given) {
  const NewNode node{.mode = S_IFREG | 0640, .uid = 5, .gid = 6};
  const auto made = m->must(m->manager->make_node(root, "f", node, 0));
  BOOST_CHECK(m->find(root, "f") == made);
  const Attributes a = at(made);
  BOOST_CHECK_EQUAL(a.mode, S_IFREG | 0640u);
  BOOST_CHECK(a.nlink == 1 && a.uid == 5 && a.gid == 6 && a.size == 0);
  BOOST_CHECK_EQUAL(at(root).entries, 1u);
  BOOST_CHECK(at(root).mtime == a.ctime);
  BOOST_CHECK_EQUAL(m->manager->space().inodes, 2u);
}

BOOST_AUTO_TEST_CASE(names_that_are_no_names_are_refused) {
  const NewNode node{.mode = S_IFREG | 0644};
  for (std::string_view name : {std::string_view(""), std::string_view("."), std::string_view(".."),
                                std::string_view("a/b"), std::string_view("a\0b", 3)}) {
    BOOST_CHECK(m->error(m->manager->make_node(root, name, node, 0)) == Errc::kInvalid);
  }
  const std::string longest(255, 'x'), longer(256, 'x');
  m->file(root, longest);
  BOOST_CHECK(m->error(m->manager->make_node(root, longer, node, 0)) == Errc::kNameTooLong);
  BOOST_CHECK(m->lookup_error(root, longer) == Errc::kNameTooLong);
  BOOST_CHECK(rename_error(root, longest, root, longer) == Errc::kNameTooLong);
}

BOOST_AUTO_TEST_CASE(a_name_can_be_made_once) {
  m->file(root, "f");
  BOOST_CHECK(m->error(m->manager->make_node(root, "f", NewNode{.mode = S_IFDIR}, 0)) == Errc::kExists);
  BOOST_CHECK_EQUAL(at(root).entries, 1u);
  BOOST_CHECK_EQUAL(at(root).nlink, 2u);
}

BOOST_AUTO_TEST_CASE(nothing_is_made_in_a_file_or_in_a_removed_directory) {
  const auto file = m->file(root, "f");
  const NewNode node{.mode = S_IFREG};
  BOOST_CHECK(m->error(m->manager->make_node(file, "x", node, 0)) == Errc::kNotDirectory);
  BOOST_CHECK(m->lookup_error(file, "x") == Errc::kNotDirectory);
  const auto folder = m->directory(root, "d");
  m->must(m->manager->rmdir(root, "d", 0));
  BOOST_CHECK(m->error(m->manager->make_node(folder, "x", node, 0)) == Errc::kNotFound);
  BOOST_CHECK(m->list(folder).empty());
  BOOST_CHECK(m->error(m->manager->link(file, folder, "x", 0)) == Errc::kNotFound);
  BOOST_CHECK(rename_error(root, "f", folder, "x") == Errc::kNotFound);
}

BOOST_AUTO_TEST_CASE(directories_count_their_subdirectories) {
  const auto a = m->directory(root, "a");
  m->directory(a, "b");
  m->directory(a, "c");
  m->file(a, "f");
  BOOST_CHECK_EQUAL(at(root).nlink, 3u);
  BOOST_CHECK_EQUAL(at(a).nlink, 4u);
  BOOST_CHECK_EQUAL(at(a).entries, 3u);
  BOOST_CHECK(m->find(a, "..") == root);
  BOOST_CHECK(m->find(a, ".") == a);
  m->must(m->manager->rmdir(a, "b", 0));
  BOOST_CHECK_EQUAL(at(a).nlink, 3u);
}

BOOST_AUTO_TEST_CASE(a_setgid_directory_gives_its_group) {
  const auto folder = m->must(m->manager->make_node(root, "d", NewNode{.mode = S_IFDIR | 02755, .gid = 77}, 0));
  const auto file = m->must(m->manager->make_node(folder, "f", NewNode{.mode = S_IFREG | 0644, .gid = 5}, 0));
  const auto sub = m->must(m->manager->make_node(folder, "s", NewNode{.mode = S_IFDIR | 0755, .gid = 5}, 0));
  BOOST_CHECK_EQUAL(at(file).gid, 77u);
  BOOST_CHECK((at(file).mode & S_ISGID) == 0);
  BOOST_CHECK_EQUAL(at(sub).gid, 77u);
  BOOST_CHECK((at(sub).mode & S_ISGID) != 0);
}

BOOST_AUTO_TEST_CASE(symlinks_and_special_files_keep_what_they_are) {
  const auto link =
      m->must(m->manager->make_node(root, "l", NewNode{.mode = S_IFLNK | 0777, .symlink_target = "some/where"}, 0));
  BOOST_CHECK_EQUAL(*m->manager->readlink(*link), "some/where");
  BOOST_CHECK_EQUAL(at(link).size, 10u);
  const auto device = m->must(m->manager->make_node(root, "c", NewNode{.mode = S_IFCHR | 0600, .rdev = 259}, 0));
  BOOST_CHECK_EQUAL(at(device).rdev, 259u);
  BOOST_CHECK(m->manager->readlink(*device).error().code == Errc::kInvalid);
  const std::string longest(4095, 'x'), longer(4096, 'x');
  m->must(m->manager->make_node(root, "long", NewNode{.mode = S_IFLNK, .symlink_target = longest}, 0));
  BOOST_CHECK_EQUAL(*m->manager->readlink(*m->find(root, "long")), longest);
  BOOST_CHECK(m->error(m->manager->make_node(root, "x", NewNode{.mode = S_IFLNK, .symlink_target = longer}, 0)) ==
              Errc::kNameTooLong);
  BOOST_CHECK(m->error(m->manager->make_node(root, "x", NewNode{.mode = S_IFLNK}, 0)) == Errc::kInvalid);
  for (const auto& entry : m->list(root)) {
    if (entry.name == "l") BOOST_CHECK_EQUAL(entry.type, 10u);
    if (entry.name == "c") BOOST_CHECK_EQUAL(entry.type, 2u);
  }
}

BOOST_AUTO_TEST_CASE(a_link_is_the_same_file_under_another_name) {
  const auto f = m->file(root, "f");
  const auto folder = m->directory(root, "d");
  m->must(m->manager->link(f, folder, "g", 0));
  BOOST_CHECK(m->find(folder, "g") == f);
  BOOST_CHECK_EQUAL(at(f).nlink, 2u);
  BOOST_CHECK(m->error(m->manager->link(f, folder, "g", 0)) == Errc::kExists);
  BOOST_CHECK(m->error(m->manager->link(folder, root, "x", 0)) == Errc::kNotPermitted);
  m->must(m->manager->unlink(root, "f", 0));
  BOOST_CHECK_EQUAL(at(f).nlink, 1u);
  BOOST_CHECK(m->find(folder, "g") == f);
}

BOOST_AUTO_TEST_CASE(an_unlinked_file_lives_on_until_it_is_purged_and_gets_no_new_name) {
  const auto f = m->file(root, "f");
  m->write(f, 0, 100000);
  const auto lost = m->must(m->manager->unlink(root, "f", 0));
  BOOST_CHECK(lost == f);
  BOOST_CHECK_EQUAL(at(f).nlink, 0u);
  BOOST_CHECK(m->lookup_error(root, "f") == Errc::kNotFound);
  BOOST_CHECK(m->manager->map(*f, 0, 4096)->front().chunk != nullptr);
  BOOST_CHECK(m->error(m->manager->link(f, root, "again", 0)) == Errc::kNotFound);
  m->must(m->manager->purge_orphans());  // of a crash: not this one
  BOOST_CHECK(m->manager->get(f->ino).ok());
  m->must(m->manager->purge(f->ino));
  m->must(m->manager->purge(f->ino));
  BOOST_CHECK(m->manager->get(f->ino).error().code == Errc::kNotFound);
  BOOST_CHECK_EQUAL(m->manager->space().inodes, 1u);
}

BOOST_AUTO_TEST_CASE(unlink_and_rmdir_know_what_they_remove) {
  m->file(root, "f");
  const auto d = m->directory(root, "d");
  m->file(d, "x");
  BOOST_CHECK(m->error(m->manager->unlink(root, "d", 0)) == Errc::kIsDirectory);
  BOOST_CHECK(m->error(m->manager->rmdir(root, "f", 0)) == Errc::kNotDirectory);
  BOOST_CHECK(m->error(m->manager->rmdir(root, "d", 0)) == Errc::kNotEmpty);
  BOOST_CHECK(m->error(m->manager->unlink(root, "none", 0)) == Errc::kNotFound);
  m->must(m->manager->unlink(d, "x", 0));
  m->must(m->manager->rmdir(root, "d", 0));
  BOOST_CHECK_EQUAL(at(root).nlink, 2u);
  BOOST_CHECK_EQUAL(at(root).entries, 1u);
}

BOOST_AUTO_TEST_CASE(rename_moves_a_file_and_replaces_another) {
  const auto a = m->directory(root, "a"), b = m->directory(root, "b");
  const auto f = m->file(a, "f"), g = m->file(b, "g");
  const auto replaced = rename(a, "f", b, "g");
  BOOST_REQUIRE(replaced.ok());
  BOOST_CHECK(*replaced == g);
  BOOST_CHECK_EQUAL(at(g).nlink, 0u);
  BOOST_CHECK(m->find(b, "g") == f);
  BOOST_CHECK_EQUAL(names_in(*m, a), "");
  BOOST_CHECK(at(a).entries == 0 && at(b).entries == 1);
  BOOST_CHECK(at(f).ctime == at(b).mtime);
}

BOOST_AUTO_TEST_CASE(rename_of_two_names_of_one_file_does_nothing) {
  const auto f = m->file(root, "f");
  m->must(m->manager->link(f, root, "g", 0));
  const auto replaced = rename(root, "f", root, "g");
  BOOST_REQUIRE(replaced.ok());
  BOOST_CHECK(*replaced == nullptr);
  BOOST_CHECK_EQUAL(names_in(*m, root), "f g ");
  BOOST_CHECK(rename(root, "f", root, "f").ok());
}

BOOST_AUTO_TEST_CASE(rename_keeps_files_and_directories_apart) {
  const auto full = m->directory(root, "full");
  m->file(full, "x");
  m->directory(root, "empty");
  m->directory(root, "d");
  m->file(root, "f");
  BOOST_CHECK(rename_error(root, "f", root, "d") == Errc::kIsDirectory);
  BOOST_CHECK(rename_error(root, "d", root, "f") == Errc::kNotDirectory);
  BOOST_CHECK(rename_error(root, "d", root, "full") == Errc::kNotEmpty);
  BOOST_CHECK(rename_error(root, "none", root, "f") == Errc::kNotFound);
  BOOST_CHECK_EQUAL(at(root).nlink, 5u);
  BOOST_CHECK(rename(root, "d", root, "empty").ok());
  BOOST_CHECK_EQUAL(at(root).nlink, 4u);
  BOOST_CHECK_EQUAL(at(root).entries, 3u);
}

BOOST_AUTO_TEST_CASE(a_directory_that_moves_gets_a_new_parent) {
  const auto a = m->directory(root, "a"), b = m->directory(root, "b");
  const auto d = m->directory(a, "d");
  BOOST_REQUIRE(rename(a, "d", b, "e").ok());
  BOOST_CHECK(m->find(d, "..") == b);
  BOOST_CHECK(at(a).nlink == 2 && at(b).nlink == 3);
}

BOOST_AUTO_TEST_CASE(a_directory_does_not_move_into_itself) {
  const auto a = m->directory(root, "a");
  const auto b = m->directory(a, "b");
  const auto c = m->directory(b, "c");
  BOOST_CHECK(rename_error(root, "a", a, "x") == Errc::kInvalid);
  BOOST_CHECK(rename_error(root, "a", c, "x") == Errc::kInvalid);
  BOOST_CHECK(rename_error(b, "c", root, "a") == Errc::kNotEmpty);
  BOOST_CHECK(rename_error(root, "a", b, "c", RenameMode::kExchange) == Errc::kInvalid);
  BOOST_CHECK(rename_error(b, "c", root, "a", RenameMode::kExchange) == Errc::kInvalid);
  BOOST_CHECK(m->find(m->find(m->find(root, "a"), "b"), "c") == c);
}

BOOST_AUTO_TEST_CASE(noreplace_refuses_and_exchange_swaps) {
  const auto a = m->directory(root, "a"), b = m->directory(root, "b");
  const auto f = m->file(a, "f"), d = m->directory(b, "d");
  BOOST_CHECK(rename_error(a, "f", b, "d", RenameMode::kNoReplace) == Errc::kExists);
  BOOST_CHECK(rename_error(a, "f", b, "none", RenameMode::kExchange) == Errc::kNotFound);
  BOOST_REQUIRE(rename(a, "f", b, "d", RenameMode::kExchange).ok());
  BOOST_CHECK(m->find(b, "d") == f);
  BOOST_CHECK(m->find(a, "f") == d);
  BOOST_CHECK(m->find(d, "..") == a);
  BOOST_CHECK(at(a).nlink == 3 && at(b).nlink == 2);
  BOOST_CHECK(at(a).entries == 1 && at(b).entries == 1);
  BOOST_CHECK(rename(a, "f", a, "g", RenameMode::kNoReplace).ok());
  BOOST_CHECK(m->find(a, "g") == d);
}

BOOST_AUTO_TEST_CASE(a_long_directory_is_listed_exactly_once_while_it_changes) {
  std::set<std::string> stay;
  for (int i = 0; i < 700; ++i) {
    const std::string name = "file" + std::to_string(i);
    m->file(root, name);
    if (i % 2 == 0) stay.insert(name);
  }
  std::multiset<std::string> seen;
  std::uint64_t after = 0;
  for (int step = 0;; ++step) {
    const auto some = m->manager->read_directory(*root, after, 7);
    BOOST_REQUIRE(some.ok());
    if (some->empty()) break;
    after = some->back().cookie;
    for (const auto& entry : *some) seen.insert(entry.name);
    const std::string odd = "file" + std::to_string(step * 2 + 1);
    if (step < 100) m->must(m->manager->unlink(root, odd, 0));
    m->file(root, "fresh" + std::to_string(step));
  }
  for (const auto& name : stay) BOOST_REQUIRE_MESSAGE(seen.count(name) == 1, name << " seen " << seen.count(name));
  for (const auto& name : seen) BOOST_REQUIRE_EQUAL(seen.count(name), 1u);
}

BOOST_AUTO_TEST_CASE(a_listing_goes_on_from_a_cookie_alone) {
  for (int i = 0; i < 100; ++i) m->file(root, std::to_string(i));
  const auto all = m->list(root, 3);
  BOOST_REQUIRE_EQUAL(all.size(), 102u);
  for (std::size_t i = 0; i < all.size(); i += 9) {
    const auto next = m->manager->read_directory(*root, all[i].cookie, 1);
    BOOST_REQUIRE(next.ok());
    if (i + 1 < all.size())
      BOOST_CHECK_EQUAL(next->front().name, all[i + 1].name);
    else
      BOOST_CHECK(next->empty());
  }
}

BOOST_AUTO_TEST_CASE(names_with_equal_hashes_are_listed_together) {
  const auto file = m->file(root, "file");
  const std::uint64_t hash = hash_name("file", m->store.superblock.name_hash_seed);
  TransactionBuilder builder;
  for (const char* twin : {"twin1", "twin2", "twin3"}) {
    builder.put(dirent_key(kRootInode, hash, twin), encode(Dirent{file->ino, S_IFREG >> 12}));
  }
  m->store.metastore->overlay_insert(builder, CommitId(UINT64_MAX));
  const auto names = m->manager->read_directory(*root, 2, 1);
  BOOST_REQUIRE(names.ok());
  BOOST_CHECK_EQUAL(names->size(), 4u);
  for (const auto& entry : *names) BOOST_CHECK_EQUAL(entry.cookie, hash);
  BOOST_CHECK(m->manager->read_directory(*root, hash, 1)->empty());
}

BOOST_AUTO_TEST_CASE(attributes_change_and_the_change_is_stamped) {
  const auto f = m->file(root, "f");
  AttributeChange change;
  change.mode = 04711;
  change.uid = 9;
  change.mtime = Timestamp{-7, 5};
  const Attributes a = m->must(m->manager->set_attributes(f, change, 0));
  BOOST_CHECK_EQUAL(a.mode, S_IFREG | 04711u);
  BOOST_CHECK(a.uid == 9 && a.mtime == (Timestamp{-7, 5}) && a.ctime > a.mtime);
  change.mtime = Timestamp{0, 1000000000};
  BOOST_CHECK(m->error(m->manager->set_attributes(f, change, 0)) == Errc::kInvalid);
}

BOOST_AUTO_TEST_CASE(numbers_are_not_used_twice_across_mounts) {
  std::set<std::uint64_t> seen;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 50; ++i) {
      const std::string name = std::to_string(i);
      BOOST_REQUIRE(seen.insert(m->file(root, name)->ino.value()).second);
      m->must(m->manager->purge(m->must(m->manager->unlink(root, name, 0))->ino));
    }
    root.reset();
    m.reset();
    m = mount();
    root = m->root();
  }
}

BOOST_AUTO_TEST_CASE(everything_is_there_after_a_remount) {
  const auto d = m->directory(root, "d");
  const auto f = m->file(d, "f");
  m->write(f, 5000, 3000);
  const Attributes before = at(f), above = at(d);
  const auto where = *m->manager->map(*f, 0, 8192);
  root.reset();
  m.reset();
  m = mount();
  const auto again = m->find(m->find(m->root(), "d"), "f");
  BOOST_CHECK(at(again) == before);
  BOOST_CHECK(at(m->find(m->root(), "d")) == above);
  const auto now = *m->manager->map(*again, 0, 8192);
  BOOST_REQUIRE_EQUAL(now.size(), where.size());
  BOOST_CHECK_EQUAL(now[1].chunk_offset, where[1].chunk_offset);
}

BOOST_AUTO_TEST_CASE(a_temporary_file_gets_a_name_or_is_purged) {
  NewNode node;
  node.mode = S_IFREG | 0600;
  const InodeRef named = m->must(m->manager->make_temporary(root, node, 0));
  const InodeRef nameless = m->must(m->manager->make_temporary(root, node, 0));
  BOOST_CHECK_EQUAL(m->manager->attributes(*named).nlink, 0u);
  m->must(m->manager->link(named, root, "named", 0));
  BOOST_CHECK_EQUAL(m->manager->attributes(*named).nlink, 1u);
  BOOST_CHECK(m->error(m->manager->purge(named->ino)) == Errc::kInvalid);
  // A name that is taken away again is the last one: no other may follow.
  m->must(m->manager->unlink(root, "named", 0));
  BOOST_CHECK(m->error(m->manager->link(named, root, "again", 0)) == Errc::kNotFound);
  m->must(m->manager->purge(named->ino));
  m->must(m->manager->purge(nameless->ino));
  BOOST_REQUIRE(m->store.journal->checkpoint().ok());
  BOOST_CHECK(!m->store.metastore->iterate("O")->valid());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
