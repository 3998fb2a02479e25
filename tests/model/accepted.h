// The differences to kernel file systems that are known and accepted, each with its reason. rmemfs(8) lists the same.
#pragma once

#include "system_call.h"

namespace rmemfs::difference {

// The answers differ in a way that is in the list.
bool is_accepted(const Call& call, const Answer& tested, const Answer& reference);
// Whether bytes of files may change, and are compared after it.
bool changes_bytes(Kind kind);
void print_accepted();

}  // namespace rmemfs::difference
