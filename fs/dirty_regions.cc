#include "fs/dirty_regions.h"

#include <algorithm>

namespace rmemfs {

bool DirtyRegions::written(InodeNumber ino, std::uint32_t lane, const Chunk& chunk, std::uint64_t boot) {
  Shard& s = shard(ino);
  MutexLock lock(s.mutex);
  const std::uint64_t version = ++s.version;
  const auto known = s.inodes.find(ino.value());
  if (known != s.inodes.end()) {
    for (Entry& entry : known->second) {
      if (entry.lane == lane && entry.chunk == &chunk) {
        entry.version = version;
        entry.mixed = entry.mixed || !kept(entry.boot, boot);
        return true;
      }
    }
  }
  if (s.entries >= kMostEntries / kShards) return false;
  ++s.entries;
  s.inodes[ino.value()].push_back({lane, &chunk, version, boot});
  return true;
}

DirtyRegions::Entries DirtyRegions::snapshot(InodeNumber ino) const {
  const Shard& s = shard(ino);
  MutexLock lock(s.mutex);
  auto it = s.inodes.find(ino.value());
  return it == s.inodes.end() ? Entries{} : it->second;
}

void DirtyRegions::persisted(InodeNumber ino, const Entries& entries) {
  Shard& s = shard(ino);
  MutexLock lock(s.mutex);
  auto it = s.inodes.find(ino.value());
  if (it == s.inodes.end()) return;
  s.entries -= std::erase_if(it->second, [&](const Entry& have) {
    return std::any_of(entries.begin(), entries.end(), [&](const Entry& done) {
      return done.lane == have.lane && done.chunk == have.chunk && done.version == have.version;
    });
  });
  if (it->second.empty()) s.inodes.erase(it);
}

bool DirtyRegions::doubted(InodeNumber ino, const Entries& entries, TimePoint now) {
  Shard& s = shard(ino);
  MutexLock lock(s.mutex);
  const auto it = s.inodes.find(ino.value());
  if (it == s.inodes.end()) return false;
  bool tell = false;
  s.entries -= std::erase_if(it->second, [&](Entry& have) {
    const bool one = std::any_of(entries.begin(), entries.end(), [&](const Entry& entry) {
      return entry.lane == have.lane && entry.chunk == have.chunk;
    });
    if (!one) return false;
    have.mixed = true;
    if (!have.doubted) have.doubted = now;
    const bool said = now - *have.doubted >= kToldFor;
    tell = tell || !said;
    return said;
  });
  if (it->second.empty()) s.inodes.erase(it);
  return tell;
}

void DirtyRegions::forget(InodeNumber ino) {
  Shard& s = shard(ino);
  MutexLock lock(s.mutex);
  const auto it = s.inodes.find(ino.value());
  if (it == s.inodes.end()) return;
  s.entries -= it->second.size();
  s.inodes.erase(it);
}

}  // namespace rmemfs
