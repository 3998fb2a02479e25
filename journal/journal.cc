// The journal's threads around JournalCore.
//
// Nothing on the way of a commit enters the kernel: the applier wakes by itself every apply_interval_ms while there is
// work, and is woken by a commit only when it has slept because there was none for long, or (once per round of home
// durability) when free slots run low.
//
// Who makes room (J6): a waiter wakes the applier and the home thread; after each batch the applier wakes the home
// thread again while somebody waits, slots are low or a checkpoint is on. So a waiter is never forgotten, whichever of
// the two was late.
//
// After a failure of the home nothing is applied any more: waiters and later reservations get kStore. What was
// committed stays in its slots, and recovery replays it.
#include "journal/journal.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "journal/group_commit.h"
#include "journal/journal_core.h"
#include "journal/mutation.h"
#include "util/check.h"
#include "util/log.h"

namespace rmemfs {
namespace {

using namespace std::chrono_literals;

constexpr int kQuietIntervals = 64;   // empty apply intervals before the applier sleeps until it is woken
constexpr auto kClockTick = 10ms;     // precision of deadlines
constexpr auto kGrace = 1000ms;       // after a freeze
constexpr auto kProgressTick = 50ms;  // how often a checkpoint looks again

class JournalImpl final : public Journal {
 public:
  JournalImpl(std::unique_ptr<PersistentMemory> memory, std::unique_ptr<JournalCore> core, Home& home,
              const JournalOptions& options)
      : memory_(std::move(memory)),
        core_(std::move(core)),
        home_(home),
        options_(options),
        low_water_(core_->geometry().slot_count / 2),
        notified_(core_->persisted().value()) {
    applier_ = std::thread([this] { run_applier(); });
    home_thread_ = std::thread([this] { run_home(); });
    clock_ = std::thread([this] { run_clock(); });
    if (!memory_->drain_is_persistent()) syncer_ = std::thread([this] { run_syncer(); });
  }
  ~JournalImpl() override { stop(); }
  JournalImpl(const JournalImpl&) = delete;
  JournalImpl& operator=(const JournalImpl&) = delete;

  Task<Result<SlotReservation>> reserve(std::size_t payload_bytes) override;
  SlotReservation try_reserve(std::size_t payload_bytes) override;
  std::size_t max_payload_bytes() const override {
    return transaction_capacity(core_->geometry(), max_transaction_slots(core_->geometry()));
  }
  CommitId commit(SlotReservation reservation, const TransactionBuilder& transaction,
                  std::uint64_t request_id) override;
  void hand_over(CommitId id) override;
  Task<Result<void>> persist(CommitId id) override;
  CommitId persisted_id() const override { return core_->persisted(); }
  CommitId last_id() const override { return core_->last(); }
  CommitId applied_id() const override { return core_->applied(); }
  Result<void> checkpoint() override;
  Result<void> close() override;
  JournalStatistics statistics() const override;

 private:
  std::size_t capacity_of(const SlotChain& chain) const override {
    return transaction_capacity(core_->geometry(), chain.count);
  }
  void give_back(const SlotChain& chain) override { core_->slots().put(chain); }

  void run_applier();
  void run_home();
  void run_syncer();
  void run_clock();
  bool apply_all();
  bool make_home_durable();
  void stop();
  void fail(const Error& error);
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  void make_room();
  void wake_sync();
  void arm_clock();
  void notify_persisted();
  bool room_is_wanted() const;

