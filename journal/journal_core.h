// JournalCore: the journal without threads. Every activity is one call, so that the crash explorer can drive them in
// any order; class Journal (journal.cc) gives it threads, deadlines and coroutines.
//
// Thread-safety:
//   prepare(), publish(), hand_over(), the getters: any thread
//   apply_once(): one thread at a time (the applier)
//   finish_durable(): one thread at a time;  begin_sync()/finish_sync(): one thread at a time
// Locks: publish() takes kJournalCommit; the pool takes kJournalLists.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "journal/coalescer.h"
#include "journal/home.h"
#include "journal/journal.h"
#include "journal/journal_format.h"
#include "journal/slot_pool.h"
#include "util/ids.h"
#include "util/mutex.h"
#include "util/pmem.h"
#include "util/result.h"

namespace rmemfs {

class JournalCore {
 public:
  // A recovered journal whose home is durable up to `watermark`: every slot is free and the next id follows it.
  // Errors as Journal::open(); kInvalid when a slot of the current epoch shows that nobody recovered it.
  static Result<std::unique_ptr<JournalCore>> open(PersistentMemory& memory, const Uuid& file_system,
                                                   CommitId watermark);

  SlotPool& slots() { return slots_; }
  const SlotPool& slots() const { return slots_; }
  const JournalGeometry& geometry() const { return geometry_; }

  // A transaction whose payload is written and flushed, but which has no id yet.
  struct Prepared {
    SlotChain chain;
    SlotHeader header;
    std::uint32_t payload_crc;
  };
  // Writes and flushes the payload. Slots that it does not need go back to the pool. No lock.
  Prepared prepare(SlotChain chain, const TransactionBuilder& transaction);
  // Gives it the next id and makes it survive this process with one drain. Called by the thread that prepared it: a
  // drain waits for the flushes of its own thread only.
  CommitId publish(const Prepared& prepared, std::uint64_t request_id);
  void hand_over(CommitId id);

  // Applies one batch of handed-over transactions, in id order and without gaps (J3). The number of transactions.
  Result<std::size_t> apply_once(Home& home);
  // Whether apply_once() would find something.
  bool anything_to_apply() const { return handed_over(applied().next()); }

  // Around Home::make_durable(), which is called without any lock; `watermark` is what it returned.
  struct DurableRound {
    CommitId applied;
    std::vector<std::uint32_t> slots;  // empty, but for the mutation kRetireBySlot
  };
  DurableRound begin_durable() const;
  void finish_durable(const DurableRound& round, CommitId watermark);

  // Around PersistentMemory::sync(): what was committed before begin_sync() is what the sync covers.
  CommitId begin_sync() const { return last(); }
  void finish_sync(CommitId covered);

  CommitId last() const { return CommitId(last_.load(std::memory_order_acquire)); }
  CommitId applied() const { return CommitId(applied_.load(std::memory_order_acquire)); }
  CommitId durable() const { return CommitId(durable_.load(std::memory_order_acquire)); }
  CommitId persisted() const;
  // Fills what the core counts.
  void count(JournalStatistics& statistics) const;

 private:
  enum class State : std::uint8_t { kUnused, kCommitted, kHandedOver };
  // An id in flight. Ids in flight are consecutive and each holds a slot, so `id & ring_mask_` is theirs alone.
  struct InFlight {
    std::atomic<State> state{State::kUnused};
    SlotChain chain;
  };

  JournalCore(PersistentMemory& memory, const Uuid& file_system, const JournalGeometry& geometry, std::uint32_t epoch,
              CommitId watermark);
  InFlight& in_flight(CommitId id) { return ring_[id.value() & ring_mask_]; }
  const InFlight& in_flight(CommitId id) const { return ring_[id.value() & ring_mask_]; }
  bool handed_over(CommitId id) const;
  std::byte* slot_data(std::uint32_t slot) const { return memory_.data() + slot_offset(geometry_, slot); }
  std::uint32_t write_payload(const SlotChain& chain, std::string_view payload);
  Result<void> gather(CommitId id);
  Result<void> write_batch(Home& home, CommitId to);
  void retire_up_to(CommitId watermark);

  // Constant after construction.
  PersistentMemory& memory_;
  const Uuid file_system_;
  const JournalGeometry geometry_;
  const std::uint32_t epoch_;
  const bool drain_is_persistent_;
  const std::uint64_t ring_mask_;
  // With their own synchronization.
  SlotPool slots_;
  std::vector<InFlight> ring_;
  std::atomic<std::uint64_t> applied_, durable_, synced_;
  std::atomic<std::uint64_t> home_writes_{0}, home_batches_{0}, home_durable_{0}, syncs_{0};
  // Written under commit_mutex_ (J2); last_ is read by anybody.
  mutable Mutex commit_mutex_{LockRank::kJournalCommit};
  std::atomic<std::uint64_t> last_;
  std::uint64_t transactions_ = 0, drains_ = 0, modifications_ = 0;
  // The applier's.
  Coalescer coalescer_;
  std::vector<Modification> parsed_;
  // Of whoever finishes durability rounds: ids up to it have returned their slots.
  std::uint64_t retired_;
};

}  // namespace rmemfs
