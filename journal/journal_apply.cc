// J3: one batch takes the ids that follow the applied one as far as they are handed over, merges them, and brings them
// home together with the last of them as the watermark. So the home is at every moment a prefix of the commit order.
// Locks of inodes are not needed for it: a later transaction of the same key has a higher id.
// It does not free slots: applied is not durable (J4).
#include "journal/journal_core.h"
#include "journal/mutation.h"

namespace rmemfs {
namespace {

// Bounds of one batch: what the home must hold in memory at once.
constexpr std::size_t kBatchTransactions = 8192;
constexpr std::size_t kBatchBytes = std::size_t{4} << 20;

}  // namespace

Result<void> JournalCore::gather(CommitId id) {
  const SlotChain& chain = in_flight(id).chain;
  std::string unused;
  std::string& storage = chain.count > 1 ? coalescer_.storage() : unused;
  const DecodedSlot slot = decode_slot({memory_.data(), memory_.size()}, geometry_, file_system_, chain.first, storage);
  // Nobody writes to a slot in flight; if it reads back differently, memory is failing and must not reach the home.
  if (slot.content != SlotContent::kTransaction || slot.header.id != id.value()) {
    return Error(Errc::kChecksum, "journal apply", "transaction " + std::to_string(id.value()));
  }
  parsed_.clear();
  RETURN_IF_ERROR(parse_modifications(slot.modifications, slot.header.entry_count, parsed_));
  coalescer_.add(parsed_);
  return success();
}

Result<void> JournalCore::write_batch(Home& home, CommitId to) {
  const auto modifications = coalescer_.coalesced();
  home_writes_.fetch_add(modifications.size(), std::memory_order_relaxed);
  home_batches_.fetch_add(1, std::memory_order_relaxed);
  if constexpr (mutated(Mutation::kWatermarkAfterData)) {
    RETURN_IF_ERROR(home.apply(modifications, applied()));
    return home.apply({}, to);
  } else if constexpr (mutated(Mutation::kWatermarkBeforeData)) {
    RETURN_IF_ERROR(home.apply({}, to));
    return home.apply(modifications, to);
  } else if constexpr (mutated(Mutation::kWatermarkBackwards)) {
    RETURN_IF_ERROR(home.apply(modifications, to));
    return home.apply({}, applied());
  } else {
    return home.apply(modifications, to);
  }
}

Result<std::size_t> JournalCore::apply_once(Home& home) {
  coalescer_.clear();
  CommitId to = applied();
  std::size_t transactions = 0;
  std::size_t bytes = 0;
  const CommitId last_committed = last();
  for (CommitId id = to.next(); id <= last_committed; id = id.next()) {
    if (transactions == kBatchTransactions || bytes >= kBatchBytes) break;
    if (!handed_over(id)) {
      if constexpr (mutated(Mutation::kApplyOutOfOrder)) continue;
      break;
    }
    RETURN_IF_ERROR(gather(id));
    bytes += std::size_t{in_flight(id).chain.count} * geometry_.slot_bytes;
    to = id;
    ++transactions;
  }
  if (transactions == 0) return std::size_t{0};
  RETURN_IF_ERROR(write_batch(home, to));
  applied_.store(to.value(), std::memory_order_release);
  if constexpr (mutated(Mutation::kFreeAfterApply)) retire_up_to(to);
  return transactions;
}

}  // namespace rmemfs
