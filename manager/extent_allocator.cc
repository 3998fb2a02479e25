// How a place is found. A file that grows goes on right after its last extent. A file that starts somewhere new leaves
// room behind it, in proportion to its size, before the next one starts (`next`), so that files written side by side do
// not interleave block by block; the room is not reserved, and is used when nothing else is left.
#include "manager/extent_allocator.h"

#include <algorithm>
#include <bit>

#include "util/bytes.h"
#include "util/check.h"

namespace rmemfs {
namespace {

constexpr std::size_t kChunksLookedAt = 4;
constexpr std::uint64_t kMinWindow = 16;    // blocks
constexpr std::uint64_t kMaxWindow = 2048;  // blocks

// First position in [from, end) whose bit is `value`; `end` if there is none.
std::uint32_t find_bit(const std::vector<std::uint64_t>& bits, std::uint32_t from, std::uint32_t end, bool value) {
  while (from < end) {
    std::uint64_t word = bits[from / 64];
    if (!value) word = ~word;
    word >>= from % 64;
    if (word != 0) return std::min<std::uint32_t>(from + static_cast<std::uint32_t>(std::countr_zero(word)), end);
    from = (from / 64 + 1) * 64;
  }
  return end;
}

void set_bits(std::vector<std::uint64_t>& bits, std::uint32_t first, std::uint32_t count, bool value) {
  for (std::uint32_t at = first, end = first + count; at < end;) {
    const std::uint32_t in_word = std::min(64 - at % 64, end - at);
    const std::uint64_t mask = (in_word == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << in_word) - 1) << (at % 64);
    if (value)
      bits[at / 64] |= mask;
    else
      bits[at / 64] &= ~mask;
    at += in_word;
  }
}

bool test_bit(const std::vector<std::uint64_t>& bits, std::uint32_t at) {
  return (bits[at / 64] >> (at % 64) & 1) != 0;
}

}  // namespace

Result<void> ExtentAllocator::add_chunk(ChunkId chunk, std::uint32_t blocks, std::string_view bitmap) {
  auto space = std::make_unique<Space>();
  space->blocks = blocks;
  space->used.assign((blocks + 63) / 64, 0);
  std::uint32_t used = 0;
  for (std::size_t i = 0; i < bitmap.size(); ++i) {
    const auto byte = static_cast<unsigned char>(bitmap[i]);
    if (byte == 0) continue;
    const std::size_t highest = i * 8 + static_cast<std::size_t>(std::bit_width(byte)) - 1;
    if (highest >= blocks) return Error(Errc::kCorrupt, "allocation bitmap", "chunk " + std::to_string(chunk.value()));
    space->used[i / 8] |= std::uint64_t{byte} << (i % 8 * 8);
    used += static_cast<std::uint32_t>(std::popcount(byte));
  }
  space->free = blocks - used;
  MutexLock lock(mutex_);
  const std::uint32_t free = space->free;
  if (!chunks_.emplace(chunk.value(), std::move(space)).second) {
    return Error(Errc::kCorrupt, "chunk map", "chunk " + std::to_string(chunk.value()) + " twice");
  }
  free_ += free;
  if (free != 0) with_room_.insert(chunk.value());
  return success();
}

void ExtentAllocator::drop_chunk(ChunkId chunk) {
  MutexLock lock(mutex_);
  const auto it = chunks_.find(chunk.value());
  if (it == chunks_.end() || it->second->dropped) return;
  if (!it->second->suspended) discount(it->first, *it->second);
  it->second->dropped = true;
}

void ExtentAllocator::restore_chunk(ChunkId chunk) {
  MutexLock lock(mutex_);
  const auto it = chunks_.find(chunk.value());
  if (it == chunks_.end() || !it->second->dropped) return;
  it->second->dropped = false;
  if (!it->second->suspended) count(it->first, *it->second);
}

void ExtentAllocator::suspend_chunk(ChunkId chunk) {
  MutexLock lock(mutex_);
  const auto it = chunks_.find(chunk.value());
  if (it == chunks_.end() || it->second->suspended) return;
  if (!it->second->dropped) discount(it->first, *it->second);
  it->second->suspended = true;
}

void ExtentAllocator::resume_chunk(ChunkId chunk) {
  MutexLock lock(mutex_);
  const auto it = chunks_.find(chunk.value());
  if (it == chunks_.end() || !it->second->suspended) return;
  it->second->suspended = false;
  if (!it->second->dropped) count(it->first, *it->second);
}

void ExtentAllocator::count(std::uint64_t chunk, const Space& space) {
  free_ += space.free;
  pending_blocks_ += space.pending;
  if (space.free != 0) with_room_.insert(chunk);
}

void ExtentAllocator::discount(std::uint64_t chunk, const Space& space) {
  free_ -= space.free;
  pending_blocks_ -= space.pending;
  with_room_.erase(chunk);
}

void ExtentAllocator::take(std::uint64_t chunk, Space& space, std::uint32_t first, std::uint32_t count) {
  set_bits(space.used, first, count, true);
  space.free -= count;
  free_ -= count;
  if (space.free == 0) with_room_.erase(chunk);
}

