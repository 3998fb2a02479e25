// Lookup counts, and what fsync has to persist.
#include "fs/dirty_regions.h"
#include "fs/inode_table.h"
#include "fs/request_buffer.h"

#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>

namespace rmemfs {

BOOST_AUTO_TEST_SUITE(inode_table)

BOOST_AUTO_TEST_CASE(counts_balance) {
  InodeTable table;
  const InodeNumber ino(7);
  table.add(ino);
  table.add(ino, 3);
  BOOST_TEST(table.references(ino) == 4u);
  BOOST_TEST(!table.forget(ino, 3));
  BOOST_TEST(!table.forget(ino, 1));
  BOOST_TEST(table.size() == 0u);
}

BOOST_AUTO_TEST_CASE(an_orphan_is_purged_by_its_last_reference_and_once) {
  InodeTable table;
  const InodeNumber ino(7);
  table.add(ino, 2);
  BOOST_TEST(!table.orphaned(ino));
  BOOST_TEST(!table.forget(ino, 1));
  BOOST_TEST(table.forget(ino, 1));
  BOOST_TEST(!table.forget(ino, 1));
}

BOOST_AUTO_TEST_CASE(an_orphan_without_references_is_purged_at_once) {
  InodeTable table;
  BOOST_TEST(table.orphaned(InodeNumber(9)));
  BOOST_TEST(table.size() == 0u);
}

BOOST_AUTO_TEST_CASE(forgetting_too_much_does_not_wrap) {
  InodeTable table;
  table.add(InodeNumber(9), 2);
  BOOST_TEST(!table.forget(InodeNumber(9), 5));
  BOOST_TEST(table.references(InodeNumber(9)) == 0u);
}

BOOST_AUTO_TEST_CASE(orphans_are_taken_at_unmount) {
  InodeTable table;
  table.add(InodeNumber(1));
  table.add(InodeNumber(2));
  BOOST_TEST(!table.orphaned(InodeNumber(2)));
  const auto orphans = table.take_orphans();
  BOOST_REQUIRE(orphans.size() == 1u);
  BOOST_TEST(orphans[0].value() == 2u);
  BOOST_TEST(table.size() == 1u);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(dirty_regions)

BOOST_AUTO_TEST_CASE(a_write_during_fsync_stays_for_the_next_one) {
  DirtyRegions dirty;
  Chunk chunk;
  const InodeNumber ino(3);
  BOOST_REQUIRE(dirty.written(ino, 0, chunk, 1));
  BOOST_REQUIRE(dirty.written(ino, 1, chunk, 1));
  const auto before = dirty.snapshot(ino);
  BOOST_TEST(before.size() == 2u);
  BOOST_REQUIRE(dirty.written(ino, 1, chunk, 1));
  dirty.persisted(ino, before);
  const auto after = dirty.snapshot(ino);
  BOOST_REQUIRE(after.size() == 1u);
  BOOST_TEST(after[0].lane == 1u);
}

BOOST_AUTO_TEST_CASE(a_failed_fsync_leaves_everything) {
  DirtyRegions dirty;
  Chunk chunk;
  BOOST_REQUIRE(dirty.written(InodeNumber(3), 0, chunk, 1));
  BOOST_TEST(dirty.snapshot(InodeNumber(3)).size() == 1u);
  BOOST_TEST(dirty.snapshot(InodeNumber(3)).size() == 1u);
}

BOOST_AUTO_TEST_CASE(writes_of_two_boots_are_no_longer_one_boots) {
  DirtyRegions dirty;
  Chunk chunk;
  const InodeNumber ino(3);
  BOOST_REQUIRE(dirty.written(ino, 0, chunk, 1));
  BOOST_REQUIRE(dirty.written(ino, 0, chunk, 1));
  BOOST_TEST(!dirty.snapshot(ino)[0].mixed);
  BOOST_TEST(dirty.snapshot(ino)[0].boot == 1u);
  BOOST_REQUIRE(dirty.written(ino, 0, chunk, 2));
  BOOST_TEST(dirty.snapshot(ino)[0].mixed);
  BOOST_TEST(DirtyRegions::kept(1, 1));
  BOOST_TEST(!DirtyRegions::kept(1, 2));
  BOOST_TEST(DirtyRegions::kept(0, 2));  // over shm, or a node that does not say
  BOOST_TEST(DirtyRegions::kept(1, 0));
}

BOOST_AUTO_TEST_CASE(a_doubt_is_told_for_a_while_and_then_gone) {
  DirtyRegions dirty;
  Chunk doubtful, fine;
  const InodeNumber ino(3);
  BOOST_REQUIRE(dirty.written(ino, 0, doubtful, 1));
  BOOST_REQUIRE(dirty.written(ino, 0, fine, 2));
  const DirtyRegions::Entries entries{dirty.snapshot(ino)[0]};
  const TimePoint now = MonoClock::now();
  BOOST_TEST(dirty.doubted(ino, entries, now));
  BOOST_REQUIRE(dirty.written(ino, 0, doubtful, 2));  // does not make it sure
  BOOST_TEST(dirty.snapshot(ino)[0].mixed);
  BOOST_TEST(dirty.doubted(ino, entries, now + DirtyRegions::kToldFor - std::chrono::milliseconds(1)));
  BOOST_TEST(!dirty.doubted(ino, entries, now + DirtyRegions::kToldFor));
  BOOST_REQUIRE(dirty.snapshot(ino).size() == 1u);
  BOOST_TEST((dirty.snapshot(ino)[0].chunk == &fine));
  BOOST_REQUIRE(dirty.written(ino, 0, doubtful, 2));
  BOOST_TEST(!dirty.snapshot(ino)[1].mixed);
}

BOOST_AUTO_TEST_CASE(regions_that_need_nothing_say_so) {
  Chunk chunk;
  BOOST_TEST(!DirtyRegions::needs_persist(chunk));
  chunk.region.durability = {Durability::kPersistent, PersistMethod::kNodeFlush};
  BOOST_TEST(DirtyRegions::needs_persist(chunk));
}

BOOST_AUTO_TEST_CASE(files_that_nobody_ever_fsyncs_do_not_fill_the_memory) {
  DirtyRegions dirty;
  Chunk chunk;
  std::uint64_t noted = 0;
  for (std::uint64_t ino = 1; ino <= 2 * DirtyRegions::kMostEntries; ++ino) {
    if (dirty.written(InodeNumber(ino), 0, chunk, 1)) ++noted;
  }
  BOOST_TEST(noted == DirtyRegions::kMostEntries);
  const InodeNumber first(1), late(2 * DirtyRegions::kMostEntries - DirtyRegions::kShards + 1);  // of one shard
  BOOST_TEST(!dirty.written(late, 0, chunk, 1));
  BOOST_TEST(dirty.written(first, 0, chunk, 1));  // what is there goes on
  BOOST_TEST(!dirty.written(first, 1, chunk, 1));
  dirty.persisted(first, dirty.snapshot(first));
  BOOST_TEST(dirty.written(late, 0, chunk, 1));
  BOOST_TEST(!dirty.written(first, 0, chunk, 1));
  dirty.forget(late);
  BOOST_TEST(dirty.written(first, 0, chunk, 1));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(request_buffers)

BOOST_AUTO_TEST_CASE(a_buffer_comes_back_with_its_last_reference) {
  RequestBuffers buffers(1, std::make_shared<LocalMemory>());
  BufferRef first = buffers.take();
  BOOST_TEST(static_cast<bool>(first));
  BOOST_TEST(!buffers.take());
  BufferRef second = first;
  first.reset();
  BOOST_TEST(!buffers.take());
  second.reset();
  BOOST_TEST(buffers.in_use() == 0u);
  BOOST_TEST(static_cast<bool>(buffers.take()));
}

BOOST_AUTO_TEST_CASE(a_payload_begins_on_a_page) {
  RequestBuffers buffers(2, std::make_shared<LocalMemory>());
  const BufferRef buffer = buffers.take();
  BOOST_TEST(reinterpret_cast<std::uintptr_t>(buffer.data().data()) % 4096 == 0u);
  BOOST_TEST((buffer.request().data() + RequestBuffers::kRequestHead == buffer.data().data()));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
