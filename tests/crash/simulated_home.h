// SimulatedHome: a store that behaves as RocksDB does with its log off: a batch is atomic, what was applied since the
// last make_durable() may be lost, and a crash keeps a prefix of the batches. Merges append, so that applying one twice
// shows. Not thread-safe.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "journal/home.h"

namespace rmemfs {

using Keys = std::map<std::string, std::string>;

// The meaning of modifications, shared with the oracle: one definition, and a simple one.
inline void apply_modification(Keys& keys, ModificationKind kind, std::string_view key, std::string_view value) {
  switch (kind) {
    case ModificationKind::kPut:
      keys[std::string(key)] = value;
      break;
    case ModificationKind::kErase:
      keys.erase(std::string(key));
      break;
    case ModificationKind::kMerge:
      keys[std::string(key)].append(value);
      break;
  }
}

class SimulatedHome final : public Home {
 public:
  struct Contents {
    Keys keys;
    CommitId watermark;
  };

  explicit SimulatedHome(Contents durable) : opened_(durable.watermark), kept_{std::move(durable)} {}

  Result<void> apply(std::span<const Modification> modifications, CommitId applied) override {
    Contents next = kept_.back();
    for (const Modification& m : modifications) apply_modification(next.keys, m.kind, m.key, m.value);
    next.watermark = applied;
    kept_.push_back(std::move(next));
    if (on_point) on_point("home batch");
    return success();
  }
  Result<CommitId> make_durable() override {
    kept_.erase(kept_.begin(), kept_.end() - 1);
    if (on_point) on_point("home durable");
    return kept_.back().watermark;
  }
  CommitId durable_watermark() const override { return opened_; }

  // What a crash may leave: [0] is durable, each later one has one batch more.
  const std::vector<Contents>& crash_choices() const { return kept_; }

  std::function<void(const char* what)> on_point;

 private:
  const CommitId opened_;
  std::vector<Contents> kept_;
};

}  // namespace rmemfs
