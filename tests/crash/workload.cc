#include "tests/crash/workload.h"

#include <algorithm>

namespace rmemfs {
namespace {

constexpr unsigned kBackgroundWriter = 10;  // the number under which the journal's own threads act
constexpr int kPatience = 40;               // rounds of everything without progress: a deadlock

}  // namespace

Workload::Workload(SimulatedPmem& memory, SimulatedHome& home, const Uuid& file_system, Explorer& explorer,
                   const WorkloadOptions& options)
    : memory_(memory),
      home_(home),
      explorer_(explorer),
      options_(options),
      random_(options.seed),
      history_(home.crash_choices().front()) {
  acknowledged_ = committed_ = started_ = history_.base();
  auto core = JournalCore::open(memory, file_system, history_.base());
  if (!core.ok()) {
    explorer_.violation("a recovered journal does not open: " + core.error().message());
    return;
  }
  core_ = std::move(*core);
  memory_.on_point = [this](const char* what) { moment(what); };
  home_.on_point = [this](const char* what) { moment(what); };
}

Workload::~Workload() {
  memory_.on_point = nullptr;
  home_.on_point = nullptr;
}

void Workload::moment(const char* what) {
  moments_.push_back({what, memory_.crash_state(), home_.crash_choices(), acknowledged_, committed_, started_});
}

void Workload::look() {
  for (const CrashMoment& moment : moments_) explorer_.explore(moment, history_, options_.generation);
  moments_.clear();
}

void Workload::plan(Writer& writer) {
  writer.plan.clear();
  writer.transaction.clear();
  const int count = 1 + static_cast<int>(random_() % 3);
  const bool is_long = random_() % 100 < options_.long_percent;
  for (int i = 0; i < count; ++i) {
    const std::string key(1, static_cast<char>('a' + random_() % 3));
    std::string value = "<" + std::to_string(history_.base().value()) + "." + std::to_string(++serial_) + ">";
    const std::uint64_t kind = random_() % 8;
    if (options_.puts_only || kind < 4 || (is_long && i == 0)) {
      if (is_long && i == 0)
        value.resize(core_->geometry().slot_bytes, 'x');
      else if (random_() % 2 == 0)
        value.resize(40, 'p');
      writer.plan.push_back({ModificationKind::kPut, key, value});
      writer.transaction.put(key, value);
    } else if (kind < 7) {
      writer.plan.push_back({ModificationKind::kMerge, key, value});
      writer.transaction.merge(key, value);
    } else {
      writer.plan.push_back({ModificationKind::kErase, key, {}});
      writer.transaction.erase(key);
    }
  }
  writer.slots = transaction_slots(core_->geometry(), writer.transaction.payload_bytes());
  CHECK(writer.slots != 0);
}

void Workload::publish(Writer& writer) {
  // The oracle knows the transaction before the journal can show it.
  const CommitId expected = history_.add(writer.plan);
  started_ = expected;
  writer.id = core_->publish(*writer.prepared, 0);
  if (writer.id != expected) explorer_.violation("a commit id is not the next one");
  committed_ = expected;
}

void Workload::advance(Writer& writer, unsigned number) {
  memory_.set_writer(number);
  switch (writer.stage) {
    case Stage::kIdle:
      plan(writer);
      writer.held = {};
      writer.stage = Stage::kWaiting;
      [[fallthrough]];
    case Stage::kWaiting:
      if (core_->slots().take(writer.slots, writer.held)) writer.stage = Stage::kReserved;
      break;
    case Stage::kReserved:
      writer.prepared = core_->prepare(writer.held, writer.transaction);
      writer.stage = Stage::kPrepared;
      break;
    case Stage::kPrepared:
      publish(writer);
      writer.stage = Stage::kPublished;
      break;
    case Stage::kPublished:
      core_->hand_over(writer.id);
      writer.stage = Stage::kIdle;
      break;
  }
  memory_.set_writer(kBackgroundWriter);
}

void Workload::advance(Round& round) {
  if (!round.begun) {
    round.begun = core_->begin_durable();
  } else if (!round.watermark) {
    round.watermark = *home_.make_durable();
  } else {
    core_->finish_durable(*round.begun, *round.watermark);
    round = {};
  }
}

void Workload::advance_sync() {
  if (!sync_begun_) {
    sync_begun_ = core_->begin_sync();
    synced_ = false;
  } else if (!synced_) {
    CHECK(memory_.sync().ok());
    synced_ = true;
  } else {
    core_->finish_sync(*sync_begun_);
    sync_begun_.reset();
  }
}

void Workload::apply() {
  const auto applied = core_->apply_once(home_);
  if (!applied.ok()) explorer_.violation("the applier refuses: " + applied.error().message());
}

void Workload::step() {
  const std::uint64_t draw = random_() % 20;
  const auto number = static_cast<unsigned>(random_() % static_cast<unsigned>(options_.writers));
  if (draw < 12)
    advance(writers_[number], number);
  else if (draw < 14)
    apply();
  else if (draw < 18)
    advance(rounds_[random_() % rounds_.size()]);
  else if (memory_.backing() == PersistentMemory::Backing::kFile)
    advance_sync();
  // What the journal says is persistent counts as acknowledged from now on.
  acknowledged_ = std::max(acknowledged_, core_->persisted());
  look();
}

void Workload::finish() {
  int patience = kPatience;
  const auto busy = [&] {
    return std::any_of(writers_.begin(), writers_.end(), [](const Writer& w) { return w.stage != Stage::kIdle; });
  };
  while (busy() && !explorer_.violation()) {
    if (patience-- == 0) return explorer_.violation("deadlock: a writer waits for slots that nobody frees");
    for (unsigned i = 0; i < writers_.size(); ++i) {
      if (writers_[i].stage != Stage::kIdle) advance(writers_[i], i);
      look();
    }
    apply();
    look();
    for (Round& round : rounds_) {
      do advance(round);
      while (round.begun);
      look();
    }
  }
}

void Workload::run() {
  if (!core_) return;
  for (int i = 0; i < options_.steps && !explorer_.violation(); ++i) step();
  if (!explorer_.violation()) finish();
}

}  // namespace rmemfs
