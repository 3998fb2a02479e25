// Progress of a journal that is always full (J6): the real journal with its threads, two slots, and writers that need
// one or both of them. The home is made durable only when somebody asks for it, so every reservation depends on being
// heard. Nothing crashes here; the rule cannot be seen without threads, which the explorer does not have.
//
//   crash_progress
//
// Prints what it saw. Status 0: every writer got through; 1: VIOLATION, one waited in vain; 2: it could not begin.
#include <cstdio>

#include "tests/unit/journal/journal_fixture.h"

namespace rmemfs {
namespace {

constexpr JournalGeometry kTwoSlots{256, 2};
constexpr unsigned kWriters = 8;
constexpr unsigned kTransactions = 200;      // of each writer
constexpr std::uint32_t kPatienceMs = 3000;  // of one reservation: a drain takes microseconds here

// True when every writer got through.
bool writers_get_through(PersistentMemory::Backing backing) {
  JournalFixture fixture;
  fixture.options.durable_interval_ms = 3600000;
  fixture.options.slot_deadline_ms = kPatienceMs;
  fixture.options.stall_deadline_ms = kPatienceMs;
  fixture.format(kTwoSlots);
  fixture.open(kTwoSlots, backing);
  std::atomic<unsigned> done{0}, refused{0};
  {
    std::vector<std::jthread> writers;
    for (unsigned w = 0; w < kWriters; ++w) {
      writers.emplace_back([&fixture, &done, &refused, w] {
        LoopExecutor own;
        for (unsigned i = 0; i < kTransactions; ++i) {
          TransactionBuilder transaction;
          transaction.put("writer" + std::to_string(w), std::string(i % 4 == 0 ? 300 : 20, 'x'));
          auto room = own.run(fixture.journal->reserve(transaction.payload_bytes()));
          if (!room.ok()) {
            ++refused;
            return;
          }
          fixture.journal->hand_over(fixture.journal->commit(std::move(*room), transaction, 0));
          ++done;
        }
      });
    }
  }
  std::printf("%u of %u transactions committed, %u writers waited in vain\n", done.load(), kWriters * kTransactions,
              refused.load());
  if (!fixture.journal->close().ok()) std::printf("the journal does not close\n");
  return refused == 0 && done == kWriters * kTransactions;
}

}  // namespace
}  // namespace rmemfs

int main() {
  using rmemfs::PersistentMemory;
  using rmemfs::writers_get_through;
  for (const auto backing : {PersistentMemory::Backing::kForced, PersistentMemory::Backing::kFile}) {
    if (writers_get_through(backing)) continue;
    std::printf("VIOLATION of J6: the journal is full, and nobody makes room\n");
    return 1;
  }
  return 0;
}
