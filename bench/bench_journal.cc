// Cost of a transaction of three modifications: try_reserve + commit + hand_over, on DRAM treated as persistent memory
// (flush and drain cost what they cost on real persistent memory; nothing survives).
//
// The best of many short batches is taken, so that one undisturbed moment is enough on a busy machine; between batches
// the journal is checkpointed, so that no batch waits for slots.
//
// usage: bench_journal [BATCHES]     200 by default, of 1000 transactions each
// Prints one JSON object per line: {"name", "value", "unit", "limit", "ok"}; limit null: for information. Exits 1 when
// a limit is not kept.
#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "journal/journal.h"
#include "util/check.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kBatch = 1000;

// Keeps the last value per key, as a store's memory table would.
class MapHome final : public Home {
 public:
  Result<void> apply(std::span<const Modification> modifications, CommitId applied) override {
    for (const Modification& m : modifications) map_[std::string(m.key)] = m.value;
    applied_ = applied;
    return success();
  }
  Result<CommitId> make_durable() override { return applied_.load(); }
  CommitId durable_watermark() const override { return {}; }

 private:
  std::unordered_map<std::string, std::string> map_;
  std::atomic<CommitId> applied_{};
};

bool report(const std::string& name, double value, const char* unit, double limit, bool ok) {
  std::printf("{\"name\": \"%s\", \"value\": %.4f, \"unit\": \"%s\", \"limit\": ", name.c_str(), value, unit);
  if (limit > 0)
    std::printf("%.2f", limit);
  else
    std::printf("null");
  std::printf(", \"ok\": %s}\n", ok ? "true" : "false");
  return ok;
}

std::unique_ptr<PersistentMemory> dram(std::size_t size) {
  const std::string path = "/dev/shm/rmemfs-bench-journal." + std::to_string(::getpid());
  auto memory = map_persistent(path, {.create = true, .size = size, .force_pmem = true});
  ::unlink(path.c_str());
  if (!memory.ok()) {
    std::fprintf(stderr, "bench_journal: %s\n", memory.error().message().c_str());
    std::exit(1);
  }
  return std::move(*memory);
}

// As the metastore's: a directory entry, an inode and the parent's times.
void fill(TransactionBuilder& transaction, std::uint64_t number) {
  std::string key = "d0000000000000001name";
  key.append(std::to_string(number % 1000));
  transaction.put(key, std::string(24, 'e'));
  transaction.put("i" + std::to_string(number % 1000), std::string(96, 'a'));
  transaction.put("i0000000000000001", std::string(96, 'p'));
}

void work(Journal& journal, const std::vector<TransactionBuilder>& builders, std::uint64_t transactions) {
  for (std::uint64_t i = 0; i < transactions; ++i) {
    const TransactionBuilder& transaction = builders[i % builders.size()];
    SlotReservation room = journal.try_reserve(transaction.payload_bytes());
    CHECK(room);
    journal.hand_over(journal.commit(std::move(room), transaction, i + 1));
  }
}

// Microseconds per transaction, all threads together.
double batch(Journal& journal, int threads, const std::vector<TransactionBuilder>& builders) {
  std::barrier start(threads + 1);
  std::vector<std::thread> workers;
  std::vector<TimePoint> begun(threads), ended(threads);
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      start.arrive_and_wait();
      begun[t] = MonoClock::now();
      work(journal, builders, kBatch / threads);
      ended[t] = MonoClock::now();
    });
  }
  start.arrive_and_wait();
  for (std::thread& worker : workers) worker.join();
  const auto elapsed = *std::max_element(ended.begin(), ended.end()) - *std::min_element(begun.begin(), begun.end());
  return std::chrono::duration<double, std::micro>(elapsed).count() / kBatch;
}

bool measure(int threads, int batches) {
  const JournalGeometry geometry;
  auto memory = dram(Journal::bytes_needed(geometry));
  const Uuid uuid = Uuid::random();
  CHECK(Journal::format(*memory, uuid, geometry).ok());
  MapHome home;
  auto journal = Journal::open(std::move(memory), uuid, home, {});
  CHECK(journal.ok());
  std::vector<TransactionBuilder> builders(256);
  for (std::size_t i = 0; i < builders.size(); ++i) fill(builders[i], i);
  double best = 1e9;
  for (int i = 0; i < batches; ++i) {
    best = std::min(best, batch(**journal, threads, builders));
    CHECK((*journal)->checkpoint().ok());
  }
  const JournalStatistics statistics = (*journal)->statistics();
  CHECK((*journal)->close().ok());

  const std::string suffix = " (" + std::to_string(threads) + (threads == 1 ? " thread)" : " threads)");
  const double limit = threads == 1 ? 0.5 : 0;
  bool ok =
      report("journal: transaction of three modifications" + suffix, best, "us", limit, limit == 0 || best <= limit);
  const double drains = static_cast<double>(statistics.drains) / static_cast<double>(statistics.transactions);
  ok &= report("journal: drains per transaction" + suffix, drains, "drains", 1.0, drains <= 1.0);
  const double ratio = static_cast<double>(statistics.modifications) / static_cast<double>(statistics.home_writes);
  ok &= report("journal: modifications per home write" + suffix, ratio, "ratio", 0, ratio > 1);
  return ok;
}

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) {
  const int batches = argc > 1 ? std::max(std::atoi(argv[1]), 1) : 200;
  bool ok = true;
  for (const int threads : {1, 2, 4}) ok &= rmemfs::measure(threads, batches);
  return ok ? 0 : 1;
}
