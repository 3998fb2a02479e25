// What the journal's tests share: a home in memory that can be told to fail, and memory that outlives a journal.
#pragma once

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "journal/journal.h"
#include "journal/journal_format.h"
#include "journal/journal_reader.h"
#include "util/check.h"
#include "util/crc32c.h"
#include "util/executor.h"

namespace rmemfs {

// What is applied is durable after make_durable() only; reopened() is what a new process would find.
class TestHome final : public Home {
 public:
  Result<void> apply(std::span<const Modification> modifications, CommitId applied) override {
    if (fail_apply) return Error(Errc::kStore, "test home");
    std::lock_guard lock(mutex_);
    for (const Modification& m : modifications) {
      switch (m.kind) {
        case ModificationKind::kPut:
          keys_[std::string(m.key)] = m.value;
          break;
        case ModificationKind::kErase:
          keys_.erase(std::string(m.key));
          break;
        case ModificationKind::kMerge:
          keys_[std::string(m.key)].append(m.value);
          break;
      }
    }
    if (applied <= applied_) went_back = true;
    applied_ = applied;
    writes += modifications.size();
    ++batches;
    return success();
  }
  Result<CommitId> make_durable() override {
    if (fail_durable) return Error(Errc::kStore, "test home");
    while (hold_durable) std::this_thread::yield();
    std::lock_guard lock(mutex_);
    durable_keys_ = keys_;
    durable_ = applied_;
    return durable_;
  }
  CommitId durable_watermark() const override { return opened_; }

  void reopen() {  // power loss of the home
    std::lock_guard lock(mutex_);
    keys_ = durable_keys_;
    applied_ = opened_ = durable_;
  }
  std::string get(const std::string& key) const {
    std::lock_guard lock(mutex_);
    const auto at = keys_.find(key);
    return at == keys_.end() ? "" : at->second;
  }
  std::size_t size() const {
    std::lock_guard lock(mutex_);
    return keys_.size();
  }

  std::atomic<bool> fail_apply{false}, fail_durable{false}, hold_durable{false}, went_back{false};
  std::atomic<std::uint64_t> writes{0}, batches{0};

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::string> keys_, durable_keys_;
  CommitId applied_, durable_, opened_;
};

// Bytes that stay when the journal that used them is gone.
struct Media {
  alignas(4096) std::byte bytes[1 << 20] = {};
};

class MediaMemory final : public PersistentMemory {
 public:
  MediaMemory(Media& media, std::size_t size, Backing backing) : PersistentMemory(media.bytes, size, backing) {}
  void flush(const void*, std::size_t) override { ++flushes; }
  void drain() override { ++drains; }
  Result<void> sync() override {
    while (hold_sync) std::this_thread::yield();
    ++syncs;
    if (fail_sync) return Error(Errc::kLocalIo, "test sync");
    return success();
  }
  std::atomic<std::uint64_t> flushes{0}, drains{0}, syncs{0};
  std::atomic<bool> fail_sync{false}, hold_sync{false};
};

struct JournalFixture {
  static constexpr JournalGeometry kGeometry{256, 16};
  using Backing = PersistentMemory::Backing;

  const Uuid uuid = Uuid::random();
  std::unique_ptr<Media> media = std::make_unique<Media>();
  TestHome home;
  JournalOptions options{.apply_interval_ms = 1, .durable_interval_ms = 50};
  LoopExecutor executor;
  MediaMemory* memory = nullptr;  // of the open journal
  std::unique_ptr<Journal> journal;

  std::unique_ptr<MediaMemory> map(const JournalGeometry& geometry = kGeometry, Backing backing = Backing::kForced) {
    CHECK(Journal::bytes_needed(geometry) <= sizeof media->bytes);
    return std::make_unique<MediaMemory>(*media, Journal::bytes_needed(geometry), backing);
  }
  void format(const JournalGeometry& geometry = kGeometry) {
    auto mapped = map(geometry);
    if (!Journal::format(*mapped, uuid, geometry).ok()) std::abort();
  }
  void open(const JournalGeometry& geometry = kGeometry, Backing backing = Backing::kForced) {
    auto mapped = map(geometry, backing);
    memory = mapped.get();
    auto opened = Journal::open(std::move(mapped), uuid, home, options);
    if (!opened.ok()) std::abort();
    journal = std::move(*opened);
  }
  Result<RecoveryReport> recover(bool accept_gap = false, const JournalGeometry& geometry = kGeometry) {
    auto mapped = map(geometry);
    return recover_journal(*mapped, uuid, home, accept_gap);
  }
  Result<JournalScan> scan(CommitId watermark = {}, const JournalGeometry& geometry = kGeometry) {
    auto mapped = map(geometry);
    return scan_journal(*mapped, uuid, watermark);
  }
  SlotReservation reserve(std::size_t bytes) {
    auto room = executor.run(journal->reserve(bytes));
    if (!room.ok()) std::abort();
    return std::move(*room);
  }
  CommitId commit(const TransactionBuilder& transaction, std::uint64_t request = 0) {
    return journal->commit(reserve(transaction.payload_bytes()), transaction, request);
  }
  CommitId put(const std::string& key, const std::string& value) {
    TransactionBuilder transaction;
    transaction.put(key, value);
    const CommitId id = commit(transaction);
    journal->hand_over(id);
    return id;
  }
  // Transactions that stay in their slots: committed, never handed over.
  void leave_in_slots(int count) {
    for (int i = 1; i <= count; ++i) {
      TransactionBuilder transaction;
      transaction.put("key" + std::to_string(i), "value" + std::to_string(i));
      commit(transaction, 100 + i);
    }
    journal.reset();
  }
  // The slot that holds `id`.
  std::byte* slot_of(std::uint64_t id, const JournalGeometry& geometry = kGeometry) {
    for (std::uint32_t slot = 0; slot < geometry.slot_count; ++slot) {
      std::byte* at = media->bytes + slot_offset(geometry, slot);
      if (load_le<std::uint64_t>(at + offsetof(SlotHeader, id)) == id && load_le<std::uint32_t>(at) != 0) return at;
    }
    std::abort();
  }
};

}  // namespace rmemfs
