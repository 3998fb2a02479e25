// How willingly the kernel kills this process when memory runs out (proc_pid_oom_score_adj(5)). Main thread, at the
// start: what is started later inherits it.
#pragma once

#include "util/result.h"

namespace rmemfs {

inline constexpr int kLeastOomScore = -1000, kMostOomScore = 1000;
// Long after programs, before what is never to be killed: with this process a whole file system would be gone.
inline constexpr int kProtectedOomScore = -900;

// kAccess without the right to lower it.
Result<void> set_oom_score(int score);
// kProtectedOomScore, where nobody has chosen another one than 0 and this process may.
void protect_from_oom();

}  // namespace rmemfs
