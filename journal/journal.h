// The micro-journal: transactions of a few modifications made crash-consistent in persistent memory with one drain
// each, and applied to their Home (RocksDB) later, coalesced. (US 11204912 B2; rules and model checking:
// ARCHITECTURE.md.)
//
// Life of a slot:  free -> reserved -> written -> committed (has an id) -> handed over -> applied -> durable -> free
//
// Invariants (numbered; journal.cc says where each is kept):
//   J1  A header's CRC32C covers header and payload: a torn or stale mixture is never valid.
//   J2  Commit ids are given under the commit lock, in the order of the drains: with a drain per commit, only the
//       highest id can be torn.
//   J3  The applier applies ids in order, without gaps; the watermark is in the same batch and never goes back.
//   J4  A slot is free only when its id is at or below the DURABLE watermark (the home made it durable).
//   J5  A slot is retired by (slot, id), never by number alone.
//   J6  Nobody waits for slots while holding some: a transaction reserves all it can need at once. When the free list
//   is
//       empty the durability thread is told to make the home durable. So somebody always makes room.
//   J7  Every header carries the highest id known persistent when it was written (`persisted id`).
//   J8  Recovery takes valid slots of this uuid and journal epoch above the watermark, applies the contiguous run in
//       ascending order, makes the home durable, then steps the journal epoch with one atomic persist.
//
// Durability: commit() returns when the transaction survives the death of this process. It survives the host's power
// loss when its id is at or below persisted_id(): at once when the backing drains persistently, otherwise after the
// next group commit (CommitMode) or persist().
//
// Threads: any thread may reserve/commit/hand over. Own threads, joined by close():
//   applier   applies; may block in Home::apply()
//   home      makes the home durable; may block in Home::make_durable()
//   syncer    group commit, on kFile only; may block in fdatasync
//   clock     expires waiters; never blocks, so deadlines hold whatever the others wait for
// Ranks: kJournalCommit, then kJournalLists.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "journal/home.h"
#include "journal/slot_pool.h"
#include "util/clock.h"
#include "util/executor.h"
#include "util/ids.h"
#include "util/pmem.h"
#include "util/result.h"
#include "util/task.h"

namespace rmemfs {

struct JournalGeometry {
  std::uint32_t slot_bytes = 1024;   // a power of two, 256..65536; header 64 + payload
  std::uint32_t slot_count = 32768;  // 2..1048576
};

enum class CommitMode : std::uint8_t {
  kGroup,  // on kFile backing: a sync every commit_interval_ms when something is unpersisted, and on persist()
  kSync,   // every transaction is persistent before the operation returns (callers await persist(id))
};

struct JournalOptions {
  CommitMode mode = CommitMode::kGroup;
  std::uint32_t commit_interval_ms = 1000;
  std::uint32_t apply_interval_ms = 10;       // how long the applier lets transactions gather (coalescing)
  std::uint32_t durable_interval_ms = 5000;   // home is made durable at least this often when something was applied
  std::uint32_t slot_deadline_ms = 10000;     // longest wait for free slots
  std::uint32_t persist_deadline_ms = 30000;  // longest wait of persist()
  std::uint32_t stall_deadline_ms = 60000;    // longest time without progress that checkpoint() waits
};

struct JournalStatistics {
  std::uint64_t transactions = 0;   // committed
  std::uint64_t drains = 0;         // of commits: 1.00 per transaction single-threaded
  std::uint64_t syncs = 0;          // fdatasync calls
  std::uint64_t modifications = 0;  // in committed transactions
  std::uint64_t home_writes = 0;    // modifications left after coalescing; coalescing ratio = modifications / this
  std::uint64_t home_batches = 0;
  std::uint64_t home_durable = 0;  // make_durable() calls
  std::uint64_t slots_total = 0, slots_free = 0, slots_in_flight = 0, slots_in_flight_max = 0;
  std::uint64_t slot_waits = 0;  // reservations that had to wait
  CommitId last_id, applied_id, durable_id, persisted_id;
};

// Modifications of one transaction, gathered in memory in the slot's payload encoding (journal_format.h).
class TransactionBuilder {
 public:
  void put(std::string_view key, std::string_view value);
  void erase(std::string_view key);
  void merge(std::string_view key, std::string_view operand);
  std::size_t payload_bytes() const { return payload_.size(); }
  std::uint32_t count() const { return count_; }
  std::string_view payload() const { return payload_; }
  void clear();

