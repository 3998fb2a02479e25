// What every provider does with an Operation before it looks at its link, and when it is done with it; and what every
// link does with a refusal.
#pragma once

#include "transport/connection.h"

namespace rmemfs {

inline void finish(Operation& op, std::uint64_t boot = 0) {
  op.boot = boot;
  op.ok = true;
}
inline void fail(Operation& op, Errc error) {
  op.ok = false;
  op.error = error;
}

// Answers what needs no node: bad arguments (false, op failed) and operations that have nothing to do (false, op ok).
// True: the link is asked.
bool needs_link(Operation& op);

void count(ConnectionStatistics& statistics, const Operation& op);  // once, at its completion

// Whether a peer's refusal stands for itself. Everything that time alone can mend does not: it is asked again.
inline bool is_definite(Errc code) {
  return code != Errc::kUnreachable && code != Errc::kTooMany && code != Errc::kBusy && code != Errc::kNoMemory &&
         code != Errc::kDeadline;
}

}  // namespace rmemfs
