#include "memnode/region_allocator.h"

#include <algorithm>

#include "util/check.h"

namespace rmemfs {

RegionAllocator::RegionAllocator(std::uint64_t size, std::uint64_t page, std::uint64_t huge_page)
    : page_(page), huge_page_(huge_page), free_bytes_(size) {
  CHECK(size % page == 0);
  if (size > 0) free_.emplace(0, size);
}

std::uint64_t RegionAllocator::aligned_begin(std::uint64_t offset, std::uint64_t length) const {
  return length < huge_page_ ? offset : (offset + huge_page_ - 1) / huge_page_ * huge_page_;
}

void RegionAllocator::cut(std::map<std::uint64_t, std::uint64_t>::iterator run, Run piece) {
  const std::uint64_t begin = run->first;
  const std::uint64_t end = begin + run->second;
  free_.erase(run);
  if (piece.offset > begin) free_.emplace(begin, piece.offset - begin);
  if (piece.offset + piece.length < end) free_.emplace(piece.offset + piece.length, end - piece.offset - piece.length);
  free_bytes_ -= piece.length;
}

std::optional<RegionAllocator::Run> RegionAllocator::take(std::uint64_t length, std::uint64_t minimum) {
  CHECK(length > 0 && length % page_ == 0 && minimum > 0 && minimum % page_ == 0 && minimum <= length);
  auto largest = free_.end();
  std::uint64_t most = 0;
  Run piece;
  for (auto run = free_.begin(); run != free_.end(); ++run) {
    const std::uint64_t end = run->first + run->second;
    const std::uint64_t begin = aligned_begin(run->first, length);
    if (begin < end && end - begin >= length) {
      piece = {begin, length};
      cut(run, piece);
      return piece;
    }
    // Too small for the whole: as much of it as there is, aligned when that leaves enough.
    std::uint64_t from = aligned_begin(run->first, run->second);
    if (from >= end || end - from < minimum) from = run->first;
    const std::uint64_t room = std::min(end - from, length);
    if (room > most) {
      most = room;
      largest = run;
      piece = {from, room};
    }
  }
  if (most < minimum) return std::nullopt;
  cut(largest, piece);
  return piece;
}

bool RegionAllocator::take_exactly(Run run) {
  if (run.length == 0 || run.offset % page_ != 0 || run.length % page_ != 0) return false;
  auto after = free_.upper_bound(run.offset);
  if (after == free_.begin()) return false;
  const auto holder = std::prev(after);
  const std::uint64_t end = holder->first + holder->second;
  if (run.offset >= end || run.length > end - run.offset) return false;
  cut(holder, run);
  return true;
}

void RegionAllocator::give(Run run) {
  auto [place, inserted] = free_.emplace(run.offset, run.length);
  CHECK(inserted && run.length > 0);
  free_bytes_ += run.length;
  if (const auto next = std::next(place); next != free_.end()) {
    CHECK(run.offset + run.length <= next->first);
    if (run.offset + run.length == next->first) {
      place->second += next->second;
      free_.erase(next);
    }
  }
  if (place == free_.begin()) return;
  const auto before = std::prev(place);
  CHECK(before->first + before->second <= place->first);
  if (before->first + before->second == place->first) {
    before->second += place->second;
    free_.erase(place);
  }
}

std::uint64_t RegionAllocator::largest_free() const {
  std::uint64_t most = 0;
  for (const auto& [offset, length] : free_) most = std::max(most, length);
  return most;
}

}  // namespace rmemfs
