// Where the invariants of journal.h are kept:
//   J1  prepare() computes the CRC of the payload, publish() continues it over the header.
//   J2  publish() gives the id and drains under commit_mutex_.
//   J4  retire_up_to() is called with the watermark that the home made durable, never more.
//   J5  Slots are found through the ring, which is indexed by id; a slot number is never kept anywhere else.
//   J6  SlotPool.
//   J7  publish() writes persisted() as it is under the lock.
// J3 is kept in journal_apply.cc, J8 in journal_recover.cc.
#include "journal/journal_core.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "journal/mutation.h"
#include "util/check.h"
#include "util/crc32c.h"

namespace rmemfs {

JournalCore::JournalCore(PersistentMemory& memory, const Uuid& file_system, const JournalGeometry& geometry,
                         std::uint32_t epoch, CommitId watermark)
    : memory_(memory),
      file_system_(file_system),
      geometry_(geometry),
      epoch_(epoch),
      drain_is_persistent_(memory.drain_is_persistent()),
      ring_mask_(std::bit_ceil(std::uint64_t{geometry.slot_count}) - 1),
      slots_(geometry.slot_count),
      ring_(ring_mask_ + 1),
      applied_(watermark.value()),
      durable_(watermark.value()),
      synced_(watermark.value()),
      last_(watermark.value()),
      retired_(watermark.value()) {}

Result<std::unique_ptr<JournalCore>> JournalCore::open(PersistentMemory& memory, const Uuid& file_system,
                                                       CommitId watermark) {
  ASSIGN_OR_RETURN(const DecodedSuperblock block, decode_superblock({memory.data(), memory.size()}, file_system, true));
  for (std::uint32_t slot = 0; slot < block.geometry.slot_count; ++slot) {
    SlotHeader header;
    std::memcpy(&header, memory.data() + slot_offset(block.geometry, slot), sizeof header);
    if constexpr (mutated(Mutation::kNoEpochStep) || mutated(Mutation::kClearDescending)) break;
    if (header.id != 0 && header.epoch == block.epoch &&
        std::memcmp(header.uuid, file_system.bytes.data(), sizeof header.uuid) == 0) {
      return Error(Errc::kInvalid, "journal open", "the journal has not been recovered");
    }
  }
  return std::unique_ptr<JournalCore>(new JournalCore(memory, file_system, block.geometry, block.epoch, watermark));
}

CommitId JournalCore::persisted() const {
  if (drain_is_persistent_) return last();
  return std::max(CommitId(synced_.load(std::memory_order_acquire)), durable());
}

// Cuts the payload over the slots, flushes it and returns its CRC.
std::uint32_t JournalCore::write_payload(const SlotChain& chain, std::string_view payload) {
  const std::size_t per_slot = slot_payload_bytes(geometry_);
  const std::size_t list_bytes = (chain.count - 1) * sizeof(std::uint32_t);
  std::uint32_t crc = 0;
  std::uint32_t slot = chain.first;
  for (std::uint32_t index = 0; index < chain.count; ++index) {
    std::byte* const at = slot_data(slot);
    std::byte* to = at + kSlotHeaderBytes;
    std::size_t used = 0;
    if (index == 0) {
      std::uint32_t listed = slot;
      for (; used < list_bytes; used += sizeof listed) {
        listed = slots_.next(listed);
        store_le(to + used, listed);
      }
    } else {
      const SlotHeader header = continuation_header(file_system_, epoch_, chain.first, index);
      std::memcpy(at, &header, sizeof header);
    }
    const std::size_t part = std::min(per_slot - used, payload.size());
    std::memcpy(to + used, payload.data(), part);
    payload.remove_prefix(part);
    crc = crc32c({to, used + part}, crc);
    if constexpr (!mutated(Mutation::kNoPayloadFlush)) {
      std::byte* const from = index == 0 ? to : at;
      memory_.flush(from, static_cast<std::size_t>(to - from) + used + part);
    }
    if (index + 1 < chain.count) slot = slots_.next(slot);
  }
  return crc;
}

JournalCore::Prepared JournalCore::prepare(SlotChain chain, const TransactionBuilder& transaction) {
  const std::uint32_t needed = transaction_slots(geometry_, transaction.payload_bytes());
  CHECK(needed != 0 && needed <= chain.count);
  if (needed < chain.count) slots_.put(slots_.cut(chain, needed));
  Prepared prepared{chain, {}, write_payload(chain, transaction.payload())};
  SlotHeader& header = prepared.header;
  std::memcpy(header.uuid, file_system_.bytes.data(), sizeof header.uuid);
  header.epoch = epoch_;
  header.length = static_cast<std::uint32_t>(transaction.payload_bytes());
  header.entry_count = transaction.count();
  header.continuation_count = needed - 1;
  return prepared;
}

CommitId JournalCore::publish(const Prepared& prepared, std::uint64_t request_id) {
  SlotHeader header = prepared.header;
  header.request_id = request_id;
  std::byte* const to = slot_data(prepared.chain.first);

  MutexLock lock(commit_mutex_);
  const std::uint64_t id = last_.load(std::memory_order_relaxed) + 1;
  header.id = id;
  header.persisted = persisted().value();
  if constexpr (mutated(Mutation::kPersistedClaimsSelf)) header.persisted = id;
  seal_slot_header(header, prepared.payload_crc);
  std::memcpy(to, &header, sizeof header);
  memory_.flush(to, sizeof header);
  if constexpr (!mutated(Mutation::kNoDrain)) memory_.drain();

  InFlight& entry = in_flight(CommitId(id));
  CHECK(entry.state.load(std::memory_order_relaxed) == State::kUnused);
  entry.chain = prepared.chain;
  entry.state.store(State::kCommitted, std::memory_order_release);
  ++transactions_;
  ++drains_;
  modifications_ += header.entry_count;
  last_.store(id, std::memory_order_release);
  return CommitId(id);
}

void JournalCore::hand_over(CommitId id) {
  // Sequentially consistent: the caller looks next at whether the applier sleeps, and the applier looks here before it
  // does.
  const State before = in_flight(id).state.exchange(State::kHandedOver, std::memory_order_seq_cst);
  CHECK(before == State::kCommitted);
}

bool JournalCore::handed_over(CommitId id) const {
  // The ring entry of an id that does not exist yet may still belong to one that is a whole ring older. The state is
  // read first: who sees it handed over also sees a last() that is not older.
  return in_flight(id).state.load(std::memory_order_seq_cst) == State::kHandedOver && id <= last();
}

JournalCore::DurableRound JournalCore::begin_durable() const {
  DurableRound round{applied(), {}};
  if constexpr (mutated(Mutation::kRetireBySlot)) {
    for (CommitId id = durable().next(); id <= round.applied; id = id.next()) {
      std::uint32_t slot = in_flight(id).chain.first;
      for (std::uint32_t i = 0; i < in_flight(id).chain.count; ++i, slot = slots_.next(slot))
        round.slots.push_back(slot);
    }
  }
  return round;
}

void JournalCore::finish_durable(const DurableRound& round, CommitId watermark) {
  home_durable_.fetch_add(1, std::memory_order_relaxed);
  // A home that claims more than it was given is not believed.
  const std::uint64_t covered = std::min(watermark, round.applied).value();
  if (covered > durable_.load(std::memory_order_relaxed)) durable_.store(covered, std::memory_order_release);
  retire_up_to(mutated(Mutation::kFreeAboveDurable) ? applied() : durable());
  if constexpr (mutated(Mutation::kRetireBySlot)) {
    for (const std::uint32_t slot : round.slots) slots_.put_by_number(slot);
  }
}

void JournalCore::retire_up_to(CommitId watermark) {
  SlotChain freed;
  while (retired_ < watermark.value()) {
    InFlight& entry = in_flight(CommitId(++retired_));
    if constexpr (mutated(Mutation::kClearDescending)) {
      // The scheme that this mutation gets wrong in recovery alone: here it clears in ascending order, each for good.
      std::memset(slot_data(entry.chain.first), 0, kSlotHeaderBytes);
      memory_.persist(slot_data(entry.chain.first), kSlotHeaderBytes);
    }
    slots_.join(freed, entry.chain);
    entry.state.store(State::kUnused, std::memory_order_relaxed);
  }
  // The pool's lock orders the ring entries above before whoever takes these slots.
  if constexpr (!mutated(Mutation::kRetireBySlot)) slots_.put(freed);
}

void JournalCore::finish_sync(CommitId covered) {
  if constexpr (mutated(Mutation::kSyncCoversLater)) covered = last();
  syncs_.fetch_add(1, std::memory_order_relaxed);
  if (covered.value() > synced_.load(std::memory_order_relaxed)) {
    synced_.store(covered.value(), std::memory_order_release);
  }
}

void JournalCore::count(JournalStatistics& statistics) const {
  {
    MutexLock lock(commit_mutex_);
    statistics.transactions = transactions_;
    statistics.drains = drains_;
    statistics.modifications = modifications_;
  }
  statistics.syncs = syncs_.load(std::memory_order_relaxed);
  statistics.home_writes = home_writes_.load(std::memory_order_relaxed);
  statistics.home_batches = home_batches_.load(std::memory_order_relaxed);
  statistics.home_durable = home_durable_.load(std::memory_order_relaxed);
  statistics.slots_total = geometry_.slot_count;
  statistics.slots_free = slots_.free_count();
  statistics.slots_in_flight = statistics.slots_total - statistics.slots_free;
  statistics.slots_in_flight_max = statistics.slots_total - slots_.least_free();
  statistics.last_id = last();
  statistics.applied_id = applied();
  statistics.durable_id = durable();
  statistics.persisted_id = persisted();
}

}  // namespace rmemfs