  // Constant after construction.
  const std::unique_ptr<PersistentMemory> memory_;
  const std::unique_ptr<JournalCore> core_;
  Home& home_;
  const JournalOptions options_;
  const std::uint32_t low_water_;
  // With their own synchronization.
  GroupCommit group_;
  std::atomic<std::uint64_t> notified_;  // highest id that on_persisted was told
  std::atomic<std::uint64_t> slot_waits_{0};
  std::atomic<std::uint32_t> checkpoints_{0};  // running
  std::atomic<bool> applier_asleep_{false};    // until somebody wakes it
  std::atomic<bool> room_asked_{false};        // slots ran low and the threads were told; until a round made room
  std::atomic<bool> failed_{false};
  // Guarded by mutex_, with which the threads sleep. No other lock is taken under it.
  std::mutex mutex_;
  std::condition_variable applier_wakeup_, home_wakeup_, syncer_wakeup_, clock_wakeup_, progress_;
  bool apply_now_ = false;
  bool room_now_ = false;
  bool sync_now_ = false;
  bool clock_armed_ = false;
  bool stopping_ = false;
  std::thread applier_, home_thread_, syncer_, clock_;
};

SlotReservation JournalImpl::try_reserve(std::size_t payload_bytes) {
  const std::uint32_t count = transaction_slots(core_->geometry(), payload_bytes);
  SlotChain chain;
  if (count == 0 || failed() || !core_->slots().take(count, chain)) return {};
  if (!mutated(Mutation::kNobodyDrains) && core_->slots().free_count() < low_water_ &&
      !room_asked_.load(std::memory_order_relaxed) && !room_asked_.exchange(true)) {
    make_room();
  }
  return make_reservation(this, chain);
}

Task<Result<SlotReservation>> JournalImpl::reserve(std::size_t payload_bytes) {
  const std::uint32_t count = transaction_slots(core_->geometry(), payload_bytes);
  if (count == 0) co_return Error(Errc::kTooBig, "journal reserve");
  if (failed()) co_return Error(Errc::kStore, "journal reserve");
  SlotReservation at_once = try_reserve(payload_bytes);
  if (at_once) co_return std::move(at_once);
  SlotPool::Waiter waiter{core_->slots(), count, deadline_after_ms(options_.slot_deadline_ms), [this] {
                            slot_waits_.fetch_add(1, std::memory_order_relaxed);
                            arm_clock();
                            if (!mutated(Mutation::kNobodyDrains)) make_room();
                          }};
  const SlotPool::Outcome outcome = co_await waiter;
  switch (outcome) {
    case SlotPool::Outcome::kGranted:
      break;
    case SlotPool::Outcome::kDeadline:
      co_return Error(Errc::kJournalFull, "journal reserve");
    case SlotPool::Outcome::kClosed:
      co_return Error(failed() ? Errc::kStore : Errc::kCancelled, "journal reserve");
  }
  co_return make_reservation(this, waiter.held);
}

CommitId JournalImpl::commit(SlotReservation reservation, const TransactionBuilder& transaction,
                             std::uint64_t request_id) {
  const SlotChain chain = take_chain(reservation);
  return core_->publish(core_->prepare(chain, transaction), request_id);
}

void JournalImpl::hand_over(CommitId id) {
  core_->hand_over(id);
  if (!applier_asleep_.load(std::memory_order_seq_cst)) return;
  std::lock_guard lock(mutex_);
  applier_asleep_ = false;
  applier_wakeup_.notify_one();
}

Task<Result<void>> JournalImpl::persist(CommitId id) {
  CHECK(id <= core_->last());
  if (core_->persisted() < id) {
    GroupCommit::Waiter waiter{group_, deadline_after_ms(options_.persist_deadline_ms), [this] {
                                 arm_clock();
                                 wake_sync();
                               }};
    Result<void> result = co_await waiter;
    CO_RETURN_IF_ERROR(std::move(result));
  }
  notify_persisted();
  co_return success();
}

// Applies everything that is handed over. False when the home failed.
bool JournalImpl::apply_all() {
  bool any = false;
  while (!failed()) {
    const Result<std::size_t> applied = core_->apply_once(home_);
    if (!applied.ok()) {
      fail(applied.error());
      return false;
    }
    if (*applied == 0) break;
    any = true;
    if (on_applied) on_applied(core_->applied());
    if (room_is_wanted()) {
      std::lock_guard lock(mutex_);
      room_now_ = true;
      home_wakeup_.notify_one();
    }
  }
  if (any) notify_persisted();
  return any;
}

void JournalImpl::run_applier() {
  int quiet = 0;
  for (bool stopping = false; !stopping;) {
    {
      std::unique_lock lock(mutex_);
      const auto roused = [&] { return stopping_ || apply_now_; };
      if (quiet >= kQuietIntervals && !roused()) {
        applier_asleep_.store(true, std::memory_order_seq_cst);
        // Who handed over before it could see the flag is seen here; who hands over later sees the flag.
        applier_wakeup_.wait(lock,
                             [&] { return roused() || !applier_asleep_ || (!failed() && core_->anything_to_apply()); });
        applier_asleep_ = false;
        quiet = 0;
      }
      applier_wakeup_.wait_for(lock, std::chrono::milliseconds(options_.apply_interval_ms), roused);
      apply_now_ = false;
      stopping = stopping_;
    }
    quiet = apply_all() ? 0 : quiet + 1;
  }
}

bool JournalImpl::make_home_durable() {
  const JournalCore::DurableRound round = core_->begin_durable();
  const CommitId before = core_->durable();
  if (failed() || round.applied <= before) return false;
  const Result<CommitId> watermark = home_.make_durable();
  if (!watermark.ok()) {
    fail(watermark.error());
    return false;
  }
  room_asked_.store(false);
  core_->finish_durable(round, *watermark);
  notify_persisted();
  {
    std::lock_guard lock(mutex_);
    progress_.notify_all();
  }
  return core_->durable() > before;
}

void JournalImpl::run_home() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      home_wakeup_.wait_for(lock, std::chrono::milliseconds(options_.durable_interval_ms),
                            [&] { return stopping_ || room_now_; });
      room_now_ = false;
      if (stopping_) return;
    }
    make_home_durable();
  }
}

