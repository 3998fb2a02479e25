// Explorer: takes what a crash may leave at a moment, recovers it, and compares with the oracle.
//
// At each persist point (a flush, a drain, a sync, a home batch, a home made durable; of the workload and of recovery
// itself) the crash may leave: any choice of versions per unsettled unit of memory x any prefix of home batches. All
// are tried up to a bound, otherwise the extremes, every unit alone, and random ones. Each is recovered, and:
//   - recovery succeeds;
//   - what it leaves is durable and equals the state after some transaction n;
//   - every transaction acknowledged as persistent is at or below n; n is not above the one in doubt;
//   - if all stores are there (only the process died), every committed transaction is at or below n.
// Some recoveries are crashed at each of their own persist points and repeated; after some, a further workload runs.
// The first violation is kept; from then on nothing is explored.
#pragma once

#include <functional>
#include <optional>
#include <random>
#include <string>
#include <unordered_set>

#include "tests/crash/history.h"
#include "tests/crash/simulated_home.h"
#include "tests/support/simulated_pmem.h"
#include "util/ids.h"

namespace rmemfs {

struct CrashMoment {
  const char* what;
  CrashState memory;
  std::vector<SimulatedHome::Contents> home;
  CommitId acknowledged;  // as persistent
  CommitId committed;     // commit() returned: survives the process
  CommitId started;       // the highest that may be seen
};

struct ExplorerLimits {
  std::size_t choices = 64;           // of memory, per moment and home prefix
  std::size_t recovery_choices = 8;   // the same, for a crash in recovery
  std::uint64_t recovery_every = 6;   // one recovery of so many is crashed itself
  std::uint64_t continue_every = 60;  // after one of so many, a further workload runs
};

class Explorer {
 public:
  Explorer(const Uuid& file_system, PersistentMemory::Backing backing, const ExplorerLimits& limits, std::uint64_t seed)
      : file_system_(file_system), backing_(backing), limits_(limits), random_(seed) {}

  // Tries what `moment` may leave. `generation` 0 is the first workload, 1 one that runs after a recovery.
  void explore(const CrashMoment& moment, const History& history, int generation);
  void violation(const std::string& text) {
    if (!violation_) violation_ = text;
  }
  const std::optional<std::string>& violation() const { return violation_; }
  std::uint64_t images() const { return images_; }
  std::uint64_t recovery_crashes() const { return recovery_crashes_; }
  std::uint64_t continuations() const { return continuations_; }

  // Runs a further workload on a recovered journal.
  std::function<void(SimulatedPmem&, SimulatedHome&, std::uint64_t seed)> on_recovered;

 private:
  struct Expectation {
    const char* what;
    CommitId at_least;
    CommitId at_most;
  };
  void recover(std::vector<std::byte> image, const SimulatedHome::Contents& contents, const Expectation& expected,
               const History& history, int depth, int generation);
  bool seen_before(const std::vector<std::byte>& image, const SimulatedHome::Contents& contents,
                   const Expectation& expected, int depth);

  const Uuid file_system_;
  const PersistentMemory::Backing backing_;
  const ExplorerLimits limits_;
  std::mt19937_64 random_;
  std::optional<std::string> violation_;
  std::unordered_set<std::uint64_t> seen_;
  std::uint64_t images_ = 0;
  std::uint64_t recovery_crashes_ = 0;
  std::uint64_t continuations_ = 0;
};

}  // namespace rmemfs
