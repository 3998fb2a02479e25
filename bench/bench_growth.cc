// What more memory nodes and more chunks cost: allocating and giving back file space (ExtentAllocator) and finding the
// chunk of an extent (ChunkMap), with 1 to 100,000 chunks on 10 to 1,000 nodes, simulated: no node is asked anything.
//
// usage: bench_growth [ROUNDS]   (11)
// One hot chunk in the middle of the range is asked for at every size: what is measured is the structures' own work,
// not the processor's misses on more chunks than fit its caches. Sizes take turns in each round; the figure is the
// median of the ratios to the smallest size's time. Prints one JSON object per line: {"name", "value", "unit", "ratio",
// "low", "high", "limit", "ok"}. Exits 1 when a limit is not kept.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "manager/chunk_map.h"
#include "manager/extent_allocator.h"
#include "util/check.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kChunkBlocks = 16384;  // 64 MiB
constexpr std::size_t kOperations = 20000;
constexpr double kLimit = 1.2;

// A file system of so many chunks, nearly full, as one that has grown to this size is.
class Simulated {
 public:
  Simulated(std::uint64_t chunks, std::uint32_t nodes) : chunks_(chunks), nodes_(nodes) {
    // Each chunk has its second half free.
    std::string bitmap(kChunkBlocks / 8, '\0');
    std::fill_n(bitmap.begin(), bitmap.size() / 2, '\xff');
    for (std::uint64_t i = 1; i <= chunks; ++i) {
      ChunkRecord record;
      record.node = NodeId(static_cast<std::uint32_t>(i % nodes));
      record.region.id = RegionId(i);
      record.region.length_bytes = std::uint64_t{kChunkBlocks} * kBlockBytes;
      CHECK(map_.add(ChunkId(i), record).ok());
      CHECK(allocator_.add_chunk(ChunkId(i), kChunkBlocks, bitmap).ok());
    }
  }

  // Nanoseconds per allocation of a small file's block that is given back again.
  double allocate() {
    std::vector<SpaceRun> runs;
    return timed([&] {
      runs.clear();
      CHECK(allocator_.allocate(1, SpaceHint(), runs));
      allocator_.release(runs);
    });
  }
  // The same for a large file that goes on where it ended.
  double extend() {
    std::vector<SpaceRun> runs;
    SpaceHint hint;
    hint.file_blocks = 4096;
    return timed([&] {
      runs.clear();
      hint.chunk = hot();
      hint.block = kChunkBlocks / 2;
      CHECK(allocator_.allocate(256, hint, runs));
      allocator_.release(runs);
    });
  }
  double find() {
    std::uint64_t sum = 0;
    const double time = timed([&] { sum += map_.find(hot())->node.value(); });
    CHECK(sum == kOperations * (hot().value() % nodes_));
    return time;
  }

 private:
  ChunkId hot() const { return ChunkId(1 + chunks_ / 2); }

  template <typename Operation>
  static double timed(Operation operation) {
    const auto began = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < kOperations; ++i) operation();
    const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - began;
    return time.count() / kOperations;
  }

  const std::uint64_t chunks_;
  const std::uint32_t nodes_;
  ChunkMap map_;
  ExtentAllocator allocator_;
};

struct Size {
  std::uint64_t chunks;
  std::uint32_t nodes;
};
struct Measured {
  const char* name;
  double (Simulated::*measure)();
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

bool measure_all(std::size_t rounds) {
  // The smallest first: what the others are compared with. A cluster of 10 nodes has at least a chunk on each.
  const std::vector<Size> sizes = {{1, 1}, {10, 10}, {1000, 1000}, {100000, 10}, {100000, 1000}};
  const std::vector<Measured> measured = {{"allocate and release one block", &Simulated::allocate},
                                          {"allocate and release 1 MiB after the last", &Simulated::extend},
                                          {"find a chunk", &Simulated::find}};
  std::vector<std::unique_ptr<Simulated>> all;
  for (const Size& size : sizes) all.push_back(std::make_unique<Simulated>(size.chunks, size.nodes));
  bool good = true;
  for (const Measured& what : measured) {
    std::vector<std::vector<double>> times(sizes.size());
    for (std::size_t round = 0; round < rounds + 1; ++round) {
      for (std::size_t i = 0; i < all.size(); ++i) {
        const double time = (*all[i].*what.measure)();
        if (round > 0) times[i].push_back(time);  // the first warms up
      }
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      std::vector<double> ratios;
      for (std::size_t round = 0; round < rounds; ++round) ratios.push_back(times[i][round] / times[0][round]);
      const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
      const double ratio = median(ratios);
      const bool judged = i > 0, ok = ratio <= kLimit;
      if (judged) good &= ok;
      std::printf(
          "{\"name\": \"%s, %llu chunks on %u nodes\", \"value\": %.4g, \"unit\": \"ns\", \"ratio\": %.3f, "
          "\"low\": %.3f, \"high\": %.3f",
          what.name, static_cast<unsigned long long>(sizes[i].chunks), sizes[i].nodes, median(times[i]), ratio, *low,
          *high);
      if (judged) std::printf(", \"limit\": \"<= %.1f\", \"ok\": %s", kLimit, ok ? "true" : "false");
      std::printf("}\n");
    }
  }
  return good;
}

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) {
  const long rounds = argc == 2 ? std::strtol(argv[1], nullptr, 10) : 11;
  if (argc > 2 || rounds < 1) {
    std::fprintf(stderr, "usage: bench_growth [ROUNDS]\n");
    return 2;
  }
  return rmemfs::measure_all(static_cast<std::size_t>(rounds)) ? 0 : 1;
}
