// What every provider does with an Operation before it looks at its link, and when it is done with it.
#pragma once

#include "transport/connection.h"

namespace rmemfs {

inline void finish(Operation& op) { op.ok = true; }
inline void fail(Operation& op, Errc error) {
  op.ok = false;
  op.error = error;
}

// Answers what needs no node: bad arguments (false, op failed) and operations that have nothing to do (false, op ok).
// True: the link is asked.
bool needs_link(Operation& op);

void count(ConnectionStatistics& statistics, const Operation& op);  // once, at its completion

}  // namespace rmemfs