void JournalImpl::run_syncer() {
  for (bool stopping = false; !stopping;) {
    {
      std::unique_lock lock(mutex_);
      syncer_wakeup_.wait_for(lock, std::chrono::milliseconds(options_.commit_interval_ms),
                              [&] { return stopping_ || sync_now_; });
      sync_now_ = false;
      stopping = stopping_;
    }
    if (stopping || (core_->last() == core_->persisted() && !group_.anyone_waits())) continue;
    group_.begin();
    const CommitId covered = core_->begin_sync();
    const Result<void> result = memory_->sync();
    if (result.ok())
      core_->finish_sync(covered);
    else
      log::error("journal: {}; it will be tried again", result.error().message());
    group_.finish(result);
    notify_persisted();
  }
}

void JournalImpl::run_clock() {
  FreezeWatch watch;
  TimePoint held{};  // nobody's deadline is judged before: after a freeze the other threads have something to catch up
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!clock_armed_) {
      clock_wakeup_.wait(lock, [&] { return stopping_ || clock_armed_; });
      watch.begin(MonoClock::now());
      continue;
    }
    clock_wakeup_.wait_for(lock, kClockTick, [&] { return stopping_; });
    clock_armed_ = false;
    lock.unlock();
    const TimePoint now = MonoClock::now();
    if (watch.frozen(now) != Duration::zero()) held = now + kGrace;
    if (now >= held) {
      core_->slots().expire(now);
      group_.expire(now);
    }
    const bool go_on = core_->slots().anyone_waits() || group_.waiting() != 0;
    lock.lock();
    if (go_on) clock_armed_ = true;
  }
}

void JournalImpl::make_room() {
  std::lock_guard lock(mutex_);
  apply_now_ = true;
  room_now_ = true;
  applier_wakeup_.notify_one();
  home_wakeup_.notify_one();
}

void JournalImpl::wake_sync() {
  std::lock_guard lock(mutex_);
  sync_now_ = true;
  syncer_wakeup_.notify_one();
}

void JournalImpl::arm_clock() {
  std::lock_guard lock(mutex_);
  clock_armed_ = true;
  clock_wakeup_.notify_one();
}

