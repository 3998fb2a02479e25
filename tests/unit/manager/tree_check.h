// Checks a whole tree by its records.
#pragma once

#include "fixture.h"

namespace rmemfs {
// Sums that must hold in any consistent tree: names, links, blocks, bitmaps, counters. Applies the journal first.
void check_tree(Mount& m);
}  // namespace rmemfs
