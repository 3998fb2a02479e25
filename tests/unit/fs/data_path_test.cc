// The data path when memory nodes misbehave: errors surface, sizes stay true, deadlines hold.
#include "fixture.h"

namespace rmemfs {

BOOST_AUTO_TEST_SUITE(data_path)

BOOST_AUTO_TEST_CASE(a_write_that_fails_leaves_size_and_contents) {
  Fixture fixture;
  Files files(fixture);
  files.faults.fail_nth = 2;
  const InodeNumber ino = files.create("file");
  BOOST_REQUIRE(files.write(ino, 0, std::string(4096, 'a')).ok());
  const auto failed = files.write(ino, 4096, std::string(4096, 'b'));
  BOOST_REQUIRE(!failed.ok());
  BOOST_TEST((failed.error().code == Errc::kUnreachable));
  BOOST_TEST(files.size(ino) == 4096u);
  BOOST_TEST((*files.read(ino, 0, 10000) == std::string(4096, 'a')));
  BOOST_REQUIRE(files.write(ino, 4096, "again").ok());
  BOOST_TEST((*files.read(ino, 4096, 100) == "again"));
}

BOOST_AUTO_TEST_CASE(blocks_of_a_write_of_unknown_fate_are_not_given_to_another_file) {
  Setup setup;
  setup.pool_bytes = 1u << 20;
  Fixture fixture(setup);
  Files files(fixture, 100);
  files.faults.drop = 1000;
  const InodeNumber first = files.create("first");
  const std::uint64_t before = files.fs.statfs().free_bytes;
  BOOST_REQUIRE(!files.write(first, 0, std::string(65536, 'a')).ok());
  BOOST_TEST(files.fs.statfs().free_bytes < before);
  BOOST_TEST(files.size(first) == 0u);
}

BOOST_AUTO_TEST_CASE(an_operation_that_is_never_answered_ends_at_its_deadline) {
  Fixture fixture;
  Files files(fixture, 200);
  files.faults.drop = 1000;
  const InodeNumber ino = files.create("file");
  const TimePoint began = MonoClock::now();
  const auto failed = files.write(ino, 0, "x");
  const auto took = MonoClock::now() - began;
  BOOST_REQUIRE(!failed.ok());
  BOOST_TEST((failed.error().code == Errc::kDeadline));
  BOOST_TEST((took >= std::chrono::milliseconds(190) && took < std::chrono::milliseconds(2000)));
}

BOOST_AUTO_TEST_CASE(requests_for_the_same_bytes_do_not_wait_one_deadline_after_the_other) {
  Fixture fixture;
  Files files(fixture, 300);
  const InodeNumber ino = files.create("file");
  BOOST_REQUIRE(files.write(ino, 0, std::string(4096, 'a')).ok());
  files.faults.drop = 1000;
  ConnectionSet deaf(1, files.mount.loop, [&files](NodeId, std::uint32_t) -> Result<std::unique_ptr<Connection>> {
    return std::make_unique<FaultyConnection>(
        std::make_unique<MemoryConnection>(files.memory, files.boot, files.reboots), files.faults);
  });
  constexpr int kWriters = 8;
  int ended = 0;
  const std::string bytes(4096, 'b');
  const auto write = [](Files& f, ConnectionSet& on, InodeNumber file, const std::string& from,
                        int& done) -> Task<void> {
    const auto result = co_await f.fs.write(RequestContext{&on, 0, 0, 0}, file, 0, as_bytes(std::string_view(from)));
    BOOST_TEST((!result.ok() && result.error().code == Errc::kDeadline));
    ++done;
  };
  const TimePoint began = MonoClock::now();
  for (int i = 0; i < kWriters; ++i) spawn(write(files, deaf, ino, bytes, ended));
  while (ended < kWriters && MonoClock::now() - began < std::chrono::seconds(10)) {
    files.run([]() -> Task<void> { co_await Yield{}; }());
    deaf.poll();
  }
  BOOST_REQUIRE(ended == kWriters);
  // One after the other they would take 2.4 s: each its 300 ms, or the moment that a silent node is granted.
  BOOST_TEST((MonoClock::now() - began < std::chrono::milliseconds(1300)));
}

// A node's host loses power between a write and its fsync, and comes back with the region.
BOOST_AUTO_TEST_CASE(fsync_says_to_all_that_written_bytes_may_be_gone_with_the_boot_they_were_written_in) {
  Fixture fixture;
  for (const auto& [address, node] : fixture.nodes)
    node->set_durability({Durability::kPersistent, PersistMethod::kNodeFlush});
  Files files(fixture);
  const InodeNumber written = files.create("written"), other = files.create("other");
  for (const InodeNumber ino : {written, other}) {
    BOOST_REQUIRE(files.write(ino, 0, std::string(4096, 'a')).ok());
    BOOST_REQUIRE(files.run(files.fs.fsync(ino)).ok());
  }
  BOOST_REQUIRE(files.write(written, 0, std::string(4096, 'b')).ok());  // in place: fsync is to make it persistent
  files.boot = 2;
  BOOST_TEST(files.run(files.fs.fsync(other)).ok());  // it has nothing that could be gone
  const auto failed = files.run(files.fs.fsync(written));
  BOOST_REQUIRE(!failed.ok());
  BOOST_TEST((failed.error().code == Errc::kNotKept));
  BOOST_TEST(!files.run(files.fs.fsync(written)).ok());  // another process hears it, too
  std::this_thread::sleep_for(DirtyRegions::kToldFor);
  BOOST_TEST(files.run(files.fs.fsync(written)).ok());
  // Written before and after: what came before may be gone.
  BOOST_REQUIRE(files.write(written, 0, std::string(4096, 'c')).ok());
  files.boot = 3;
  BOOST_REQUIRE(files.write(written, 0, std::string(2048, 'd')).ok());
  BOOST_TEST(!files.run(files.fs.fsync(written)).ok());
}

// The same between the halves of one write: its new blocks may hold anything, so the file must not name them.
BOOST_AUTO_TEST_CASE(blocks_written_in_an_earlier_boot_than_they_were_persisted_in_are_not_part_of_the_file) {
  Fixture fixture;
  for (const auto& [address, node] : fixture.nodes)
    node->set_durability({Durability::kPersistent, PersistMethod::kNodeFlush});
  Files files(fixture);
  const InodeNumber ino = files.create("file");
  files.reboots = true;
  const auto failed = files.write(ino, 0, std::string(4096, 'a'));
  BOOST_REQUIRE(!failed.ok());
  BOOST_TEST((failed.error().code == Errc::kNotKept));
  BOOST_TEST(files.size(ino) == 0u);
  BOOST_REQUIRE(files.write(ino, 0, std::string(4096, 'b')).ok());
  BOOST_TEST(files.run(files.fs.fsync(ino)).ok());
}

// The kernel wants set-ID bits cleared with each write of an ordinary user; looking whether there are any is not
// looking at the file's times.
BOOST_AUTO_TEST_CASE(an_ordinary_user_overwrites_without_a_transaction_too) {
  Fixture fixture;
  Files files(fixture);
  const InodeNumber ino = files.create("file");
  const std::string bytes(4096, 'a');
  int without = 0;
  for (int i = 0; i < 50; ++i) {
    RequestContext context = files.context();
    context.uid = 1000;
    context.clears_set_id = true;
    const auto before = files.mount.store.journal->last_id();
    BOOST_REQUIRE(files.run(files.fs.write(context, ino, 0, as_bytes(std::string_view(bytes)))).ok());
    if (files.mount.store.journal->last_id() == before) ++without;
  }
  BOOST_TEST(without > 0);
}

BOOST_AUTO_TEST_CASE(a_torn_write_is_not_part_of_the_file) {
  Fixture fixture;
  Files files(fixture);
  files.faults.tear = 1000;
  const InodeNumber ino = files.create("file");
  BOOST_REQUIRE(!files.write(ino, 0, std::string(100000, 'a')).ok());
  BOOST_TEST(files.size(ino) == 0u);
  BOOST_TEST(files.read(ino, 0, 100)->empty());
}

BOOST_AUTO_TEST_CASE(late_and_reordered_operations_change_nothing) {
  Fixture fixture;
  Files files(fixture);
  files.faults.delay = 300;
  files.faults.reorder = 300;
  files.faults.max_delay = std::chrono::milliseconds(1);
  const InodeNumber ino = files.create("file");
  std::string expected;
  for (int i = 0; i < 60; ++i) {
    const std::string part(1000 + i * 37, static_cast<char>('a' + i % 26));
    BOOST_REQUIRE(files.write(ino, expected.size(), part).ok());
    expected += part;
  }
  BOOST_TEST((*files.read(ino, 0, expected.size() + 10) == expected));
}

BOOST_AUTO_TEST_CASE(a_lost_region_is_an_error_for_its_files_and_never_zeros) {
  Fixture fixture;
  Files files(fixture);
  files.faults.fail_nth = 2;
  files.faults.fail_error = Errc::kRegionLost;
  const InodeNumber ino = files.create("file");
  BOOST_REQUIRE(files.write(ino, 0, std::string(4096, 'p')).ok());
  BOOST_TEST((files.read(ino, 0, 100).error().code == Errc::kRegionLost));
  BOOST_TEST((files.read(ino, 0, 100).error().code == Errc::kRegionLost));  // known now, without asking the node
}

BOOST_AUTO_TEST_CASE(a_write_that_fails_after_its_first_transaction_says_how_much_is_written) {
  Setup setup;
  setup.pool_bytes = 1u << 20;
  setup.journal = {1024, 6};  // a few extents to a transaction
  Fixture fixture(setup);
  Files files(fixture);
  // Free space in single blocks.
  const InodeNumber sieve = files.create("sieve");
  std::uint64_t blocks = 0;
  while (files.write(sieve, blocks * kBlockBytes, "s").ok()) ++blocks;
  for (std::uint64_t i = 0; i < blocks; i += 2) {
    BOOST_REQUIRE(files
                      .run(files.fs.fallocate(files.context(), sieve, FileSystem::Fallocate::kPunchHole,
                                              i * kBlockBytes, kBlockBytes))
                      .ok());
  }
  BOOST_REQUIRE(files.run(files.mount.manager->persist_all()).ok());

  const InodeNumber ino = files.create("file");
  std::string bytes(100 * kBlockBytes, 'x');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>('a' + i / 1000 % 26);
  FaultyConnection::Faults faults;
  faults.fail_nth = 60;
  ConnectionSet failing(1, files.mount.loop, [&](NodeId, std::uint32_t) -> Result<std::unique_ptr<Connection>> {
    return std::make_unique<FaultyConnection>(
        std::make_unique<MemoryConnection>(files.memory, files.boot, files.reboots), faults);
  });
  const auto written =
      files.run(files.fs.write(RequestContext{&failing, 0, 0, 0}, ino, 0, as_bytes(std::string_view(bytes))));
  BOOST_REQUIRE(written.ok());
  BOOST_TEST(*written > 0u);
  BOOST_TEST(*written < bytes.size());
  BOOST_TEST(files.size(ino) == *written);
  BOOST_TEST((*files.read(ino, 0, bytes.size()) == bytes.substr(0, *written)));
  BOOST_REQUIRE(files.write(ino, *written, bytes.substr(*written)).ok());
  BOOST_TEST((*files.read(ino, 0, bytes.size()) == bytes));
}

BOOST_AUTO_TEST_CASE(an_fsync_that_fails_leaves_its_work_to_the_next_one) {
  Fixture fixture;
  fixture.nodes.begin()->second->set_durability({Durability::kPersistent, PersistMethod::kNodeFlush});
  Files files(fixture);
  // Written and persisted; written in place; persisted by the first fsync and by the second.
  files.faults.fail_nth = 4;
  const InodeNumber ino = files.create("file");
  BOOST_REQUIRE(files.write(ino, 0, std::string(4096, 'a')).ok());
  BOOST_REQUIRE(files.write(ino, 0, std::string(4096, 'b')).ok());
  const auto persists = [&] { return files.connections.counters.get(Counter::kRemotePersists); };
  BOOST_TEST((files.run(files.fs.fsync(ino)).error().code == Errc::kUnreachable));
  const std::uint64_t before = persists();
  BOOST_TEST(files.run(files.fs.fsync(ino)).ok());
  BOOST_TEST(persists() == before + 1);
  BOOST_TEST(files.run(files.fs.fsync(ino)).ok());
  BOOST_TEST(persists() == before + 1);
}

BOOST_AUTO_TEST_CASE(fsync_fails_for_everybody_until_the_lost_bytes_are_no_part_of_the_file) {
  Fixture fixture;
  fixture.nodes.begin()->second->set_durability({Durability::kPersistent, PersistMethod::kNodeFlush});
  Files files(fixture);
  const InodeNumber ino = files.create("file"), other = files.create("other");
  BOOST_REQUIRE(files.write(ino, 0, std::string(4096, 'a')).ok());
  BOOST_REQUIRE(files.write(ino, 0, std::string(4096, 'b')).ok());
  const InodeRef inode = *files.mount.manager->get(ino);
  const Pieces pieces = *files.mount.manager->map(*inode, 0, 4096);
  files.mount.manager->chunk_lost(*pieces.front().chunk);
  for (int i = 0; i < 3; ++i) BOOST_TEST((files.run(files.fs.fsync(ino)).error().code == Errc::kRegionLost));
  BOOST_TEST((files.read(ino, 0, 10).error().code == Errc::kRegionLost));
  BOOST_TEST(files.run(files.fs.fsync(other)).ok());
  SetAttributes set;
  set.size = 0;
  BOOST_REQUIRE(files.run(files.fs.setattr(files.context(), ino, set)).ok());
  BOOST_TEST(files.run(files.fs.fsync(ino)).ok());
  BOOST_REQUIRE(files.write(ino, 0, "again").ok());
  BOOST_TEST(files.run(files.fs.fsync(ino)).ok());
  BOOST_TEST((*files.read(ino, 0, 10) == "again"));
}

BOOST_AUTO_TEST_CASE(a_fenced_mount_says_so) {
  Fixture fixture;
  Files files(fixture);
  files.faults.fail_nth = 1;
  files.faults.fail_error = Errc::kFenced;
  const InodeNumber ino = files.create("file");
  BOOST_TEST((files.write(ino, 0, "x").error().code == Errc::kFenced));
  BOOST_TEST(files.mount.manager->is_fenced());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