bool JournalImpl::room_is_wanted() const {
  if (mutated(Mutation::kNobodyDrains)) return checkpoints_.load() != 0;
  return core_->slots().anyone_waits() || core_->slots().free_count() < low_water_ || checkpoints_.load() != 0;
}

void JournalImpl::notify_persisted() {
  const std::uint64_t now = core_->persisted().value();
  std::uint64_t before = notified_.load(std::memory_order_acquire);
  while (before < now) {
    if (!notified_.compare_exchange_weak(before, now, std::memory_order_acq_rel)) continue;
    if (on_persisted) on_persisted(CommitId(now));
    return;
  }
}

void JournalImpl::fail(const Error& error) {
  if (failed_.exchange(true)) return;
  log::error("journal: the metadata store failed: {}", error.message());
  core_->slots().close();
  {
    std::lock_guard lock(mutex_);
    progress_.notify_all();
  }
  if (on_failure) on_failure(error);
}

Result<void> JournalImpl::checkpoint() {
  const CommitId target = core_->last();
  checkpoints_.fetch_add(1);
  make_room();
  CommitId applied = core_->applied();
  CommitId durable = core_->durable();
  TimePoint deadline = deadline_after_ms(options_.stall_deadline_ms);
  Result<void> result = success();
  while (core_->durable() < target) {
    if (failed()) {
      result = Error(Errc::kStore, "journal checkpoint");
      break;
    }
    if (applied != core_->applied() || durable != core_->durable()) {
      applied = core_->applied();
      durable = core_->durable();
      deadline = deadline_after_ms(options_.stall_deadline_ms);
    } else if (MonoClock::now() > deadline) {
      result = Error(Errc::kDeadline, "journal checkpoint");
      break;
    }
    std::unique_lock lock(mutex_);
    if (core_->durable() < target && !failed()) progress_.wait_for(lock, kProgressTick);
  }
  checkpoints_.fetch_sub(1);
  return result;
}

Result<void> JournalImpl::close() {
  const Result<void> result = checkpoint();
  stop();
  // What did not get home must survive in the slots.
  if (!result.ok()) RETURN_IF_ERROR(memory_->sync());
  return result;
}

void JournalImpl::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    applier_wakeup_.notify_all();
    home_wakeup_.notify_all();
    syncer_wakeup_.notify_all();
    clock_wakeup_.notify_all();
  }
  for (std::thread* thread : {&applier_, &home_thread_, &syncer_, &clock_}) {
    if (thread->joinable()) thread->join();
  }
  core_->slots().close();
  group_.close();
}

JournalStatistics JournalImpl::statistics() const {
  JournalStatistics statistics;
  core_->count(statistics);
  statistics.slot_waits = slot_waits_.load(std::memory_order_relaxed);
  return statistics;
}

}  // namespace

SlotReservation::SlotReservation(SlotReservation&& other) noexcept
    : journal_(std::exchange(other.journal_, nullptr)), chain_(std::exchange(other.chain_, {})) {}

SlotReservation& SlotReservation::operator=(SlotReservation&& other) noexcept {
  std::swap(journal_, other.journal_);
  std::swap(chain_, other.chain_);
  return *this;
}

SlotReservation::~SlotReservation() {
  if (journal_ != nullptr) journal_->give_back(chain_);
}

std::size_t SlotReservation::capacity_bytes() const { return journal_ == nullptr ? 0 : journal_->capacity_of(chain_); }

Result<std::unique_ptr<Journal>> Journal::open(std::unique_ptr<PersistentMemory> memory, const Uuid& file_system,
                                               Home& home, const JournalOptions& options) {
  // The home says what it has at opening; recovery in this process may have applied more, which make_durable() says.
  ASSIGN_OR_RETURN(const CommitId now_durable, home.make_durable());
  const CommitId watermark = std::max(home.durable_watermark(), now_durable);
  ASSIGN_OR_RETURN(auto core, JournalCore::open(*memory, file_system, watermark));
  return std::unique_ptr<Journal>(std::make_unique<JournalImpl>(std::move(memory), std::move(core), home, options));
}

}  // namespace rmemfs
