// Modification: one change of a key, as a micro-journal carries it. Home: where the applier brings them (RocksDB).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "util/ids.h"
#include "util/result.h"

namespace rmemfs {

enum class ModificationKind : std::uint8_t {
  kPut = 1,    // key := value
  kErase = 2,  // key is gone; no value
  kMerge = 3,  // value is an operand that Home combines with what is there; operands of one key may be concatenated
};

struct Modification {
  ModificationKind kind;
  std::string_view key;
  std::string_view value;
};

// Implemented by the metastore; by simulations in tests. Called by the applier thread and by recovery, one at a time,
// except make_durable(), which may run while apply() runs.
class Home {
 public:
  virtual ~Home() = default;
  // Writes all modifications and the watermark `applied` in ONE atomic batch (no partial effect after a crash). Ids
  // never move backwards. Modifications are already coalesced: at most one put or erase per key, merges after it.
  virtual Result<void> apply(std::span<const Modification> modifications, CommitId applied) = 0;
  // Makes everything applied before the call durable; returns the watermark that is now durable. Blocks.
  virtual Result<CommitId> make_durable() = 0;
  // The watermark found at opening: every id at or below it is durable at home.
  virtual CommitId durable_watermark() const = 0;
};

}  // namespace rmemfs
