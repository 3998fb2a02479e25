// Extents, space and nodes. The bytes themselves are the data path's: here a written block is one that map() finds.
#include <functional>
#include <random>
#include <thread>

#include "fixture.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kBlock = kBlockBytes;

// Three chunks: too few for leasing ahead, so that free space changes only where a case changes it.
struct Data : Fixture {
  Data() : Fixture({.pool_bytes = 3u << 20}) {}
  std::unique_ptr<Mount> m = mount();
  InodeRef root = m->root();
  InodeRef f = m->file(root, "f");

  Pieces map(std::uint64_t offset, std::uint64_t length) { return *m->manager->map(*f, offset, length); }
  WritePlan plan(std::uint64_t offset, std::uint64_t length) {
    return m->must(m->manager->plan_write(f, offset, length, deadline_after_ms(10000)));
  }
  void commit(const WritePlan& p, SetId set_id = SetId::kKeep) { m->must(m->manager->commit_write(f, p, set_id, 0)); }
  Attributes at() { return m->attributes(f); }
  std::uint64_t free_bytes() { return m->manager->space().free_bytes; }
  Attributes truncate(std::uint64_t size) { return m->must(m->manager->truncate(f, size, {}, 0)); }

  // begin-end of each run of data, "begin-end " in bytes.
  std::string runs(std::uint64_t offset, std::uint64_t length) {
    std::string out;
    std::uint64_t at = offset;
    for (const Piece& piece : map(offset, length)) {
      BOOST_REQUIRE_EQUAL(piece.file_offset, at);
      BOOST_REQUIRE(piece.length != 0);
      at += piece.length;
      if (piece.chunk != nullptr) out += std::to_string(piece.file_offset) + "-" + std::to_string(at) + " ";
    }
    BOOST_REQUIRE_EQUAL(at, offset + length);
    return out;
  }
};

