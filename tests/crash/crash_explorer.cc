// The crash explorer: workloads on a simulated persistent memory, crashed everywhere.
//
// usage: crash_explorer [--rounds N] [--long] [--seed S] [--backing pmem|file|both] [--puts-only] [--minimum IMAGES]
//   --rounds N      workloads per kind of memory
//   --long          more rounds, more crash images per moment; the same as RMEMFS_LONG in the environment
//   --puts-only     transactions that may be applied twice without harm
//   --minimum N     fail when fewer crash images were explored: a test that looked at nothing proves nothing
// Exit status: 0 no violation, 1 a violation (printed with its seed), 2 bad usage or too few images.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <string>

#include "tests/crash/workload.h"

namespace rmemfs {
namespace {

using Backing = PersistentMemory::Backing;

struct Options {
  int rounds = 150;
  std::optional<std::uint64_t> seed;
  bool pmem = true;
  bool file = true;
  bool puts_only = false;
  std::uint64_t minimum = 50000;
  ExplorerLimits limits;
};

struct Totals {
  std::uint64_t images = 0, recovery_crashes = 0, continuations = 0, transactions = 0;
};

JournalGeometry draw_geometry(Backing backing, std::mt19937_64& random) {
  JournalGeometry geometry;
  geometry.slot_count = static_cast<std::uint32_t>(2 + random() % 4);
  if (backing == Backing::kFile)
    geometry.slot_bytes = std::uint32_t{512} << (random() % 4);  // some share a page
  else
    geometry.slot_bytes = std::uint32_t{256} << (random() % 2);
  return geometry;
}

// One workload; false on a violation.
bool run_round(const Options& options, Backing backing, std::uint64_t seed, Totals& totals) {
  std::mt19937_64 random(seed);
  const JournalGeometry geometry = draw_geometry(backing, random);
  const Uuid file_system = {{std::byte{0x52}, std::byte{static_cast<unsigned char>(seed)}}};
  SimulatedPmem memory(std::vector<std::byte>(Journal::bytes_needed(geometry)), backing, random());
  CHECK(Journal::format(memory, file_system, geometry).ok());
  SimulatedHome home(SimulatedHome::Contents{});
  Explorer explorer(file_system, backing, options.limits, random());
  explorer.on_recovered = [&](SimulatedPmem& left, SimulatedHome& left_home, std::uint64_t next_seed) {
    Workload further(left, left_home, file_system, explorer,
                     {.seed = next_seed, .steps = 10, .writers = 2, .generation = 1, .puts_only = options.puts_only});
    further.run();
  };
  const unsigned long_percent = random() % 3 == 0 ? 80 : 20;
  Workload workload(memory, home, file_system, explorer,
                    {.seed = random(), .puts_only = options.puts_only, .long_percent = long_percent});
  workload.run();
  totals.images += explorer.images();
  totals.recovery_crashes += explorer.recovery_crashes();
  totals.continuations += explorer.continuations();
  totals.transactions += workload.last().value();
  if (!explorer.violation()) return true;
  std::printf("VIOLATION (%s, %u slots of %u bytes, --seed %llu --rounds 1 --backing %s): %s\n",
              backing == Backing::kFile ? "file" : "pmem", geometry.slot_count, geometry.slot_bytes,
              static_cast<unsigned long long>(seed), backing == Backing::kFile ? "file" : "pmem",
              explorer.violation()->c_str());
  return false;
}

[[noreturn]] void misuse(const char* text) {
  std::fprintf(stderr, "crash_explorer: %s\n", text);
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options options;
  const auto go_long = [&options] {
    options.rounds = 400;
    options.limits = {.choices = 1024, .recovery_choices = 32, .recovery_every = 3, .continue_every = 40};
  };
  if (const char* asked = std::getenv("RMEMFS_LONG"); asked != nullptr && *asked != 0) go_long();
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&]() -> const char* {
      if (i + 1 >= argc) misuse("an option lacks its value");
      return argv[++i];
    };
    if (word == "--rounds") {
      options.rounds = std::atoi(value());
    } else if (word == "--seed") {
      options.seed = std::strtoull(value(), nullptr, 10);
    } else if (word == "--minimum") {
      options.minimum = std::strtoull(value(), nullptr, 10);
    } else if (word == "--puts-only") {
      options.puts_only = true;
    } else if (word == "--long") {
      go_long();
    } else if (word == "--backing") {
      const std::string backing = value();
      options.pmem = backing != "file";
      options.file = backing != "pmem";
    } else {
      misuse("unknown option; see the head of crash_explorer.cc");
    }
  }
  return options;
}

// The same images in each run, and behind them some that nobody has seen, unless a seed is given.
int run(const Options& options) {
  constexpr std::uint64_t kKnown = 20240611;
  const std::uint64_t fresh = std::random_device{}();
  if (!options.seed)
    std::printf("seeds %llu and %llu\n", static_cast<unsigned long long>(kKnown),
                static_cast<unsigned long long>(fresh));
  const auto start = std::chrono::steady_clock::now();
  Totals totals;
  for (int round = 0; round < options.rounds; ++round) {
    const auto offset = static_cast<std::uint64_t>(round);
    const bool known = 2 * round < options.rounds;
    const std::uint64_t seed = options.seed.value_or(known ? kKnown : fresh) + offset;
    if (options.pmem && !run_round(options, Backing::kPmem, seed, totals)) return 1;
    if (options.file && !run_round(options, Backing::kFile, seed, totals)) return 1;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf(
      "0 violations in %llu crash images (%llu crashes in recovery, %llu further workloads, %llu transactions), %.1f "
      "s\n",
      static_cast<unsigned long long>(totals.images), static_cast<unsigned long long>(totals.recovery_crashes),
      static_cast<unsigned long long>(totals.continuations), static_cast<unsigned long long>(totals.transactions),
      seconds);
  if (totals.images < options.minimum) misuse("too few crash images were explored");
  return 0;
}

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) { return rmemfs::run(rmemfs::parse(argc, argv)); }
