#include "tests/support/simulated_pmem.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "util/check.h"

namespace rmemfs {
namespace {

std::byte* allocate_pages(std::size_t size) {
  return static_cast<std::byte*>(::operator new[](size, std::align_val_t{4096}));
}

}  // namespace

SimulatedPmem::SimulatedPmem(std::vector<std::byte> contents, Backing backing, std::uint64_t seed)
    : PersistentMemory(nullptr, 0, backing),
      unit_bytes_(backing == Backing::kFile ? 4096 : 64),
      atom_bytes_(backing == Backing::kFile ? 512 : 8),
      durable_(std::move(contents)),
      random_(seed) {
  durable_.resize((durable_.size() + unit_bytes_ - 1) / unit_bytes_ * unit_bytes_);
  storage_.reset(allocate_pages(durable_.size()));
  data_ = storage_.get();
  size_ = durable_.size();
  std::memcpy(data_, durable_.data(), size_);
  units_.resize(size_ / unit_bytes_);
}

std::span<const std::byte> SimulatedPmem::latest(std::size_t unit) const {
  const auto& versions = units_[unit].versions;
  if (!versions.empty()) return versions.back().bytes;
  return {durable_.data() + unit * unit_bytes_, unit_bytes_};
}

void SimulatedPmem::take_version(std::size_t unit) {
  const auto before = latest(unit);
  const auto now = seen(unit);
  if (std::memcmp(before.data(), now.data(), unit_bytes_) == 0) return;
  // One torn version between the two: some of the changed atoms are new, some are not.
  std::vector<std::byte> torn(before.begin(), before.end());
  std::size_t changed = 0;
  for (std::size_t at = 0; at < unit_bytes_; at += atom_bytes_) {
    if (std::memcmp(torn.data() + at, now.data() + at, atom_bytes_) == 0) continue;
    ++changed;
    if (random_() & 1) std::memcpy(torn.data() + at, now.data() + at, atom_bytes_);
  }
  auto& versions = units_[unit].versions;
  if (changed > 1) versions.push_back({std::move(torn), 0});
  versions.push_back({{now.begin(), now.end()}, 0});
}

void SimulatedPmem::settle(std::size_t unit, std::size_t count) {
  auto& versions = units_[unit].versions;
  std::memcpy(durable_.data() + unit * unit_bytes_, versions[count - 1].bytes.data(), unit_bytes_);
  versions.erase(versions.begin(), versions.begin() + static_cast<std::ptrdiff_t>(count));
}

void SimulatedPmem::observe() {
  for (std::size_t unit = 0; unit < units_.size(); ++unit) take_version(unit);
}

void SimulatedPmem::flush(const void* address, std::size_t length) {
  observe();
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(address) - data_);
  CHECK(offset + length <= size_);
  if (backing_ != Backing::kFile && length != 0) {
    for (std::size_t unit = offset / unit_bytes_; unit <= (offset + length - 1) / unit_bytes_; ++unit) {
      if (!units_[unit].versions.empty()) units_[unit].versions.back().flushed_by |= std::uint64_t{1} << writer_;
    }
  }
  point("flush");
}

void SimulatedPmem::drain() {
  ++drains_;
  observe();
  point("before drain");
  if (backing_ == Backing::kFile) return;
  for (std::size_t unit = 0; unit < units_.size(); ++unit) {
    auto& versions = units_[unit].versions;
    for (std::size_t count = versions.size(); count > 0; --count) {
      if ((versions[count - 1].flushed_by >> writer_ & 1) == 0) continue;
      settle(unit, count);
      break;
    }
  }
  point("drain");
}

Result<void> SimulatedPmem::sync() {
  if (backing_ != Backing::kFile) return success();
  observe();
  point("before sync");
  if (std::exchange(fail_sync_, false)) return Error(Errc::kLocalIo, "simulated sync");
  for (std::size_t unit = 0; unit < units_.size(); ++unit) {
    if (!units_[unit].versions.empty()) settle(unit, units_[unit].versions.size());
  }
  point("sync");
  return success();
}

CrashState SimulatedPmem::crash_state() const {
  CrashState state{durable_, {}};
  for (std::size_t unit = 0; unit < units_.size(); ++unit) {
    if (units_[unit].versions.empty()) continue;
    CrashState::Unit choices{unit * unit_bytes_, {}};
    const auto* durable = durable_.data() + unit * unit_bytes_;
    choices.choices.emplace_back(durable, durable + unit_bytes_);
    for (const Version& version : units_[unit].versions) choices.choices.push_back(version.bytes);
    state.units.push_back(std::move(choices));
  }
  return state;
}

std::vector<std::byte> CrashState::image(std::span<const std::uint8_t> choice) const {
  std::vector<std::byte> bytes = durable;
  for (std::size_t i = 0; i < units.size(); ++i) {
    const auto& from = units[i].choices[choice[i]];
    std::memcpy(bytes.data() + units[i].offset, from.data(), from.size());
  }
  return bytes;
}

std::vector<std::byte> CrashState::newest() const {
  std::vector<std::byte> bytes = durable;
  for (const Unit& unit : units) {
    std::memcpy(bytes.data() + unit.offset, unit.choices.back().data(), unit.choices.back().size());
  }
  return bytes;
}

void CrashState::for_each_choice(std::size_t limit, std::mt19937_64& random,
                                 const std::function<bool(std::span<const std::uint8_t>)>& visit) const {
  std::vector<std::uint8_t> choice(units.size(), 0);
  std::size_t combinations = 1;
  for (const Unit& unit : units) {
    CHECK(unit.choices.size() < 256);
    if (combinations <= limit) combinations *= unit.choices.size();
  }
  if (combinations <= limit) {
    for (;;) {
      if (!visit(choice)) return;
      std::size_t at = 0;
      while (at < units.size() && ++choice[at] == units[at].choices.size()) choice[at++] = 0;
      if (at == units.size()) return;
    }
  }
  const auto newest_of = [&](std::size_t i) { return static_cast<std::uint8_t>(units[i].choices.size() - 1); };
  std::size_t visited = 0;
  const auto spend = [&] { return visited++ < limit && visit(choice); };
  if (!spend()) return;  // all old
  for (std::size_t i = 0; i < units.size(); ++i) choice[i] = newest_of(i);
  if (!spend()) return;                                                    // all new
  for (std::size_t i = 0; i < units.size() && visited < limit / 2; ++i) {  // all but one
    choice[i] = 0;
    if (!spend()) return;
    choice[i] = newest_of(i);
  }
  std::fill(choice.begin(), choice.end(), std::uint8_t{0});
  for (std::size_t i = 0; i < units.size() && visited < limit * 3 / 4; ++i) {  // one alone
    choice[i] = newest_of(i);
    if (!spend()) return;
    choice[i] = 0;
  }
  while (visited < limit) {
    for (std::size_t i = 0; i < units.size(); ++i) {
      // Half of the units are at an extreme: versions in between are many and seldom what matters.
      const std::uint64_t r = random();
      choice[i] = (r & 1) != 0 ? static_cast<std::uint8_t>((r >> 8) % units[i].choices.size())
                               : ((r & 2) != 0 ? newest_of(i) : std::uint8_t{0});
    }
    if (!spend()) return;
  }
}

}  // namespace rmemfs
