// System calls that a mount can make wait for ever (stat(2) of one whose daemon is stopped, umount2(2) of one with
// unwritten pages), made by a child, so that the caller can give up. What the call does it may still do later: a child
// that waits in the kernel ends when that lets it.
//
// Main thread. The child must only make system calls: other threads may exist.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "util/result.h"

namespace rmemfs {

// The errno that `call` gives, 0 for success; nothing when the time is over. Errors: kTooMany, kNoMemory (no child).
Result<std::optional<int>> bounded_call(const std::function<int()>& call, std::uint32_t timeout_ms);

}  // namespace rmemfs
