#include "manager/extent_allocator.h"

#include <random>
#include <set>

#include "fixture.h"

namespace rmemfs {
namespace {

using Block = std::pair<std::uint64_t, std::uint32_t>;

void mark(std::set<Block>& used, std::span<const SpaceRun> runs) {
  for (const SpaceRun& run : runs) {
    for (std::uint32_t b = run.first; b < run.first + run.count; ++b) {
      BOOST_REQUIRE_MESSAGE(used.emplace(run.chunk.value(), b).second, "block given out twice");
    }
  }
}

std::uint64_t blocks_of(std::span<const SpaceRun> runs) {
  std::uint64_t total = 0;
  for (const SpaceRun& run : runs) total += run.count;
  return total;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(extent_allocator)

BOOST_AUTO_TEST_CASE(random_use_agrees_with_a_set_of_blocks) {
  std::mt19937_64 random(7);
  ExtentAllocator allocator;
  constexpr std::uint32_t kChunkBlocks = 200;
  std::uint64_t chunks = 0;
  std::set<Block> used;
  std::set<std::uint64_t> suspended;
  std::vector<std::vector<SpaceRun>> held;
  std::multimap<CommitId, std::vector<SpaceRun>> pending;
  std::uint64_t commit = 0;
  const auto counts = [&](std::uint64_t chunk) { return !suspended.contains(chunk); };
  const auto model_free = [&] {
    std::uint64_t free = 0;
    for (std::uint64_t chunk = 1; chunk <= chunks; ++chunk) free += counts(chunk) ? kChunkBlocks : 0;
    for (const Block& block : used) free -= counts(block.first) ? 1 : 0;
    return free;
  };
  const auto model_pending = [&] {
    std::uint64_t blocks = 0;
    for (const auto& [id, runs] : pending) {
      for (const SpaceRun& run : runs) blocks += counts(run.chunk.value()) ? run.count : 0;
    }
    return blocks;
  };
  for (int step = 0; step < 6000; ++step) {
    if (chunks < 5 && random() % 200 == 0) {
      BOOST_REQUIRE(allocator.add_chunk(ChunkId(++chunks), kChunkBlocks, {}).ok());
    }
    if (chunks != 0 && random() % 20 == 0) {
      const std::uint64_t chunk = 1 + random() % chunks;
      if (random() % 2 == 0) {
        allocator.suspend_chunk(ChunkId(chunk));
        suspended.insert(chunk);
      } else {
        allocator.resume_chunk(ChunkId(chunk));
        suspended.erase(chunk);
      }
    }
    const auto choice = random() % 10;
    if (choice < 5) {
      const std::uint64_t want = 1 + random() % 40;
      SpaceHint hint;
      if (!held.empty() && random() % 2 == 0) {
        const SpaceRun& last = held[random() % held.size()].back();
        hint = {last.chunk, last.first + last.count, random() % 100};
      }
      std::vector<SpaceRun> runs;
      const std::uint64_t free = model_free();
      const bool given = allocator.allocate(want, hint, runs);
      BOOST_REQUIRE_EQUAL(given, free >= want);
      if (!given) {
        BOOST_REQUIRE(runs.empty());
        continue;
      }
      BOOST_REQUIRE_EQUAL(blocks_of(runs), want);
      for (const SpaceRun& run : runs) BOOST_REQUIRE(counts(run.chunk.value()));
      mark(used, runs);
      held.push_back(runs);
    } else if (choice < 9 && !held.empty()) {
      const std::size_t which = random() % held.size();
      const auto runs = held[which];
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(which));
      if (random() % 3 == 0) {
        allocator.release(runs);
        for (const SpaceRun& run : runs) {
          for (std::uint32_t b = 0; b < run.count; ++b) used.erase({run.chunk.value(), run.first + b});
        }
      } else {
        allocator.free_after(runs, CommitId(++commit));
        pending.emplace(CommitId(commit), runs);
      }
    } else {
      const CommitId upto(commit == 0 ? 0 : random() % (commit + 1));
      allocator.persisted(upto);
      while (!pending.empty() && pending.begin()->first <= upto) {
        for (const SpaceRun& run : pending.begin()->second) {
          for (std::uint32_t b = 0; b < run.count; ++b) used.erase({run.chunk.value(), run.first + b});
        }
        pending.erase(pending.begin());
      }
    }
    BOOST_REQUIRE_EQUAL(allocator.free_blocks(), model_free());
    BOOST_REQUIRE_EQUAL(allocator.pending_blocks(), model_pending());
  }
}

BOOST_AUTO_TEST_CASE(freed_blocks_come_back_only_when_their_transaction_is_persistent) {
  ExtentAllocator a;
  BOOST_REQUIRE(a.add_chunk(ChunkId(1), 100, {}).ok());
  std::vector<SpaceRun> runs, again;
  BOOST_REQUIRE(a.allocate(100, {}, runs));
  a.free_after(runs, CommitId(7));
  BOOST_CHECK(!a.allocate(1, {}, again));
  BOOST_CHECK(a.newest_pending() == CommitId(7));
  a.persisted(CommitId(6));
  BOOST_CHECK(!a.allocate(1, {}, again));
  a.persisted(CommitId(7));
  BOOST_CHECK(a.allocate(100, {}, again));
}

BOOST_AUTO_TEST_CASE(quarantined_blocks_never_come_back) {
  ExtentAllocator a;
  BOOST_REQUIRE(a.add_chunk(ChunkId(1), 100, {}).ok());
  std::vector<SpaceRun> runs;
  BOOST_REQUIRE(a.allocate(100, {}, runs));
  a.quarantine({ChunkId(1), 10, 5});
  a.release(runs);
  BOOST_CHECK_EQUAL(a.free_blocks(), 95u);
  runs.clear();
  BOOST_REQUIRE(a.allocate(95, {}, runs));
  for (const SpaceRun& run : runs) BOOST_CHECK(run.first + run.count <= 10 || run.first >= 15);
}

BOOST_AUTO_TEST_CASE(a_lost_chunk_gives_nothing_and_counts_for_nothing) {
  ExtentAllocator a;
  BOOST_REQUIRE(a.add_chunk(ChunkId(1), 100, {}).ok());
  BOOST_REQUIRE(a.add_chunk(ChunkId(2), 50, {}).ok());
  std::vector<SpaceRun> runs;
  BOOST_REQUIRE(a.allocate(120, {}, runs));
  a.drop_chunk(ChunkId(1));
  a.drop_chunk(ChunkId(1));
  a.release(runs);
  BOOST_CHECK_EQUAL(a.free_blocks(), 50u);
  runs.clear();
  BOOST_REQUIRE(a.allocate(50, {.chunk = ChunkId(1), .block = 3}, runs));
  for (const SpaceRun& run : runs) BOOST_CHECK(run.chunk == ChunkId(2));
}

BOOST_AUTO_TEST_CASE(a_suspended_chunk_gives_nothing_until_it_is_resumed) {
  ExtentAllocator a;
  BOOST_REQUIRE(a.add_chunk(ChunkId(1), 100, {}).ok());
  BOOST_REQUIRE(a.add_chunk(ChunkId(2), 50, {}).ok());
  std::vector<SpaceRun> first, second, none;
  BOOST_REQUIRE(a.allocate(10, {.chunk = ChunkId(1), .block = 0}, first));
  a.suspend_chunk(ChunkId(1));
  a.suspend_chunk(ChunkId(1));
  a.suspend_chunk(ChunkId(9));
  BOOST_CHECK_EQUAL(a.free_blocks(), 50u);
  BOOST_CHECK(!a.allocate(51, {}, none));
  BOOST_REQUIRE(a.allocate(50, {.chunk = ChunkId(1), .block = 10}, second));
  for (const SpaceRun& run : second) BOOST_CHECK(run.chunk == ChunkId(2));
  a.free_after(first, CommitId(1));
  BOOST_CHECK_EQUAL(a.pending_blocks(), 0u);
  a.persisted(CommitId(1));
  BOOST_CHECK_EQUAL(a.free_blocks(), 0u);
  BOOST_CHECK_EQUAL(a.used_blocks(ChunkId(1)), 0u);
  a.resume_chunk(ChunkId(1));
  a.resume_chunk(ChunkId(1));
  BOOST_CHECK_EQUAL(a.free_blocks(), 100u);
  BOOST_CHECK(a.allocate(100, {}, none));
}

BOOST_AUTO_TEST_CASE(a_chunk_lost_while_it_is_suspended_stays_lost) {
  ExtentAllocator a;
  BOOST_REQUIRE(a.add_chunk(ChunkId(1), 100, {}).ok());
  BOOST_REQUIRE(a.add_chunk(ChunkId(2), 50, {}).ok());
  a.suspend_chunk(ChunkId(1));
  a.drop_chunk(ChunkId(1));
  a.resume_chunk(ChunkId(1));
  BOOST_CHECK_EQUAL(a.free_blocks(), 50u);
  a.drop_chunk(ChunkId(2));
  a.suspend_chunk(ChunkId(2));
  a.resume_chunk(ChunkId(2));
  BOOST_CHECK_EQUAL(a.free_blocks(), 0u);
}

BOOST_AUTO_TEST_CASE(two_files_that_grow_side_by_side_do_not_interleave) {
  ExtentAllocator a;
  BOOST_REQUIRE(a.add_chunk(ChunkId(1), 16384, {}).ok());
  std::size_t extents = 0;
  SpaceHint hints[2];
  for (int step = 0; step < 2000; ++step) {
    SpaceHint& hint = hints[step % 2];
    std::vector<SpaceRun> runs;
    BOOST_REQUIRE(a.allocate(1, hint, runs));
    BOOST_REQUIRE_EQUAL(runs.size(), 1u);
    if (runs[0].first != hint.block || hint.chunk != runs[0].chunk) ++extents;
    hint = {runs[0].chunk, runs[0].first + 1, hint.file_blocks + 1};
  }
  BOOST_TEST_MESSAGE(extents << " extents for two files of 1000 blocks");
  BOOST_CHECK_LE(extents, 20u);
}

BOOST_AUTO_TEST_CASE(a_large_request_in_empty_space_is_one_run) {
  ExtentAllocator a;
  BOOST_REQUIRE(a.add_chunk(ChunkId(1), 16384, {}).ok());
  for (int i = 0; i < 60; ++i) {
    std::vector<SpaceRun> runs;
    BOOST_REQUIRE(a.allocate(256, {}, runs));
    BOOST_REQUIRE_EQUAL(runs.size(), 1u);
  }
}

BOOST_AUTO_TEST_CASE(a_stored_bitmap_is_respected_and_checked) {
  ExtentAllocator a;
  BOOST_REQUIRE(a.add_chunk(ChunkId(1), 20, std::string("\xff\x00\x08", 3)).ok());
  BOOST_CHECK_EQUAL(a.free_blocks(), 11u);
  BOOST_CHECK_EQUAL(a.used_blocks(ChunkId(1)), 9u);
  std::vector<SpaceRun> runs;
  BOOST_REQUIRE(a.allocate(11, {}, runs));
  BOOST_CHECK_EQUAL(runs.front().first, 8u);
  ExtentAllocator b;
  BOOST_CHECK(b.add_chunk(ChunkId(1), 20, std::string("\x00\x00\x10", 3)).error().code == Errc::kCorrupt);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
