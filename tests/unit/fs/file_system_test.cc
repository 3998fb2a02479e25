// FileSystem over a healthy memory: references, streams, ends of files.
#include "fixture.h"
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

BOOST_AUTO_TEST_CASE(appending_writes_go_to_the_end_whatever_their_offset) {
  Fixture fixture;
  Files files(fixture);
  const InodeNumber ino = files.create("log");
  BOOST_REQUIRE(files.write(ino, 500, "one", true).ok());
  BOOST_REQUIRE(files.write(ino, 0, "two", true).ok());
  BOOST_TEST(*files.read(ino, 0, 100) == "onetwo");
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
  const auto handle = files.fs.open_directory(kRootInode);
  BOOST_REQUIRE(handle.ok());
  for (int round = 0; round < 2; ++round) {
    std::map<std::string, int> seen;
    std::uint64_t cookie = 0;
    for (bool more = true; more;) {
      more = false;
      int room = 3;
      const auto read =
          files.fs.read_directory(*handle, cookie, false, 7, [&](const DirectoryEntry& entry, const Attributes*) {
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
  BOOST_TEST(files.fs.close_directory(*handle).ok());
  BOOST_TEST(!files.fs.close_directory(*handle).ok());
}

BOOST_AUTO_TEST_CASE(listing_with_attributes_counts_a_reference_for_each_name_that_was_taken) {
  Fixture fixture;
  Files files(fixture);
  const InodeNumber ino = files.create("file");
  files.fs.forget(ino, 1);
  const auto handle = files.fs.open_directory(kRootInode);
  const auto take = [](bool taken) {
    return [taken](const DirectoryEntry& entry, const Attributes*) { return taken || entry.name[0] == '.'; };
  };
  BOOST_REQUIRE(files.fs.read_directory(*handle, 0, true, 100, take(false)).ok());
  BOOST_TEST(files.fs.referenced_inodes() == 0u);
  BOOST_REQUIRE(files.fs.read_directory(*handle, 0, true, 100, take(true)).ok());
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

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
