#include "transport/operation.h"

#include "util/check.h"

namespace rmemfs {

bool needs_link(Operation& op) {
  CHECK(op.region != nullptr);
  const RemoteRegion& region = *op.region;
  const std::uint64_t length = op.kind == OperationKind::kCompareSwap ? 8 : op.length_bytes;
  if (op.offset > region.length_bytes || length > region.length_bytes - op.offset) {
    fail(op, Errc::kOutOfBounds);
    return false;
  }
  switch (op.kind) {
    case OperationKind::kRead:
    case OperationKind::kWrite:
      if (length > kMaxOperationBytes) {
        fail(op, Errc::kInvalid);
        return false;
      }
      if (length == 0) {
        finish(op);
        return false;
      }
      return true;
    case OperationKind::kCompareSwap:
      if (op.offset % 8 != 0) {
        fail(op, Errc::kInvalid);
        return false;
      }
      return true;
    case OperationKind::kPersist:
      if (region.durability.method == PersistMethod::kNone) {
        finish(op);
        return false;
      }
      return true;
  }
  fail(op, Errc::kInvalid);
  return false;
}

void count(ConnectionStatistics& statistics, const Operation& op) {
  if (!op.ok) {
    ++statistics.failures;
    return;
  }
  switch (op.kind) {
    case OperationKind::kRead:
      ++statistics.reads;
      statistics.read_bytes += op.length_bytes;
      break;
    case OperationKind::kWrite:
      ++statistics.writes;
      statistics.written_bytes += op.length_bytes;
      break;
    case OperationKind::kPersist:
      ++statistics.persists;
      break;
    case OperationKind::kCompareSwap:
      ++statistics.swaps;
      break;
  }
}

}  // namespace rmemfs
