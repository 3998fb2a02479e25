// FileSystem over a healthy memory: references, streams, ends of files.
#include "fixture.h"
#include "manager/posix_acl.h"
#include "tests/support/failing_sync.h"

namespace rmemfs {

BOOST_AUTO_TEST_SUITE(file_system)

BOOST_AUTO_TEST_CASE(a_file_that_is_unlinked_while_referenced_keeps_its_data_until_it_is_forgotten) {
  Fixture fixture;
  Files files(fixture);
  // A lease that is under way (a fresh mount leases ahead) is not counted until it is there.
  const auto all_is_free = [&] {
    const TimePoint limit = deadline_after_ms(10000);
    while (files.fs.statfs().free_bytes != fixture.setup.pool_bytes) {
      if (MonoClock::now() > limit) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  };
  BOOST_REQUIRE(all_is_free());
  const InodeNumber ino = files.create("file");
  BOOST_REQUIRE(files.write(ino, 0, std::string(100000, 'x')).ok());
  BOOST_REQUIRE(files.run(files.fs.unlink(files.context(), kRootInode, "file")).ok());
  files.settle();
  BOOST_TEST(!files.fs.lookup(kRootInode, "file").ok());
  BOOST_TEST(*files.read(ino, 99999, 10) == "x");
  BOOST_TEST(files.fs.getattr(ino)->nlink == 0u);
  files.fs.forget(ino, 1);
  files.settle();
  BOOST_TEST(!files.fs.getattr(ino).ok());
  BOOST_TEST(files.fs.referenced_inodes() == 0u);
  BOOST_REQUIRE(files.run(files.mount.manager->persist_all()).ok());
  BOOST_TEST(all_is_free());
}

// How the kernel opens a file handle of an inode that it has forgotten.
BOOST_AUTO_TEST_CASE(the_name_dot_finds_any_inode_by_its_number_until_its_last_name_is_gone) {
  Fixture fixture;
  Files files(fixture);
  const InodeNumber ino = files.create("file");
  files.fs.forget(ino, 1);
  BOOST_TEST((files.fs.lookup(ino, ".")->ino == ino));
  BOOST_TEST((files.fs.lookup(kRootInode, ".")->ino == kRootInode));
  files.fs.forget(kRootInode, 1);
  BOOST_REQUIRE(files.run(files.fs.unlink(files.context(), kRootInode, "file")).ok());
  files.settle();
  BOOST_TEST((files.fs.lookup(ino, ".").error().code == Errc::kNotFound));  // nobody can make it live longer,
  BOOST_TEST(files.fs.getattr(ino).ok());                                   // but who holds it still has it
  files.fs.forget(ino, 1);
  files.settle();
  BOOST_TEST(!files.fs.getattr(ino).ok());
  BOOST_TEST((files.fs.lookup(ino, ".").error().code == Errc::kNotFound));
  BOOST_TEST(files.fs.referenced_inodes() == 0u);
}

BOOST_AUTO_TEST_CASE(a_replaced_file_is_purged) {
  Fixture fixture;
  Files files(fixture);
  const InodeNumber first = files.create("first"), second = files.create("second");
  files.fs.forget(first, 1);
  files.fs.forget(second, 1);
  BOOST_REQUIRE(
      files.run(files.fs.rename(files.context(), kRootInode, "first", kRootInode, "second", RenameMode::kReplace))
          .ok());
  files.settle();
  BOOST_TEST(!files.fs.getattr(second).ok());
  BOOST_TEST((files.fs.lookup(kRootInode, "second")->ino == first));
}

// A write that changes nothing but bytes relies on the times of the one before it: with commit=sync it waits for them.
BOOST_AUTO_TEST_CASE(an_overwrite_is_not_acknowledged_before_the_times_it_relies_on_are_persistent) {
  Fixture fixture;
  std::atomic<bool> broken{false};
  MountOptions options;
  options.recover.journal.mode = CommitMode::kSync;
  options.manager.sync_commit = true;
  options.recover.journal_memory = [&broken](std::unique_ptr<PersistentMemory> memory) {
    return std::make_unique<FailingSync>(std::move(memory), broken);
  };
  Files files(fixture, 2000, options);
  const InodeNumber ino = files.create("file");
  BOOST_REQUIRE(files.write(ino, 0, std::string(4096, 'a')).ok());
  BOOST_REQUIRE(files.fs.getattr(ino).ok());
  broken = true;
  int without = 0;
  for (int i = 0; i < 20; ++i) {
    const CommitId before = files.mount.store.journal->last_id();
    BOOST_TEST(!files.write(ino, 0, std::string(4096, 'b')).ok());
    if (files.mount.store.journal->last_id() == before) ++without;
  }
  broken = false;
  BOOST_TEST(without > 0);
}

// With commit=sync the caller is told that the change cannot be made persistent; the change is there all the same, and
// what it freed must not stay taken until the next mount.
BOOST_AUTO_TEST_CASE(what_loses_its_name_is_freed_even_when_the_change_cannot_be_made_persistent) {
  Fixture fixture;
  std::atomic<bool> broken{false};
  MountOptions options;
  options.recover.journal.mode = CommitMode::kSync;
  options.manager.sync_commit = true;
  options.recover.journal_memory = [&broken](std::unique_ptr<PersistentMemory> memory) {
    BOOST_REQUIRE(!memory->drain_is_persistent());  // a sync is what makes it persistent
    return std::make_unique<FailingSync>(std::move(memory), broken);
  };
  Files files(fixture, 2000, options);
  const std::uint64_t inodes = files.mount.manager->space().inodes;
  const auto must_fail = [&](Result<void> outcome) {
    broken = false;
    BOOST_REQUIRE(!outcome.ok());
    BOOST_CHECK(outcome.error().code == Errc::kLocalIo);
    files.settle();
  };
  const auto used = [&] { return files.mount.manager->nodes().front().used_bytes; };
  const std::string data(100000, 'x');

  const InodeNumber unlinked = files.create("unlinked");
  BOOST_REQUIRE(files.write(unlinked, 0, data).ok());
  files.fs.forget(unlinked, 1);
  broken = true;
  must_fail(files.run(files.fs.unlink(files.context(), kRootInode, "unlinked")));
  BOOST_CHECK(!files.fs.getattr(unlinked).ok());

  const InodeNumber kept = files.create("kept"), replaced = files.create("replaced");
  BOOST_REQUIRE(files.write(replaced, 0, data).ok());
  files.fs.forget(kept, 1);
  files.fs.forget(replaced, 1);
  broken = true;
  must_fail(
      files.run(files.fs.rename(files.context(), kRootInode, "kept", kRootInode, "replaced", RenameMode::kReplace)));
  BOOST_CHECK(!files.fs.getattr(replaced).ok());

  const InodeNumber directory = files.create("directory", S_IFDIR | 0755);
  files.fs.forget(directory, 1);
  broken = true;
  must_fail(files.run(files.fs.rmdir(files.context(), kRootInode, "directory")));
  BOOST_CHECK(!files.fs.getattr(directory).ok());

  BOOST_REQUIRE(files.run(files.mount.manager->persist_all()).ok());
  BOOST_CHECK_EQUAL(files.mount.manager->space().inodes, inodes + 1);
  BOOST_CHECK_EQUAL(used(), 0u);
}

BOOST_AUTO_TEST_CASE(holes_and_what_lies_behind_an_old_end_read_as_zeros) {
  Fixture fixture;
  Files files(fixture);
  const InodeNumber ino = files.create("sparse");
  BOOST_REQUIRE(files.write(ino, 0, std::string(5000, 'a')).ok());
  SetAttributes set;
  set.size = 10;
  BOOST_REQUIRE(files.run(files.fs.setattr(files.context(), ino, set)).ok());
  BOOST_REQUIRE(files.write(ino, 20000, "b").ok());
  const std::string all = *files.read(ino, 0, 30000);
  BOOST_TEST(all.size() == 20001u);
  BOOST_TEST((all == std::string(10, 'a') + std::string(19990, '\0') + "b"));
}

BOOST_AUTO_TEST_CASE(a_stream_goes_on_where_it_stopped_and_rewinds) {
  Fixture fixture;
  Files files(fixture);
  for (int i = 0; i < 50; ++i) files.create("name" + std::to_string(i));
  for (int round = 0; round < 2; ++round) {
    std::map<std::string, int> seen;
    std::uint64_t cookie = 0;
    for (bool more = true; more;) {
      more = false;
      int room = 3;
      const auto read =
          files.fs.read_directory(kRootInode, cookie, false, 7, [&](const DirectoryEntry& entry, const Attributes*) {
            if (room-- == 0) return false;
            ++seen[entry.name];
            cookie = entry.cookie;
            return more = true;
          });
      BOOST_REQUIRE(read.ok());
    }
    BOOST_TEST(seen.size() == 52u);
    for (const auto& [name, count] : seen) BOOST_TEST(count == 1, name << " was given " << count << " times");
  }
}

BOOST_AUTO_TEST_CASE(listing_with_attributes_counts_a_reference_for_each_name_that_was_taken) {
  Fixture fixture;
  Files files(fixture);
  const InodeNumber ino = files.create("file");
  files.fs.forget(ino, 1);
  const auto take = [](bool taken) {
    return [taken](const DirectoryEntry& entry, const Attributes*) { return taken || entry.name[0] == '.'; };
  };
  BOOST_REQUIRE(files.fs.read_directory(kRootInode, 0, true, 100, take(false)).ok());
  BOOST_TEST(files.fs.referenced_inodes() == 0u);
  BOOST_REQUIRE(files.fs.read_directory(kRootInode, 0, true, 100, take(true)).ok());
  BOOST_TEST(files.fs.referenced_inodes() == 1u);
  files.fs.forget(ino, 1);
}

BOOST_AUTO_TEST_CASE(data_of_a_directory_is_refused) {
  Fixture fixture;
  Files files(fixture);
  const InodeNumber ino = files.create("directory", S_IFDIR | 0755);
  BOOST_TEST((files.write(ino, 0, "x").error().code == Errc::kIsDirectory));
  BOOST_TEST((files.read(ino, 0, 1).error().code == Errc::kIsDirectory));
  BOOST_TEST((files.write(files.create("pipe", S_IFIFO | 0644), 0, "x").error().code == Errc::kInvalid));
}

BOOST_AUTO_TEST_CASE(a_file_beyond_the_largest_size_is_refused) {
  Fixture fixture;
  Files files(fixture);
  const InodeNumber ino = files.create("file");
  BOOST_TEST((files.write(ino, kMaxFileBytes - 1, "xx").error().code == Errc::kTooBig));
  BOOST_TEST((files.write(ino, UINT64_MAX, "x").error().code == Errc::kTooBig));
  BOOST_TEST(files.size(ino) == 0u);
}

BOOST_AUTO_TEST_CASE(a_copied_range_has_the_same_bytes) {
  Fixture fixture;
  Files files(fixture);
  const InodeNumber from = files.create("from"), to = files.create("to");
  std::string bytes(300000, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>('a' + i % 23);
  BOOST_REQUIRE(files.write(from, 0, bytes).ok());
  std::vector<std::byte> buffer(10000);
  const auto copy = [&](std::uint64_t offset, std::uint64_t length) {
    return files.run(files.fs.copy_range(files.context(), from, offset, to, 5, length, buffer));
  };
  BOOST_TEST(*copy(100, 250000) == 250000u);
  BOOST_TEST((*files.read(to, 0, 300000) == std::string(5, '\0') + bytes.substr(100, 250000)));
  BOOST_TEST(*copy(299990, 100) == 10u);  // to the end of the file
  BOOST_TEST(*copy(300000, 100) == 0u);
}

BOOST_AUTO_TEST_CASE(set_id_bits_go_when_others_write_and_when_anybody_changes_the_owner) {
  Fixture fixture;
  Files files(fixture);
  const InodeNumber ino = files.create("program");
  const auto mode = [&] { return files.fs.getattr(ino)->mode & 07777; };
  const auto change = [&](const AttributeChange& to) {
    SetAttributes set;
    set.change = to;
    BOOST_REQUIRE(files.run(files.fs.setattr(files.context(), ino, set)).ok());
  };
  RequestContext other = files.context();
  other.uid = other.gid = 1000;
  const std::string byte = "x";
  const auto write = [&](const RequestContext& context) {
    return files.run(files.fs.write(context, ino, 0, std::as_bytes(std::span(byte))));
  };
  change({.mode = 06755});
  BOOST_REQUIRE(write(files.context()).ok());
  BOOST_TEST(mode() == 06755u);
  other.clears_set_id = true;
  BOOST_REQUIRE(write(other).ok());
  BOOST_TEST(mode() == 0755u);
  change({.mode = 02644});  // not for execution: of no use to somebody outside the group
  BOOST_REQUIRE(files.run(files.fs.fallocate(other, ino, FileSystem::Fallocate::kExtend, 0, 10)).ok());
  BOOST_TEST(mode() == 0644u);
  change({.mode = 06755});
  change({.uid = 7});
  BOOST_TEST(mode() == 0755u);
}

BOOST_AUTO_TEST_CASE(a_temporary_file_goes_with_its_last_reference_unless_it_was_named) {
  Fixture fixture;
  Files files(fixture);
  NewNode node;
  node.mode = S_IFREG | 0600;
  const auto named = files.run(files.fs.make_temporary(files.context(), kRootInode, node));
  const auto nameless = files.run(files.fs.make_temporary(files.context(), kRootInode, node));
  BOOST_REQUIRE(named.ok() && nameless.ok());
  BOOST_REQUIRE(files.write(named->ino, 0, "kept").ok());
  BOOST_REQUIRE(files.run(files.fs.link(files.context(), named->ino, kRootInode, "name")).ok());
  files.fs.forget(named->ino, 2);
  files.fs.forget(nameless->ino, 1);
  files.settle();
  BOOST_TEST(!files.fs.getattr(nameless->ino).ok());
  BOOST_REQUIRE(files.fs.lookup(kRootInode, "name").ok());
  BOOST_TEST(*files.read(named->ino, 0, 10) == "kept");
}

BOOST_AUTO_TEST_CASE(extended_attributes_are_set_listed_and_removed) {
  Fixture fixture;
  Files files(fixture);
  const InodeNumber ino = files.create("file");
  using Mode = ExtendedChange::Mode;
  const auto set = [&](std::string_view name, std::optional<std::string_view> value, Mode mode = Mode::kAny) {
    const ExtendedChange change{name, value, mode};
    const auto done = files.run(files.fs.set_extended(files.context(), ino, change));
    return done.ok() ? std::optional<Errc>() : done.error().code;
  };
  BOOST_TEST((files.fs.get_extended(ino, "user.a").error().code == Errc::kNoAttribute));
  BOOST_TEST((set("user.a", "one", Mode::kReplace) == Errc::kNoAttribute));
  BOOST_TEST(!set("user.a", "one", Mode::kCreate));
  BOOST_TEST((set("user.a", "two", Mode::kCreate) == Errc::kExists));
  BOOST_TEST(!set("trusted.b", ""));
  BOOST_TEST(!set("user.a", "three"));
  BOOST_TEST(*files.fs.get_extended(ino, "user.a") == "three");
  BOOST_TEST(*files.fs.get_extended(ino, "trusted.b") == "");
  BOOST_TEST(*files.fs.list_extended(files.context(), ino) == std::string("trusted.b\0user.a\0", 17));
  RequestContext other = files.context();
  other.uid = 1000;
  BOOST_TEST(*files.fs.list_extended(other, ino) == std::string("user.a\0", 7));
  BOOST_TEST((set("user.", "x") == Errc::kInvalid));
  BOOST_TEST((set("system.x", "x") == Errc::kNotSupported));
  BOOST_TEST((set("user.long", std::string(65536, 'x')) == Errc::kNoSpace));
  BOOST_TEST(*files.fs.get_extended(ino, "user.a") == "three");
  BOOST_TEST(!set("user.a", std::nullopt));
  BOOST_TEST((set("user.a", std::nullopt) == Errc::kNoAttribute));
  BOOST_TEST(!set("trusted.b", std::nullopt));
  BOOST_TEST(files.fs.getattr(ino)->extended_bytes == 0u);
}

BOOST_AUTO_TEST_CASE(an_access_list_follows_chmod_and_is_inherited) {
  Fixture fixture;
  Files files(fixture);
  using E = AccessEntry;
  const std::string list = encode_access_list(
      {{E::kOwner, 7, 0}, {E::kUser, 5, 1000}, {E::kOwningGroup, 4, 0}, {E::kMask, 5, 0}, {E::kOther, 0, 0}});
  const auto set = [&](InodeNumber ino, std::string_view name, std::string_view value) {
    return files.run(files.fs.set_extended(files.context(), ino, {name, value}));
  };
  const InodeNumber file = files.create("file");
  BOOST_REQUIRE(set(file, kAccessListName, list).ok());
  BOOST_TEST((files.fs.getattr(file)->mode & 07777) == 0750u);
  BOOST_TEST((set(file, kDefaultListName, list).error().code == Errc::kAccess));
  BOOST_TEST((set(file, kAccessListName, list.substr(1)).error().code == Errc::kInvalid));
  SetAttributes change;
  change.change.mode = 0611;
  BOOST_REQUIRE(files.run(files.fs.setattr(files.context(), file, change)).ok());
  const auto changed = decode_access_list(*files.fs.get_extended(file, kAccessListName));
  BOOST_REQUIRE(changed.ok());
  BOOST_TEST(mode_of(*changed) == 0611u);
  BOOST_TEST((*changed)[1].permissions == 5u);  // the user's stay, and the mask restricts them
  // With a new size, in one transaction. (What is leased ahead meanwhile makes one or two of its own.)
  constexpr std::uint64_t kChanges = 20;
  const std::uint64_t before = files.mount.store.journal->last_id().value();
  for (std::uint64_t i = 1; i <= kChanges; ++i) {
    change.change.mode = i % 2 == 0 ? 0640 : 0660;
    change.size = 12325 + i;
    BOOST_REQUIRE(files.run(files.fs.setattr(files.context(), file, change)).ok());
  }
  const std::uint64_t made = files.mount.store.journal->last_id().value() - before;
  BOOST_TEST(made >= kChanges);
  BOOST_TEST(made < kChanges + kChanges / 2);
  BOOST_TEST((files.fs.getattr(file)->mode & 07777) == 0640u);
  BOOST_TEST(files.fs.getattr(file)->size == 12345u);
  BOOST_TEST(mode_of(*decode_access_list(*files.fs.get_extended(file, kAccessListName))) == 0640u);
  // One that says no more than the bits is not kept.
  BOOST_REQUIRE(
      set(file, kAccessListName, encode_access_list({{E::kOwner, 6, 0}, {E::kOwningGroup, 4, 0}, {E::kOther, 4, 0}}))
          .ok());
  BOOST_TEST((files.fs.getattr(file)->mode & 07777) == 0644u);
  BOOST_TEST(files.fs.getattr(file)->extended_bytes == 0u);

  NewNode node;
  node.mode = S_IFDIR | 0777;
  const auto directory = files.run(files.fs.make_node(files.context(), kRootInode, "directory", node));
  BOOST_REQUIRE(directory.ok() && set(directory->ino, kDefaultListName, list).ok());
  node.umask = 077;  // a default list counts instead
  const auto below = files.run(files.fs.make_node(files.context(), directory->ino, "below", node));
  BOOST_REQUIRE(below.ok());
  BOOST_TEST((below->mode & 07777) == 0750u);
  BOOST_TEST(*files.fs.get_extended(below->ino, kDefaultListName) == list);
  BOOST_TEST(*files.fs.get_extended(below->ino, kAccessListName) == list);
  node.mode = S_IFREG | 0666;
  const auto inherited = files.run(files.fs.make_node(files.context(), directory->ino, "file", node));
  BOOST_REQUIRE(inherited.ok());
  BOOST_TEST((inherited->mode & 07777) == 0640u);
  const auto without = files.run(files.fs.make_node(files.context(), kRootInode, "without", node));
  BOOST_TEST((without->mode & 07777) == 0600u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