std::string text(const Pieces& pieces) {
  std::string out;
  for (const Piece& p : pieces) {
    BOOST_REQUIRE(p.chunk != nullptr);
    out += std::to_string(p.file_offset) + "-" + std::to_string(p.file_offset + p.length) + " ";
  }
  return out;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(data, Data)

BOOST_AUTO_TEST_CASE(an_empty_file_is_a_hole) {
  const auto pieces = map(100, 5000);
  BOOST_REQUIRE_EQUAL(pieces.size(), 1u);
  BOOST_CHECK(pieces[0].chunk == nullptr && pieces[0].file_offset == 100 && pieces[0].length == 5000);
}

BOOST_AUTO_TEST_CASE(a_plan_shows_nothing_until_it_is_committed) {
  const WritePlan p = plan(0, kBlock);
  BOOST_CHECK_EQUAL(runs(0, kBlock), "");
  BOOST_CHECK_EQUAL(at().size, 0u);
  commit(p);
  BOOST_CHECK_EQUAL(runs(0, kBlock), "0-4096 ");
  BOOST_CHECK_EQUAL(at().size, kBlock);
  BOOST_CHECK_EQUAL(at().blocks, 1u);
}

BOOST_AUTO_TEST_CASE(the_rest_of_a_fresh_block_is_zeroed) {
  const WritePlan p = plan(100, 5000);
  BOOST_CHECK_EQUAL(text(p.pieces), "100-5100 ");
  BOOST_CHECK_EQUAL(text(p.zeros), "0-100 5100-8192 ");
  commit(p);
  const WritePlan again = plan(200, 4000);  // the blocks are there: nothing to zero, nothing to reserve
  BOOST_CHECK(again.zeros.empty() && again.fresh.empty());
  BOOST_CHECK_EQUAL(text(again.pieces), "200-4200 ");
  BOOST_CHECK_EQUAL(at().size, 5100u);
}

BOOST_AUTO_TEST_CASE(the_gap_after_an_old_end_inside_a_block_is_zeroed) {
  commit(plan(0, 100));
  BOOST_CHECK_EQUAL(text(plan(50, 500).zeros), "");
  BOOST_CHECK_EQUAL(text(plan(300, 10).zeros), "100-300 ");
  const WritePlan far = plan(3 * kBlock, kBlock);
  BOOST_CHECK_EQUAL(text(far.zeros), "100-4096 ");
  commit(far);
  BOOST_CHECK_EQUAL(runs(0, 4 * kBlock), "0-4096 12288-16384 ");
}

BOOST_AUTO_TEST_CASE(appending_makes_one_extent) {
  for (int i = 0; i < 100; ++i) commit(plan(static_cast<std::uint64_t>(i) * kBlock, kBlock));
  BOOST_CHECK_EQUAL(map(0, 100 * kBlock).size(), 1u);
  m->store.journal->checkpoint().ok();
  std::size_t records = 0;
  for (const auto it = m->store.metastore->iterate("E"); it->valid(); it->next()) ++records;
  BOOST_CHECK_EQUAL(records, 1u);
}

BOOST_AUTO_TEST_CASE(a_plan_given_up_gives_its_space_back) {
  m->write(f, 0, kBlock);
  const std::uint64_t free = free_bytes();
  const WritePlan p = plan(kBlock, 64 * kBlock);
  BOOST_CHECK_EQUAL(free_bytes(), free - 64 * kBlock);
  m->manager->abandon_write(p, false);
  BOOST_CHECK_EQUAL(free_bytes(), free);
  const WritePlan q = plan(kBlock, 64 * kBlock);
  m->manager->abandon_write(q, true);  // something may still land there: kept from others
  BOOST_CHECK_EQUAL(free_bytes(), free - 64 * kBlock);
}

BOOST_AUTO_TEST_CASE(quarantined_blocks_are_not_reused_after_truncate) {
  m->write(f, 0, 16 * kBlock);
  const std::uint64_t free = free_bytes();
  m->manager->quarantine(map(2 * kBlock, kBlock + 1));
  truncate(0);
  m->must(m->manager->persist_all());
  BOOST_CHECK_EQUAL(free_bytes(), free + 14 * kBlock);
}

BOOST_AUTO_TEST_CASE(shrinking_frees_whole_blocks_and_growing_zeroes_the_rest) {
  m->write(f, 0, 4 * kBlock);
  BOOST_CHECK_EQUAL(truncate(kBlock + 10).size, kBlock + 10);
  BOOST_CHECK_EQUAL(runs(0, 4 * kBlock), "0-8192 ");
  BOOST_CHECK_EQUAL(at().blocks, 2u);
  BOOST_CHECK_EQUAL(text(*m->manager->plan_truncate(*f, 100)), "");
  BOOST_CHECK_EQUAL(text(*m->manager->plan_truncate(*f, 5000)), "4106-5000 ");
  BOOST_CHECK_EQUAL(text(*m->manager->plan_truncate(*f, 1u << 20)), "4106-8192 ");
  truncate(1u << 20);
  BOOST_CHECK_EQUAL(at().size, 1u << 20);
  BOOST_CHECK_EQUAL(at().blocks, 2u);
  BOOST_CHECK(m->error(m->manager->truncate(f, kMaxFileBytes + 1, {}, 0)) == Errc::kTooBig);
}

BOOST_AUTO_TEST_CASE(a_file_of_many_extents_is_truncated_and_purged_in_steps) {
  for (std::uint64_t i = 0; i < 300; ++i) m->write(f, i * 2 * kBlock, 1);
  BOOST_CHECK_EQUAL(at().blocks, 300u);
  const auto before = m->store.journal->statistics().transactions;
  truncate(200 * kBlock);
  BOOST_CHECK_GE(m->store.journal->statistics().transactions - before, 3u);
  BOOST_CHECK_EQUAL(at().blocks, 100u);
  m->must(m->manager->purge(m->must(m->manager->unlink(root, "f", 0))->ino));
  m->must(m->manager->persist_all());
  BOOST_CHECK_EQUAL(m->manager->nodes()[0].used_bytes, 0u);
  BOOST_REQUIRE(m->store.journal->checkpoint().ok());
  BOOST_CHECK(!m->store.metastore->iterate("E")->valid());
  BOOST_CHECK(!m->store.metastore->iterate("O")->valid());
}

BOOST_AUTO_TEST_CASE(punching_frees_whole_blocks_and_zeroes_the_edges) {
  m->write(f, 0, 8 * kBlock);
  BOOST_CHECK_EQUAL(text(*m->manager->plan_punch(*f, 100, 3 * kBlock)), "100-4096 12288-12388 ");
  BOOST_CHECK_EQUAL(text(*m->manager->plan_punch(*f, 100, 50)), "100-150 ");
  m->must(m->manager->punch(f, 100, 3 * kBlock, SetId::kKeep, 0));
  BOOST_CHECK_EQUAL(runs(0, 8 * kBlock), "0-4096 12288-32768 ");
  BOOST_CHECK_EQUAL(at().size, 8 * kBlock);
  truncate(7 * kBlock + 5);
  BOOST_CHECK_EQUAL(text(*m->manager->plan_punch(*f, 6 * kBlock, 2 * kBlock)), "");
  m->must(m->manager->punch(f, 6 * kBlock, kBlock + 5, SetId::kKeep, 0));  // to the end: its block goes too
  BOOST_CHECK_EQUAL(runs(0, 8 * kBlock), "0-4096 12288-24576 ");
}

BOOST_AUTO_TEST_CASE(allocated_space_reads_as_zeros_until_it_is_written) {
  m->must(m->manager->allocate(f, 0, 10 * kBlock, {}, deadline_after_ms(10000), 0));
  BOOST_CHECK_EQUAL(at().size, 10 * kBlock);
  BOOST_CHECK_EQUAL(at().blocks, 10u);
  BOOST_CHECK_EQUAL(runs(0, 10 * kBlock), "");
  const WritePlan p = plan(2 * kBlock + 10, kBlock);
  BOOST_CHECK(p.fresh.empty());
  BOOST_CHECK_EQUAL(text(p.zeros), "8192-8202 12298-16384 ");
  commit(p);
  BOOST_CHECK_EQUAL(runs(0, 10 * kBlock), "8192-16384 ");
  BOOST_CHECK_EQUAL(at().blocks, 10u);
  m->must(m->manager->allocate(f, 0, 20 * kBlock, {.keep_size = true}, deadline_after_ms(10000), 0));
  BOOST_CHECK_EQUAL(at().size, 10 * kBlock);
  BOOST_CHECK_EQUAL(at().blocks, 20u);
}

BOOST_AUTO_TEST_CASE(zeroed_blocks_stay_the_files_and_read_as_zeros) {
  m->write(f, 0, 8 * kBlock);
  m->must(m->manager->allocate(f, 100, 9 * kBlock, {.keep_size = true, .zero = true}, deadline_after_ms(10000), 0));
  BOOST_CHECK_EQUAL(runs(0, 12 * kBlock), "0-4096 ");
  BOOST_CHECK_EQUAL(at().size, 8 * kBlock);
  BOOST_CHECK_EQUAL(at().blocks, 10u);
  m->must(m->manager->allocate(f, 0, 12 * kBlock, {.zero = true}, deadline_after_ms(10000), 0));
  BOOST_CHECK_EQUAL(runs(0, 12 * kBlock), "");
  BOOST_CHECK_EQUAL(at().size, 12 * kBlock);
  BOOST_CHECK_EQUAL(at().blocks, 12u);
  // Many extents are zeroed in several transactions.
  for (std::uint64_t i = 0; i < 200; ++i) m->write(f, 2 * i * kBlock, kBlock);
  m->must(m->manager->allocate(f, 0, 400 * kBlock, {.zero = true}, deadline_after_ms(10000), 0));
  BOOST_CHECK_EQUAL(runs(0, 400 * kBlock), "");
  BOOST_CHECK_EQUAL(at().blocks, 400u);
}

BOOST_AUTO_TEST_CASE(a_growing_truncate_keeps_what_was_reserved_behind_the_end) {
  m->must(m->manager->allocate(f, 8 * kBlock, kBlock, {.keep_size = true}, deadline_after_ms(10000), 0));
  truncate(2 * kBlock);
  BOOST_CHECK_EQUAL(at().blocks, 1u);
  truncate(kBlock);
  BOOST_CHECK_EQUAL(at().blocks, 0u);
}

BOOST_AUTO_TEST_CASE(seek_finds_data_and_holes) {
  m->write(f, 2 * kBlock, kBlock);
  m->write(f, 6 * kBlock, 10);
  m->must(m->manager->allocate(f, 4 * kBlock, kBlock, {.keep_size = true}, deadline_after_ms(10000), 0));
  const auto seek = [&](std::uint64_t offset, bool hole) { return m->manager->seek(*f, offset, hole); };
  BOOST_CHECK_EQUAL(*seek(0, false), 2 * kBlock);
  BOOST_CHECK_EQUAL(*seek(2 * kBlock + 7, false), 2 * kBlock + 7);
  BOOST_CHECK_EQUAL(*seek(3 * kBlock, false), 6 * kBlock);
  BOOST_CHECK_EQUAL(*seek(0, true), 0u);
  BOOST_CHECK_EQUAL(*seek(2 * kBlock, true), 3 * kBlock);
  BOOST_CHECK_EQUAL(*seek(6 * kBlock, true), 6 * kBlock + 10);
  BOOST_CHECK(seek(6 * kBlock + 10, false).error().code == Errc::kNoSuchOffset);
  truncate(10 * kBlock);
  BOOST_CHECK(seek(7 * kBlock, false).error().code == Errc::kNoSuchOffset);
}

BOOST_AUTO_TEST_CASE(a_write_by_others_drops_set_id_bits) {
  AttributeChange change;
  change.mode = 06755;
  m->must(m->manager->set_attributes(f, change, 0));
  commit(plan(0, 1));
  BOOST_CHECK_EQUAL(at().mode & 07777u, 06755u);
  commit(plan(0, 1), SetId::kClear);
  BOOST_CHECK_EQUAL(at().mode & 07777u, 0755u);
}

BOOST_AUTO_TEST_CASE(a_full_file_system_changes_nothing_and_freeing_makes_room) {
  std::uint64_t written = 0;
  for (;; written += 64 * kBlock) {
    const auto result = m->try_write(f, written, 64 * kBlock);
    if (result.ok()) continue;
    BOOST_REQUIRE(result.error().code == Errc::kNoSpace);
    break;
  }
  BOOST_CHECK_EQUAL(written, setup.pool_bytes);
  BOOST_CHECK_EQUAL(at().size, written);
  BOOST_CHECK_EQUAL(free_bytes(), 0u);
  BOOST_CHECK(m->error(m->manager->allocate(f, written, kBlock, {}, deadline_after_ms(10000), 0)) == Errc::kNoSpace);
  BOOST_CHECK_EQUAL(at().size, written);
  const auto g = m->file(root, "g");  // names need no space
  truncate(written / 2);
  m->write(g, 0, written / 2);  // freed a moment ago: forces the drain and goes on
  BOOST_CHECK(m->try_write(g, written, kBlock).error().code == Errc::kNoSpace);
}

BOOST_AUTO_TEST_CASE(a_write_into_fragmented_space_is_planned_in_parts_that_a_small_journal_can_hold) {
  Setup small;
  small.pool_bytes = 1u << 20;
  small.journal = {1024, 2};
  Fixture fixture(small);
  const auto mounted = fixture.mount();
  const InodeRef file = mounted->file(mounted->root(), "f"), other = mounted->file(mounted->root(), "g");
  const std::uint64_t blocks = small.pool_bytes / kBlock;
  for (std::uint64_t i = 0; i < blocks; ++i) mounted->write(file, i * kBlock, kBlock);
  for (std::uint64_t i = 0; i < blocks; i += 2) {
    mounted->must(mounted->manager->punch(file, i * kBlock, kBlock, SetId::kKeep, 0));
  }
  mounted->must(mounted->manager->persist_all());
  const auto plan = mounted->must(mounted->manager->plan_write(other, 100, 64 * kBlock, kNoDeadline));
  BOOST_CHECK_LT(plan.length, 64 * kBlock);
  BOOST_CHECK_EQUAL((100 + plan.length) % kBlock, 0u);
  mounted->manager->abandon_write(plan, false);
  mounted->write(other, 100, 64 * kBlock);
  BOOST_CHECK_EQUAL(mounted->attributes(other).size, 100 + 64 * kBlock);
  BOOST_CHECK_EQUAL(mounted->manager->space().free_bytes, (blocks / 2 - 65) * kBlock);  // nothing reserved is left over
  const auto pieces = *mounted->manager->map(*other, 0, 64 * kBlock);
  BOOST_CHECK_EQUAL(pieces.size(), 64u);
  for (const Piece& piece : pieces) BOOST_CHECK(piece.chunk != nullptr);
}

BOOST_AUTO_TEST_CASE(chunks_come_from_the_node_with_most_room) {
  for (std::uint64_t i = 0; i < 40; ++i) m->write(f, i * 16 * kBlock, 16 * kBlock);
  BOOST_CHECK_EQUAL(nodes.begin()->second->regions(), 3u);
  const auto status = m->manager->nodes();
  BOOST_REQUIRE_EQUAL(status.size(), 1u);
  BOOST_CHECK_EQUAL(status[0].chunks, 3u);
  BOOST_CHECK_EQUAL(status[0].used_bytes, 40 * 16 * kBlock);
  BOOST_CHECK(status[0].health == NodeHealth::kAlive);
  BOOST_CHECK_EQUAL(m->manager->space().total_bytes, setup.pool_bytes);
}

BOOST_AUTO_TEST_CASE(a_lost_chunk_is_remembered_and_never_written_again) {
  m->write(f, 0, kBlock);
  const Chunk& chunk = *map(0, kBlock)[0].chunk;
  nodes.begin()->second->drop_region(chunk.region.id);  // or it would be found again
  m->manager->chunk_lost(chunk);
  BOOST_CHECK(chunk.state.load() == ChunkState::kLost);
  BOOST_CHECK_EQUAL(m->manager->space().lost_bytes, setup.chunk_bytes);
  m->write(f, 10 * kBlock, kBlock);
  BOOST_CHECK(map(10 * kBlock, kBlock)[0].chunk != &chunk);
  root.reset(), f.reset();
  m.reset();
  m = mount();
  f = m->find(m->root(), "f");
  BOOST_CHECK(map(0, kBlock)[0].chunk->state.load() == ChunkState::kLost);
  // Forgotten by the mount after the last block in it was freed.
  truncate(0);
  f.reset();
  m.reset();
  m = mount();
  BOOST_CHECK_EQUAL(m->manager->space().lost_bytes, 0u);
  m->manager->close();
  BOOST_CHECK(m->store.journal->checkpoint().ok());
  BOOST_CHECK(!m->store.metastore->get(chunk_key(ChunkId(1)))->has_value());
}

BOOST_AUTO_TEST_CASE(fenced_means_that_nothing_works_any_more) {
  int calls = 0;
  m->manager->on_fenced = [&] { ++calls; };
  m->manager->fenced();
  m->manager->fenced();
  BOOST_CHECK_EQUAL(calls, 1);
  BOOST_CHECK(m->error(m->manager->make_node(root, "x", NewNode{.mode = S_IFREG}, 0)) == Errc::kFenced);
  BOOST_CHECK(m->lookup_error(root, "f") == Errc::kFenced);
  BOOST_CHECK(m->manager->map(*f, 0, 1).error().code == Errc::kFenced);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(nodes)

BOOST_AUTO_TEST_CASE(a_node_that_restarts_empty_loses_its_chunks) {
  Fixture fixture({.nodes = 2});
  MountOptions options;
  options.manager.heartbeat_ms = 20;
  const auto m = fixture.mount(options);
  const auto f = m->file(m->root(), "f");
  for (std::uint64_t i = 0; i < 24; ++i) m->write(f, i * 64 * kBlockBytes, 64 * kBlockBytes);
  auto& first = *fixture.nodes.begin()->second;
  BOOST_REQUIRE(first.regions() > 0);
  first.restart_empty();
  const TimePoint deadline = deadline_after_ms(5000);
  while (m->manager->space().lost_bytes == 0 && MonoClock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::size_t lost = 0, whole = 0;
  const auto pieces = m->manager->map(*f, 0, 24 * 64 * kBlockBytes);
  BOOST_REQUIRE(pieces.ok());
  for (const Piece& piece : *pieces) {
    const bool is_lost = piece.chunk->state.load() == ChunkState::kLost;
    BOOST_CHECK_EQUAL(is_lost, piece.chunk->node == NodeId(0));
    ++(is_lost ? lost : whole);
  }
  BOOST_CHECK(lost > 0 && whole > 0);
  BOOST_CHECK(m->manager->health(NodeId(0)) == NodeHealth::kRestartedEmpty);
  m->write(f, 100u << 20, 64 * kBlockBytes);  // it lends again
  const auto fresh = m->manager->map(*f, 100u << 20, kBlockBytes);
  BOOST_CHECK(fresh->front().chunk->state.load() == ChunkState::kActive);
}

namespace {

bool soon(const std::function<bool()>& condition) {
  const TimePoint deadline = deadline_after_ms(5000);
  while (!condition()) {
    if (MonoClock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

MountOptions fast_heartbeat() {
  MountOptions options;
  options.manager.heartbeat_ms = 20;
  return options;
}

Pieces pieces(Mount& m, const InodeRef& inode, std::uint64_t offset, std::uint64_t length) {
  Result<Pieces> found = m.manager->map(*inode, offset, length);
  BOOST_REQUIRE(found.ok());
  return *found;
}

ChunkRecord stored_chunk(Mount& m, ChunkId id) {
  BOOST_REQUIRE(m.store.journal->checkpoint().ok());
  return *decode_chunk(**m.store.metastore->get(chunk_key(id)));
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_node_that_ran_with_another_pool_has_its_chunks_again_when_it_is_back_with_its_own) {
  Fixture fixture;
  auto& node = *fixture.nodes.begin()->second;
  auto m = fixture.mount(fast_heartbeat());
  const auto f = m->file(m->root(), "f"), g = m->file(m->root(), "g");
  m->write(f, 0, 16 * kBlockBytes);
  m->write(g, 0, 16 * kBlockBytes);
  const auto lost_bytes = [&] { return m->manager->space().lost_bytes; };
  const Piece old = pieces(*m, f, 0, kBlockBytes).front();
  const std::uint64_t epoch = node.epoch();

  node.swap_pool();
  BOOST_REQUIRE(soon([&] { return lost_bytes() != 0; }));
  // Freed while it is lost: nobody gets it before the transaction is persistent, and nobody gets it from a lost chunk.
  AttributeChange none;
  m->must(m->manager->truncate(g, 0, none, 0));
  m->must(m->manager->persist_all());
  const auto h = m->file(m->root(), "h");
  m->write(h, 0, 16 * kBlockBytes);
  BOOST_CHECK(pieces(*m, h, 0, kBlockBytes).front().chunk != old.chunk);
  m->must(m->manager->unlink(m->root(), "h", 0));
  m->must(m->manager->purge(h->ino));  // the other pool's chunk has nothing any more

  node.swap_back();
  BOOST_REQUIRE(soon([&] { return old.chunk->state.load() == ChunkState::kActive; }));
  const Piece now = pieces(*m, f, 0, kBlockBytes).front();
  BOOST_CHECK(now.chunk == old.chunk && now.chunk_offset == old.chunk_offset);
  BOOST_CHECK(stored_chunk(*m, old.chunk->id).state == ChunkState::kActive);
  BOOST_CHECK_GE(node.epoch(), epoch);
  // Free there is exactly what is free: the whole pool can be used, and no block twice.
  std::uint64_t written = 0;
  while (m->try_write(g, written, kBlockBytes).ok()) written += kBlockBytes;
  BOOST_CHECK_EQUAL(written, fixture.setup.pool_bytes - 16 * kBlockBytes);
  for (const Piece& piece : pieces(*m, g, 0, written)) {
    BOOST_CHECK(piece.chunk != old.chunk || piece.chunk_offset >= old.chunk_offset + 16 * kBlockBytes ||
                piece.chunk_offset + piece.length <= old.chunk_offset);
  }
}

BOOST_AUTO_TEST_CASE(a_mount_finds_a_lost_chunk_again_and_raises_its_epoch_there_first) {
  Fixture fixture({.nodes = 2});
  ChunkId id;
  auto& node = *fixture.nodes.begin()->second;
  {
    const auto m = fixture.mount(fast_heartbeat());
    const auto f = m->file(m->root(), "f");
    m->write(f, 0, 4u << 20);  // on both nodes
    for (const Piece& piece : pieces(*m, f, 0, 4u << 20)) {
      if (piece.chunk->node == NodeId(0)) id = piece.chunk->id;
    }
    BOOST_REQUIRE(id != ChunkId());
    node.swap_pool();
    BOOST_REQUIRE(soon([&] { return m->manager->space().lost_bytes != 0; }));
    m->manager->close();
    BOOST_CHECK(stored_chunk(*m, id).state == ChunkState::kLost);
  }
  {
    const auto m = fixture.mount();  // with the wrong pool still: it stays lost
    BOOST_CHECK(stored_chunk(*m, id).state == ChunkState::kLost);
  }
  node.swap_back();
  const std::uint64_t older = node.epoch();
  const auto m = fixture.mount();
  const auto f = m->find(m->root(), "f");
  for (const Piece& piece : pieces(*m, f, 0, 4u << 20)) {  // at once, before anything is served
    BOOST_CHECK(piece.chunk->state.load() == ChunkState::kActive);
  }
  BOOST_CHECK(stored_chunk(*m, id).state == ChunkState::kActive);
  BOOST_CHECK_GT(node.epoch(), older);
}

// The pool that comes back has an older epoch: somebody whom this mount has replaced could still write there.
BOOST_AUTO_TEST_CASE(a_pool_that_this_mount_never_met_is_fenced_before_its_chunks_are_used) {
  Fixture fixture;
  auto& node = *fixture.nodes.begin()->second;
  {
    const auto m = fixture.mount();
    m->write(m->file(m->root(), "f"), 0, kBlockBytes);
  }
  const std::uint64_t older = node.epoch();
  node.swap_pool();
  const auto m = fixture.mount(fast_heartbeat());
  const Chunk& chunk = *pieces(*m, m->find(m->root(), "f"), 0, kBlockBytes).front().chunk;
  BOOST_REQUIRE(chunk.state.load() == ChunkState::kLost);
  node.swap_back();
  BOOST_REQUIRE(soon([&] { return chunk.state.load() == ChunkState::kActive; }));
  BOOST_CHECK_GT(node.epoch(), older);
}

BOOST_AUTO_TEST_CASE(a_lost_chunk_whose_region_was_given_away_stays_lost) {
  Fixture fixture;
  auto& node = *fixture.nodes.begin()->second;
  const auto m = fixture.mount(fast_heartbeat());
  const auto f = m->file(m->root(), "f");
  m->write(f, 0, kBlockBytes);
  const Chunk& chunk = *pieces(*m, f, 0, kBlockBytes).front().chunk;
  node.swap_pool();
  BOOST_REQUIRE(soon([&] { return chunk.state.load() == ChunkState::kLost; }));
  node.swap_back();
  node.drop_region(chunk.region.id);
  node.leak(chunk.region.length_bytes);  // somebody has its bytes
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  BOOST_CHECK(chunk.state.load() == ChunkState::kLost);
}

BOOST_AUTO_TEST_CASE(a_region_that_two_chunks_name_is_found_again_for_none_but_its_own) {
  Fixture fixture;
  ChunkRecord record;
  ChunkId first;
  {
    const auto m = fixture.mount();
    const auto f = m->file(m->root(), "f");
    m->write(f, 0, kBlockBytes);
    first = pieces(*m, f, 0, kBlockBytes).front().chunk->id;
    m->manager->close();
    record = stored_chunk(*m, first);
    // What fsck leaves of two chunks with one region: the second one is lost, and some file has a block in it.
    record.state = ChunkState::kLost;
    const std::uint64_t next = *decode_number(**m->store.metastore->get(singleton_key("next_chunk")));
    const std::string keys[] = {chunk_key(ChunkId(next)), bitmap_key(ChunkId(next)), singleton_key("next_chunk")};
    const std::string values[] = {encode(record), std::string(1, '\1'), encode_number(next + 1)};
    std::vector<Modification> changes;
    for (std::size_t i = 0; i < 3; ++i) changes.push_back({ModificationKind::kPut, keys[i], values[i]});
    BOOST_REQUIRE(m->store.metastore->apply(changes, m->store.journal->applied_id()).ok());
    BOOST_REQUIRE(m->store.metastore->make_durable().ok());
  }
  const auto m = fixture.mount(fast_heartbeat());
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  BOOST_CHECK_EQUAL(m->manager->space().lost_bytes, record.region.length_bytes);
}

BOOST_AUTO_TEST_CASE(a_mount_names_the_node_that_does_not_answer) {
  Fixture fixture({.nodes = 2});
  fixture.nodes["shm:/node1"]->set_silent(true);
  Mount m;
  const auto refused = m.open(fixture.dir.path(), fixture.nodes, {});
  BOOST_REQUIRE(!refused.ok());
  BOOST_CHECK(refused.error().code == Errc::kUnreachable);
  BOOST_CHECK(refused.error().message().find("shm:/node1") != std::string::npos);
  m.close();
  MountOptions options;
  options.manager.degraded = true;
  Mount degraded(fixture.dir.path(), fixture.nodes, options);
  BOOST_CHECK(degraded.manager->health(NodeId(1)) == NodeHealth::kUnreachable);
  degraded.write(degraded.file(degraded.root(), "f"), 0, 100000);
}

BOOST_AUTO_TEST_CASE(a_node_that_falls_silent_is_seen_and_not_asked_for_space) {
  Fixture fixture({.nodes = 2});
  MountOptions options;
  options.manager.heartbeat_ms = 20;
  const auto m = fixture.mount(options);
  fixture.nodes["shm:/node0"]->set_silent(true);
  const TimePoint deadline = deadline_after_ms(5000);
  while (m->manager->health(NodeId(0)) != NodeHealth::kUnreachable && MonoClock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  BOOST_REQUIRE(m->manager->health(NodeId(0)) == NodeHealth::kUnreachable);
  const auto f = m->file(m->root(), "f");
  m->write(f, 0, 100000);
  fixture.nodes["shm:/node0"]->set_silent(false);
  while (m->manager->health(NodeId(0)) != NodeHealth::kAlive && MonoClock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  BOOST_CHECK(m->manager->health(NodeId(0)) == NodeHealth::kAlive);
}

BOOST_AUTO_TEST_CASE(a_lease_that_a_crash_left_is_released_by_the_next_mount) {
  Fixture fixture;
  auto& node = *fixture.nodes.begin()->second;
  {
    const auto m = fixture.mount();
    m->write(m->file(m->root(), "f"), 0, kBlockBytes);
  }
  const std::size_t known = node.regions();
  node.leak(fixture.setup.chunk_bytes);
  {
    const auto m = fixture.mount();
    m->manager->close();  // waits for the comparison
  }
  BOOST_CHECK_EQUAL(node.regions(), known);
}

BOOST_AUTO_TEST_CASE(an_older_mount_is_fenced_although_it_asks_nothing_of_the_nodes) {
  Fixture fixture;
  MountOptions options;
  options.manager.heartbeat_ms = 20;
  const auto m = fixture.mount(options);
  const auto sb = load_superblock(fixture.dir.path());
  FakeClient newer(fixture.nodes.begin()->second);
  BOOST_REQUIRE(newer.fence({sb->uuid, sb->key, sb->epoch.next()}, 0).ok());
  const TimePoint limit = deadline_after_ms(10000);
  while (!m->manager->is_fenced() && MonoClock::now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  BOOST_CHECK(m->manager->is_fenced());
}

BOOST_AUTO_TEST_CASE(an_older_mount_is_fenced_when_it_leases) {
  Fixture fixture;
  const auto m = fixture.mount();
  const auto f = m->file(m->root(), "f");  // first: leasing ahead may meet the fence at any time after it
  FakeClient newer(fixture.nodes.begin()->second);
  const auto sb = load_superblock(fixture.dir.path());
  BOOST_REQUIRE(newer.fence({sb->uuid, sb->key, sb->epoch.next()}, 0).ok());
  Errc code{};
  for (std::uint64_t i = 0; i < 200 && code == Errc{}; ++i) {
    const auto written = m->try_write(f, i * 64 * kBlockBytes, 64 * kBlockBytes);
    if (!written.ok()) code = written.error().code;
  }
  BOOST_CHECK(code == Errc::kFenced);
  BOOST_CHECK(m->manager->is_fenced());
}

BOOST_AUTO_TEST_CASE(a_tiny_journal_makes_progress_by_forced_drains) {
  Fixture fixture({.journal = {1024, 8}});
  MountOptions options;
  options.recover.journal.durable_interval_ms = 3600000;
  const auto m = fixture.mount(options);
  for (int i = 0; i < 200; ++i) m->file(m->root(), "file" + std::to_string(i));
  BOOST_CHECK_EQUAL(m->attributes(m->root()).entries, 200u);
  BOOST_CHECK(m->store.journal->statistics().slot_waits > 0);
}

BOOST_AUTO_TEST_CASE(the_inode_cache_stays_within_its_limit) {
  Fixture fixture;
  MountOptions options;
  options.manager.inode_cache_entries = 128;
  const auto m = fixture.mount(options);
  const auto held = m->file(m->root(), "held");
  m->write(held, 0, 5);
  for (int i = 0; i < 2000; ++i) m->file(m->root(), std::to_string(i));
  BOOST_CHECK(m->find(m->root(), "held") == held);  // held: never two objects for one inode
  for (int i = 0; i < 2000; i += 37) {
    const auto f = m->find(m->root(), std::to_string(i));
    BOOST_REQUIRE(S_ISREG(m->attributes(f).mode));
    BOOST_REQUIRE(f->last_commit.load() != 0);  // dropped and read again: a sync still covers it
  }
}

BOOST_AUTO_TEST_CASE(the_extents_of_cached_inodes_stay_within_the_budget) {
  constexpr std::size_t kFiles = 60, kExtents = 64, kEntries = 256;  // 3840 extents; 256 entries pay for 1024
  Fixture fixture({.pool_bytes = 32u << 20});
  MountOptions options;
  options.manager.inode_cache_entries = kEntries;
  const auto m = fixture.mount(options);
  std::vector<std::weak_ptr<Inode>> files;
  const auto cached = [&](const InodeRef& used) {  // extents in memory, but for those in use
    std::size_t extents = 0;
    for (const auto& file : files) {
      const InodeRef inode = file.lock();
      if (inode && inode != used && inode->layout) extents += inode->layout->size();
    }
    return extents;
  };
  for (std::size_t i = 0; i < kFiles; ++i) {
    const auto f = m->file(m->root(), std::to_string(i));
    files.push_back(f);
    for (std::size_t k = 0; k < kExtents; ++k) {
      m->write(f, 2 * k * kBlockBytes, kBlockBytes);
      BOOST_REQUIRE(cached(f) + f->layout->size() <= 4 * kEntries);  // as it grows, not only when the next one comes
    }
    BOOST_REQUIRE_EQUAL(f->layout->size(), kExtents);
  }
  BOOST_CHECK(files.front().expired());
  const auto held = m->find(m->root(), "0");
  for (std::size_t i = 0; i < kFiles; ++i) {
    const auto f = m->find(m->root(), std::to_string(i));
    files[i] = f;
    const auto pieces = m->manager->map(*f, 0, 2 * kExtents * kBlockBytes);
    BOOST_REQUIRE(pieces.ok());
    BOOST_CHECK_EQUAL(pieces->size(), 2 * kExtents);  // dropped and read again: whole
    BOOST_CHECK(cached(f) <= 4 * kEntries);
  }
  BOOST_CHECK(m->find(m->root(), "0") == held);
  BOOST_CHECK(cached({}) > 2 * kEntries);  // what there is room for stays
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