 private:
  void append(ModificationKind kind, std::string_view key, std::string_view value);
  std::string payload_;
  std::uint32_t count_ = 0;
};

class Journal;

// Room for one transaction, taken before any lock. Returns the slots when destroyed unused.
class SlotReservation {
 public:
  SlotReservation() = default;
  SlotReservation(SlotReservation&&) noexcept;
  SlotReservation& operator=(SlotReservation&&) noexcept;
  ~SlotReservation();
  std::size_t capacity_bytes() const;  // payload that fits
  explicit operator bool() const { return journal_ != nullptr; }

 private:
  friend class Journal;
  SlotReservation(Journal* journal, const SlotChain& chain) : journal_(journal), chain_(chain) {}
  Journal* journal_ = nullptr;
  SlotChain chain_;
};

class Journal {
 public:
  // Formats a new journal in `memory` (mkfs). The memory outlives the call only.
  static Result<void> format(PersistentMemory& memory, const Uuid& file_system, const JournalGeometry& geometry);
  static std::size_t bytes_needed(const JournalGeometry& geometry);

  // Opens a journal that has been recovered (recovery/recover.h calls journal_recover() first), and starts its threads.
  // Errors: kWrongFileSystem, kCorrupt, kChecksum, kVersion, kUnsupportedFeature.
  static Result<std::unique_ptr<Journal>> open(std::unique_ptr<PersistentMemory> memory, const Uuid& file_system,
                                               Home& home, const JournalOptions& options);
  virtual ~Journal() = default;

  // Takes slots for a payload of up to `payload_bytes`; suspends while there are none, at most until the deadline
  // (kJournalFull); kStore once the home has failed, kCancelled when the journal closes. Never call it while holding
  // another reservation (J6). kTooBig if it can never fit (more than max_payload_bytes()).
  virtual Task<Result<SlotReservation>> reserve(std::size_t payload_bytes) = 0;
  // The same without waiting: empty when there is no slot now. The fast path; awaits nothing, allocates nothing.
  virtual SlotReservation try_reserve(std::size_t payload_bytes) = 0;
  virtual std::size_t max_payload_bytes() const = 0;

  // Writes the transaction into its slots, gives it the next id, makes it survive this process with one drain.
  // `request_id` is the FUSE request's unique number (0: none). The caller holds the locks of what it changes.
  // After it, the caller makes the modifications visible to readers (overlay) and then calls hand_over(id).
  virtual CommitId commit(SlotReservation reservation, const TransactionBuilder& transaction,
                          std::uint64_t request_id) = 0;
  // The applier may apply `id` from now on. Exactly once for each committed id, in any order between ids.
  virtual void hand_over(CommitId id) = 0;

  // Suspends until `id` survives the host's power loss (see Durability above). kLocalIo if the sync failed: reported
  // to every waiter of that sync; the next call tries again. kDeadline after persist_deadline_ms.
  virtual Task<Result<void>> persist(CommitId id) = 0;
  virtual CommitId persisted_id() const = 0;
  virtual CommitId last_id() const = 0;
  virtual CommitId applied_id() const = 0;

  // Called by the applier after a batch is in the home: the overlay drops what is at or below `applied`. Set once,
  // before the first commit.
  std::function<void(CommitId applied)> on_applied;
  // Called when persisted_id() has grown (freed space may be reused): by own threads, and by persist() on its caller's
  // thread. Two calls may overlap and come in any order; each is true. Set once, before the first commit.
  std::function<void(CommitId persisted)> on_persisted;
  // Called once if the home failed: the mount turns read-only. Set once, before the first commit.
  std::function<void(const Error&)> on_failure;

  // Blocks until everything committed so far is applied and durable at home. kStore if the home failed; kDeadline when
  // nothing moved for stall_deadline_ms (a transaction that nobody hands over).
  virtual Result<void> checkpoint() = 0;
  // checkpoint(), then stop the threads. No commit may follow. Destroying a journal that was not closed stops the
  // threads without a checkpoint: what was committed stays in the slots for recovery.
  virtual Result<void> close() = 0;
  virtual JournalStatistics statistics() const = 0;

 private:
  friend class SlotReservation;
  virtual std::size_t capacity_of(const SlotChain& chain) const = 0;
  virtual void give_back(const SlotChain& chain) = 0;

 protected:
  // For implementations: a reservation is made and opened by its journal only.
  static SlotReservation make_reservation(Journal* journal, const SlotChain& chain) { return {journal, chain}; }
  static SlotChain take_chain(SlotReservation& reservation) {
    reservation.journal_ = nullptr;
    return std::exchange(reservation.chain_, {});
  }
};

}  // namespace rmemfs