// The first run of `want` free blocks in a few chunks from the rover on, or else the longest run seen there.
ExtentAllocator::Found ExtentAllocator::pick(std::uint64_t want) {
  Found best;
  auto it = with_room_.lower_bound(rover_);
  const std::size_t looks = std::min(kChunksLookedAt, with_room_.size());
  for (std::size_t look = 0; look < looks; ++look, ++it) {
    if (it == with_room_.end()) it = with_room_.begin();
    Space& space = *chunks_.at(*it);
    const auto search = [&](std::uint32_t from, std::uint32_t end) {
      while (from < end && best.count < want) {
        from = find_bit(space.used, from, end, false);
        if (from >= end) return;
        // A run that begins in the searched part may reach beyond it.
        const auto limit = static_cast<std::uint32_t>(std::min<std::uint64_t>(space.blocks, from + want));
        const std::uint32_t stop = find_bit(space.used, from, limit, true);
        if (stop - from > best.count) best = {&space, *it, from, stop - from};
        from = stop;
      }
    };
    search(space.next, space.blocks);
    search(0, space.next);
    if (best.count >= want) break;
  }
  CHECK(best.count != 0);
  return best;
}

bool ExtentAllocator::allocate(std::uint64_t blocks, const SpaceHint& hint, std::vector<SpaceRun>& runs) {
  MutexLock lock(mutex_);
  if (blocks > free_) return false;
  if (hint.chunk.value() != 0 && blocks != 0) {
    const auto it = chunks_.find(hint.chunk.value());
    if (it != chunks_.end() && it->second->counts() && hint.block < it->second->blocks) {
      Space& space = *it->second;
      const auto limit = static_cast<std::uint32_t>(std::min<std::uint64_t>(space.blocks, hint.block + blocks));
      const std::uint32_t count = find_bit(space.used, hint.block, limit, true) - hint.block;
      if (count != 0) {
        take(it->first, space, hint.block, count);
        if (space.next >= hint.block && space.next < hint.block + count)
          space.next = (hint.block + count) % space.blocks;
        runs.push_back({hint.chunk, hint.block, count});
        blocks -= count;
      }
    }
  }
  while (blocks != 0) {
    const Found found = pick(blocks);
    take(found.chunk, *found.space, found.first, found.count);
    const std::uint64_t window = std::min(std::clamp(std::max(blocks, hint.file_blocks), kMinWindow, kMaxWindow),
                                          std::max<std::uint64_t>(found.space->blocks / 8, 1));
    const std::uint64_t next = found.first + std::max<std::uint64_t>(found.count, window);
    found.space->next = next < found.space->blocks ? static_cast<std::uint32_t>(next) : 0;
    rover_ = found.chunk;
    runs.push_back({ChunkId(found.chunk), found.first, found.count});
    blocks -= found.count;
  }
  return true;
}

void ExtentAllocator::give_back(const SpaceRun& run) {
  const auto it = chunks_.find(run.chunk.value());
  CHECK(it != chunks_.end());
  Space& space = *it->second;
  CHECK(run.count <= space.blocks && run.first <= space.blocks - run.count);
  std::uint32_t freed = 0;
  if (space.quarantined.empty()) {
    set_bits(space.used, run.first, run.count, false);
    freed = run.count;
  } else {
    for (std::uint32_t block = run.first; block < run.first + run.count; ++block) {
      if (test_bit(space.quarantined, block)) continue;
      set_bits(space.used, block, 1, false);
      ++freed;
    }
  }
  space.free += freed;
  if (!space.counts()) return;
  free_ += freed;
  if (space.free != 0) with_room_.insert(run.chunk.value());
}

void ExtentAllocator::release(std::span<const SpaceRun> runs) {
  MutexLock lock(mutex_);
  for (const SpaceRun& run : runs) give_back(run);
}

void ExtentAllocator::free_after(std::span<const SpaceRun> runs, CommitId id) {
  MutexLock lock(mutex_);
  for (const SpaceRun& run : runs) {
    const auto it = chunks_.find(run.chunk.value());
    CHECK(it != chunks_.end());
    pending_.emplace(id, run);
    it->second->pending += run.count;
    if (it->second->counts()) pending_blocks_ += run.count;
  }
}

void ExtentAllocator::persisted(CommitId id) {
  MutexLock lock(mutex_);
  while (!pending_.empty() && pending_.begin()->first <= id) {
    const SpaceRun run = pending_.begin()->second;
    pending_.erase(pending_.begin());
    Space& space = *chunks_.at(run.chunk.value());
    space.pending -= run.count;
    if (space.counts()) pending_blocks_ -= run.count;
    give_back(run);
  }
}

void ExtentAllocator::quarantine(const SpaceRun& run) {
  MutexLock lock(mutex_);
  const auto it = chunks_.find(run.chunk.value());
  CHECK(it != chunks_.end());
  Space& space = *it->second;
  CHECK(run.count <= space.blocks && run.first <= space.blocks - run.count);
  if (space.quarantined.empty()) space.quarantined.assign(space.used.size(), 0);
  set_bits(space.quarantined, run.first, run.count, true);
}

std::uint64_t ExtentAllocator::free_blocks() const {
  MutexLock lock(mutex_);
  return free_;
}

std::uint64_t ExtentAllocator::pending_blocks() const {
  MutexLock lock(mutex_);
  return pending_blocks_;
}

CommitId ExtentAllocator::newest_pending() const {
  MutexLock lock(mutex_);
  return pending_.empty() ? CommitId() : pending_.rbegin()->first;
}

std::uint64_t ExtentAllocator::used_blocks(ChunkId chunk) const {
  MutexLock lock(mutex_);
  const auto it = chunks_.find(chunk.value());
  return it == chunks_.end() ? 0 : it->second->blocks - it->second->free;
}

}  // namespace rmemfs
