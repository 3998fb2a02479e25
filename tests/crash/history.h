// History: the oracle. It records every transaction before the journal sees it, and knows the state after each one.
// It shares no code with the journal. Not thread-safe.
#pragma once

#include <vector>

#include "tests/crash/simulated_home.h"
#include "util/check.h"

namespace rmemfs {

struct PlannedModification {
  ModificationKind kind;
  std::string key;
  std::string value;
};

class History {
 public:
  // Begins with what a recovered home holds.
  explicit History(const SimulatedHome::Contents& start) : base_(start.watermark.value()), states_{start.keys} {}

  // The next transaction; returns the id that the journal must give it.
  CommitId add(const std::vector<PlannedModification>& modifications) {
    Keys keys = states_.back();
    for (const PlannedModification& m : modifications) apply_modification(keys, m.kind, m.key, m.value);
    states_.push_back(std::move(keys));
    return last();
  }
  CommitId base() const { return CommitId(base_); }
  CommitId last() const { return CommitId(base_ + states_.size() - 1); }
  bool knows(CommitId id) const { return id >= base() && id <= last(); }
  const Keys& state(CommitId id) const {
    CHECK(knows(id));
    return states_[id.value() - base_];
  }

 private:
  std::uint64_t base_;
  std::vector<Keys> states_;
};

}  // namespace rmemfs
