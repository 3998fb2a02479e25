// Pure functions on a file's Layout. They know nothing of the store: which extent records have changed is collected in
// TouchedKeys, and emit_touched() writes them into a transaction.
//
// Invariants of a Layout: extents do not overlap; two neighbours that continue each other in the file and in one chunk,
// with the same `unwritten`, are one extent. (A store written by an older run may hold unmerged ones; that is
// harmless.) Thread-safety: the caller holds the inode's mutex.
#pragma once

#include <cstdint>
#include <vector>

#include "manager/inode.h"
#include "manager/meta_format.h"
#include "manager/small_vector.h"
#include "manager/superblock.h"

namespace rmemfs {

class TransactionBuilder;

using TouchedKeys = boost::container::small_vector<std::uint64_t, 8>;  // file offsets whose record may have changed

constexpr std::uint64_t round_down_block(std::uint64_t offset) { return offset / kBlockBytes * kBlockBytes; }
constexpr std::uint64_t round_up_block(std::uint64_t offset) { return round_down_block(offset + kBlockBytes - 1); }

// Where a range that is punched or zeroed ends in whole blocks: what lies beyond the end of the file need not be kept.
constexpr std::uint64_t punch_end(std::uint64_t end, std::uint64_t size) {
  return end >= size ? round_up_block(end) : round_down_block(end);
}

// The range must be a hole.
void layout_insert(Layout& layout, const Extent& extent, TouchedKeys& touched);
// Makes [begin, end) (block-aligned) a hole; returns what was there, in order.
std::vector<Extent> layout_remove(Layout& layout, std::uint64_t begin, std::uint64_t end, TouchedKeys& touched);
// What is allocated of [begin, end) becomes written, or unwritten.
void layout_mark(Layout& layout, std::uint64_t begin, std::uint64_t end, bool unwritten, TouchedKeys& touched);

// The start of the longest tail of [begin, end) that touches at most `extents` extents: what a bounded transaction
// frees.
std::uint64_t layout_tail(const Layout& layout, std::uint64_t begin, std::uint64_t end, std::size_t extents);
// Number of extents that [begin, end) touches; counts no further than `limit`.
std::size_t layout_count(const Layout& layout, std::uint64_t begin, std::uint64_t end, std::size_t limit);

// Calls visit(begin, end, extent or nullptr for a hole) for the runs that cover [begin, end), in order.
template <typename Visit>
void layout_visit(const Layout& layout, std::uint64_t begin, std::uint64_t end, Visit visit) {
  auto it = layout.upper_bound(begin);
  if (it != layout.begin() && std::prev(it)->second.end() > begin) --it;
  while (begin < end) {
    if (it == layout.end() || it->first >= end) return visit(begin, end, static_cast<const Extent*>(nullptr));
    if (it->first > begin) {
      visit(begin, it->first, static_cast<const Extent*>(nullptr));
      begin = it->first;
    }
    const std::uint64_t stop = it->second.end() < end ? it->second.end() : end;
    visit(begin, stop, &it->second);
    begin = stop;
    ++it;
  }
}

// Puts or erases the record of each touched key, as the layout now has it.
void emit_touched(InodeNumber ino, const Layout& layout, TouchedKeys& touched, TransactionBuilder& builder);

}  // namespace rmemfs
