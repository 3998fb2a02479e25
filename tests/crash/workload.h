// Workload: a few writers and the journal's background activities, one step at a time in a random but repeatable order.
//
// Each writer reserves, prepares, publishes and hands over; batches are applied; up to two rounds of home durability
// and one sync are under way, so that every interleaving that the threads of the journal can show can be drawn. After
// each step the explorer looks at the persist points that the step passed.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "journal/journal_core.h"
#include "tests/crash/explorer.h"

namespace rmemfs {

struct WorkloadOptions {
  std::uint64_t seed = 1;
  int steps = 90;
  int writers = 3;
  int generation = 0;
  bool puts_only = false;
  unsigned long_percent = 20;  // of transactions that need several slots
};

class Workload {
 public:
  Workload(SimulatedPmem& memory, SimulatedHome& home, const Uuid& file_system, Explorer& explorer,
           const WorkloadOptions& options);
  ~Workload();
  Workload(const Workload&) = delete;
  Workload& operator=(const Workload&) = delete;
  // Runs the steps, then lets every writer finish and empties the journal. Violations go to the explorer.
  void run();
  CommitId last() const { return history_.last(); }

 private:
  enum class Stage { kIdle, kWaiting, kReserved, kPrepared, kPublished };
  struct Writer {
    Stage stage = Stage::kIdle;
    std::vector<PlannedModification> plan;
    TransactionBuilder transaction;
    std::uint32_t slots = 1;
    SlotChain held;
    std::optional<JournalCore::Prepared> prepared;
    CommitId id;
  };
  struct Round {
    std::optional<JournalCore::DurableRound> begun;
    std::optional<CommitId> watermark;
  };

  void plan(Writer& writer);
  void advance(Writer& writer, unsigned number);
  void publish(Writer& writer);
  void advance(Round& round);
  void advance_sync();
  void apply();
  void step();
  void finish();
  void moment(const char* what);
  void look();  // explores the moments of the last step

  SimulatedPmem& memory_;
  SimulatedHome& home_;
  Explorer& explorer_;
  const WorkloadOptions options_;
  std::mt19937_64 random_;
  History history_;
  std::unique_ptr<JournalCore> core_;
  std::array<Writer, 3> writers_;
  std::array<Round, 2> rounds_;
  std::optional<CommitId> sync_begun_;
  bool synced_ = false;
  std::vector<CrashMoment> moments_;
  CommitId acknowledged_, committed_, started_;
  std::uint64_t serial_ = 0;
};

}  // namespace rmemfs
