#include "manager/layout.h"

#include <algorithm>
#include <iterator>

#include "journal/journal.h"
#include "util/check.h"

namespace rmemfs {
namespace {

// Whether `next` continues `extent` in the file and in its chunk.
bool continues(const Extent& extent, const Extent& next) {
  return extent.end() == next.file_offset && extent.chunk == next.chunk &&
         extent.chunk_offset + extent.length == next.chunk_offset && extent.unwritten == next.unwritten;
}

Extent part_of(const Extent& extent, std::uint64_t begin, std::uint64_t end) {
  Extent part = extent;
  part.file_offset = begin;
  part.length = end - begin;
  part.chunk_offset += begin - extent.file_offset;
  return part;
}

}  // namespace

void layout_insert(Layout& layout, const Extent& extent, TouchedKeys& touched) {
  auto next = layout.lower_bound(extent.file_offset);
  CHECK(next == layout.end() || next->first >= extent.end());
  Extent whole = extent;
  if (next != layout.begin()) {
    const auto previous = std::prev(next);
    CHECK(previous->second.end() <= extent.file_offset);
    if (continues(previous->second, whole)) {
      whole.file_offset = previous->second.file_offset;
      whole.chunk_offset = previous->second.chunk_offset;
      whole.length += previous->second.length;
      layout.erase(previous);
    }
  }
  if (next != layout.end() && continues(whole, next->second)) {
    whole.length += next->second.length;
    touched.push_back(next->first);
    layout.erase(next);
  }
  touched.push_back(whole.file_offset);
  layout.emplace(whole.file_offset, whole);
}

std::vector<Extent> layout_remove(Layout& layout, std::uint64_t begin, std::uint64_t end, TouchedKeys& touched) {
  std::vector<Extent> removed;
  if (begin >= end) return removed;  // or an extent around `begin` would give a part without a length
  auto it = layout.upper_bound(begin);
  if (it != layout.begin() && std::prev(it)->second.end() > begin) --it;
  while (it != layout.end() && it->first < end) {
    const Extent old = it->second;
    it = layout.erase(it);
    touched.push_back(old.file_offset);
    const std::uint64_t from = std::max(begin, old.file_offset);
    const std::uint64_t to = std::min(end, old.end());
    if (old.file_offset < from) layout.emplace(old.file_offset, part_of(old, old.file_offset, from));
    if (to < old.end()) {
      touched.push_back(to);
      it = layout.emplace(to, part_of(old, to, old.end())).first;
    }
    removed.push_back(part_of(old, from, to));
  }
  return removed;
}

void layout_mark(Layout& layout, std::uint64_t begin, std::uint64_t end, bool unwritten, TouchedKeys& touched) {
  for (Extent part : layout_remove(layout, begin, end, touched)) {
    part.unwritten = unwritten;
    layout_insert(layout, part, touched);
  }
}

std::uint64_t layout_tail(const Layout& layout, std::uint64_t begin, std::uint64_t end, std::size_t extents) {
  std::uint64_t start = end;
  for (auto it = layout.lower_bound(end); it != layout.begin() && start > begin;) {
    --it;
    if (it->second.end() <= begin) break;
    if (extents-- == 0) return start;
    start = std::max(it->first, begin);
  }
  return begin;
}

std::size_t layout_count(const Layout& layout, std::uint64_t begin, std::uint64_t end, std::size_t limit) {
  std::size_t count = 0;
  auto it = layout.upper_bound(begin);
  if (it != layout.begin() && std::prev(it)->second.end() > begin) --it;
  for (; it != layout.end() && it->first < end && count < limit; ++it) ++count;
  return count;
}

void emit_touched(InodeNumber ino, const Layout& layout, TouchedKeys& touched, TransactionBuilder& builder) {
  std::sort(touched.begin(), touched.end());
  touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
  for (const std::uint64_t offset : touched) {
    const auto it = layout.find(offset);
    if (it == layout.end())
      builder.erase(extent_key(ino, offset));
    else
      builder.put(extent_key(ino, offset), encode(it->second));
  }
}

}  // namespace rmemfs
