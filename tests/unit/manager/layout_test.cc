// The layout's functions against an array with one entry per block.
#include "manager/layout.h"

#include <random>

#include "fixture.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kBlocks = 64;

struct ModelBlock {
  std::uint64_t chunk = 0;  // 0: a hole
  std::uint64_t block = 0;
  bool unwritten = false;
  bool operator==(const ModelBlock&) const = default;
};

struct Pair {
  Layout layout;
  std::array<ModelBlock, kBlocks> model;
  std::map<std::uint64_t, Extent> store;  // the records, as the touched keys say

  void apply(TouchedKeys& touched) {
    for (const std::uint64_t offset : touched) {
      const auto it = layout.find(offset);
      if (it == layout.end())
        store.erase(offset);
      else
        store[offset] = it->second;
    }
  }

  void check() const {
    BOOST_REQUIRE(store == layout);
    std::uint64_t end = 0;
    const Extent* previous = nullptr;
    std::array<ModelBlock, kBlocks> seen;
    for (const auto& [offset, e] : layout) {
      BOOST_REQUIRE(offset == e.file_offset && offset >= end && e.length != 0);
      if (previous != nullptr) {
        BOOST_REQUIRE(!(previous->end() == offset && previous->chunk == e.chunk && previous->unwritten == e.unwritten &&
                        previous->chunk_offset + previous->length == e.chunk_offset));
      }
      for (std::uint64_t at = 0; at < e.length; at += kBlockBytes) {
        seen[(offset + at) / kBlockBytes] = {e.chunk.value(), (e.chunk_offset + at) / kBlockBytes, e.unwritten};
      }
      end = e.end();
      previous = &e;
    }
    BOOST_REQUIRE(seen == model);
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(layout)

BOOST_AUTO_TEST_CASE(random_changes_agree_with_an_array) {
  std::mt19937_64 random(20240607);
  for (int round = 0; round < 60; ++round) {
    Pair p;
    for (int step = 0; step < 150; ++step) {
      const std::uint64_t begin = random() % kBlocks;
      const std::uint64_t end = begin + 1 + random() % std::min<std::uint64_t>(kBlocks - begin, 12);
      TouchedKeys touched;
      switch (random() % 3) {
        case 0: {
          // Chunk positions near the file positions, so that neighbours often continue each other.
          const std::uint64_t chunk = 1 + random() % 2, shift = random() % 2;
          const bool unwritten = random() % 2 == 0;
          for (std::uint64_t b = begin; b < end; ++b) {
            if (p.model[b].chunk != 0) continue;
            layout_insert(p.layout,
                          {b * kBlockBytes, kBlockBytes, ChunkId(chunk), (b + shift) * kBlockBytes, unwritten},
                          touched);
            p.model[b] = {chunk, b + shift, unwritten};
          }
          break;
        }
        case 1: {
          std::uint64_t removed = 0, expected = 0;
          for (const Extent& e : layout_remove(p.layout, begin * kBlockBytes, end * kBlockBytes, touched)) {
            removed += e.length / kBlockBytes;
            for (std::uint64_t at = 0; at < e.length; at += kBlockBytes) {
              const ModelBlock& was = p.model[(e.file_offset + at) / kBlockBytes];
              BOOST_REQUIRE(was.chunk == e.chunk.value() && was.block == (e.chunk_offset + at) / kBlockBytes);
            }
          }
          for (std::uint64_t b = begin; b < end; ++b) {
            expected += p.model[b].chunk != 0 ? 1 : 0;
            p.model[b] = {};
          }
          BOOST_REQUIRE_EQUAL(removed, expected);
          break;
        }
        default: {
          const bool unwritten = random() % 2 == 0;
          layout_mark(p.layout, begin * kBlockBytes, end * kBlockBytes, unwritten, touched);
          for (std::uint64_t b = begin; b < end; ++b) p.model[b].unwritten = unwritten && p.model[b].chunk != 0;
        }
      }
      p.apply(touched);
      p.check();
      // The walk covers the range exactly and says the same.
      std::uint64_t at = begin * kBlockBytes;
      layout_visit(p.layout, at, end * kBlockBytes, [&](std::uint64_t from, std::uint64_t to, const Extent* e) {
        BOOST_REQUIRE(from == at && to > from);
        for (; at < to; at += kBlockBytes) {
          const ModelBlock& block = p.model[at / kBlockBytes];
          BOOST_REQUIRE_EQUAL(block.chunk, e == nullptr ? 0 : e->chunk.value());
        }
      });
      BOOST_REQUIRE_EQUAL(at, end * kBlockBytes);
      // A tail holds no more extents than asked for, and the next larger one would.
      const std::size_t limit = random() % 4;
      const std::uint64_t tail = layout_tail(p.layout, begin * kBlockBytes, UINT64_MAX, limit);
      BOOST_REQUIRE(layout_count(p.layout, tail, UINT64_MAX, 1000) <= limit || limit == 0);
      if (tail != begin * kBlockBytes) {
        BOOST_REQUIRE(layout_count(p.layout, begin * kBlockBytes, UINT64_MAX, 1000) > limit);
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(an_empty_range_inside_an_extent_removes_nothing) {
  Layout layout;
  TouchedKeys touched;
  layout_insert(layout, {0, 4 * kBlockBytes, ChunkId(1), 0, false}, touched);
  touched.clear();
  BOOST_CHECK(layout_remove(layout, 2 * kBlockBytes, 2 * kBlockBytes, touched).empty());
  BOOST_CHECK(touched.empty());
  BOOST_CHECK_EQUAL(layout.size(), 1u);
}

BOOST_AUTO_TEST_CASE(appending_keeps_one_extent_under_one_key) {
  Layout layout;
  for (std::uint64_t b = 0; b < 100; ++b) {
    TouchedKeys touched;
    layout_insert(layout, {b * kBlockBytes, kBlockBytes, ChunkId(1), b * kBlockBytes, false}, touched);
    BOOST_REQUIRE_EQUAL(touched.size(), 1u);
    BOOST_REQUIRE_EQUAL(touched[0], 0u);
  }
  BOOST_CHECK_EQUAL(layout.size(), 1u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
