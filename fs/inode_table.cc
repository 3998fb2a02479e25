#include "fs/inode_table.h"

#include "util/log.h"

namespace rmemfs {

void InodeTable::add(InodeNumber ino, std::uint64_t count) {
  Shard& s = shard(ino);
  MutexLock lock(s.mutex);
  s.counts[ino.value()] += count;
}

bool InodeTable::forget(InodeNumber ino, std::uint64_t count) {
  Shard& s = shard(ino);
  MutexLock lock(s.mutex);
  auto it = s.counts.find(ino.value());
  const std::uint64_t held = it == s.counts.end() ? 0 : it->second & ~kOrphan;
  if (count > held) {
    // The kernel and we disagree: keep serving, but say so, because counts that do not balance are a bug.
    log::error("inode {}: {} references forgotten, {} known", ino.value(), count, held);
    count = held;
  }
  if (it == s.counts.end()) return false;
  if (count < held) {
    it->second -= count;
    return false;
  }
  const bool orphan = (it->second & kOrphan) != 0;
  s.counts.erase(it);
  return orphan;
}

bool InodeTable::orphaned(InodeNumber ino) {
  Shard& s = shard(ino);
  MutexLock lock(s.mutex);
  auto it = s.counts.find(ino.value());
  if (it == s.counts.end()) return true;
  it->second |= kOrphan;
  return false;
}

void InodeTable::adopted(InodeNumber ino) {
  Shard& s = shard(ino);
  MutexLock lock(s.mutex);
  const auto it = s.counts.find(ino.value());
  if (it != s.counts.end()) it->second &= ~kOrphan;
}

std::vector<InodeNumber> InodeTable::take_orphans() {
  std::vector<InodeNumber> orphans;
  for (Shard& s : shards_) {
    MutexLock lock(s.mutex);
    for (auto it = s.counts.begin(); it != s.counts.end();) {
      if ((it->second & kOrphan) == 0) {
        ++it;
        continue;
      }
      orphans.emplace_back(it->first);
      it = s.counts.erase(it);
    }
  }
  return orphans;
}

std::uint64_t InodeTable::references(InodeNumber ino) const {
  const Shard& s = shard(ino);
  MutexLock lock(s.mutex);
  auto it = s.counts.find(ino.value());
  return it == s.counts.end() ? 0 : it->second & ~kOrphan;
}

std::size_t InodeTable::size() const {
  std::size_t total = 0;
  for (const Shard& s : shards_) {
    MutexLock lock(s.mutex);
    total += s.counts.size();
  }
  return total;
}

}  // namespace rmemfs
