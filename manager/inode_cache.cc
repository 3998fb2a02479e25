#include "manager/inode_cache.h"

#include <algorithm>

#include "manager/manager.h"

namespace rmemfs {
namespace {
constexpr std::size_t kDropAttempts = 8;  // inodes dropped or, being held, passed over before the cache grows instead
}

InodeCache::InodeCache(std::size_t limit, Load load)
    : limit_per_shard_(std::max<std::size_t>(limit / kShards, 1)),
      budget_units_(std::max<std::uint64_t>(limit, kShards) * InodeCharge::kInodeUnits),
      load_(std::move(load)) {}

Result<InodeRef> InodeCache::get(InodeNumber ino, const std::function<CommitId()>& known_commit) {
  ASSIGN_OR_RETURN(InodeRef inode, find_or_load(ino, known_commit));
  trim();  // the inode is held by now: what is about to be used again is not dropped for others
  return inode;
}

Result<InodeRef> InodeCache::find_or_load(InodeNumber ino, const std::function<CommitId()>& known_commit) {
  Shard& s = shard(ino);
  for (;;) {
    Recent dropped;  // destroyed after the lock
    std::uint64_t drops;
    {
      MutexLock lock(s.mutex);
      if (const auto it = s.by_number.find(ino.value()); it != s.by_number.end()) {
        s.recent.splice(s.recent.begin(), s.recent, it->second);
        return *it->second;
      }
      drops = s.drops;
    }
    ASSIGN_OR_RETURN(Attributes attributes, load_(ino));
    auto inode = std::make_shared<Inode>(ino);
    inode->attributes = attributes;
    inode->last_commit.store(known_commit().value(), std::memory_order_relaxed);
    MutexLock lock(s.mutex);
    if (const auto it = s.by_number.find(ino.value()); it != s.by_number.end()) return *it->second;
    if (s.drops != drops) continue;
    add(s, inode, dropped);
    return inode;
  }
}

void InodeCache::insert(const InodeRef& inode) {
  Shard& s = shard(inode->ino);
  {
    Recent dropped;  // destroyed after the lock
    MutexLock lock(s.mutex);
    add(s, inode, dropped);
  }
  trim();
}

void InodeCache::add(Shard& s, const InodeRef& inode, Recent& dropped) {
  inode->charge.attach(units_);
  s.recent.push_front(inode);
  const bool fresh = s.by_number.emplace(inode->ino.value(), s.recent.begin()).second;
  CHECK(fresh);
  for (std::size_t i = 0; i < kDropAttempts && s.recent.size() > limit_per_shard_; ++i) drop_one(s, dropped);
}

// Drops the least recently used inode, or passes it over because it is held.
bool InodeCache::drop_one(Shard& s, Recent& dropped) {
  const auto last = std::prev(s.recent.end());
  if (last->use_count() > 1) {
    s.recent.splice(s.recent.begin(), s.recent, last);
    return false;
  }
  s.by_number.erase((*last)->ino.value());
  dropped.splice(dropped.end(), s.recent, last);
  ++s.drops;
  return true;
}

// One inode of each shard in turn, which is near enough to the order of use over all of them, until the budget is kept
// or a whole turn finds nothing to drop.
void InodeCache::drop_excess() {
  if (trimming_.exchange(true, std::memory_order_acquire)) return;
  for (std::size_t barren = 0; barren < kShards && units_->load(std::memory_order_relaxed) > budget_units_;) {
    Shard& s = shards_[hand_++ % kShards];
    Recent dropped;  // destroyed after the lock
    MutexLock lock(s.mutex);
    bool found = false;
    for (std::size_t i = std::min(kDropAttempts, s.recent.size()); i != 0 && !found; --i) found = drop_one(s, dropped);
    barren = found ? 0 : barren + 1;
  }
  trimming_.store(false, std::memory_order_release);
}

void InodeCache::erase(InodeNumber ino) {
  Shard& s = shard(ino);
  InodeRef dropped;  // destroyed after the lock
  MutexLock lock(s.mutex);
  const auto it = s.by_number.find(ino.value());
  if (it == s.by_number.end()) return;
  dropped = *it->second;
  s.recent.erase(it->second);
  s.by_number.erase(it);
  ++s.drops;
}

std::size_t InodeCache::size() const {
  std::size_t total = 0;
  for (const Shard& s : shards_) {
    MutexLock lock(s.mutex);
    total += s.recent.size();
  }
  return total;
}

InodePairLock::InodePairLock(Inode& a, Inode& b) : first_(&a), second_(&b) {
  if (first_ == second_)
    second_ = nullptr;
  else if (second_->ino < first_->ino)
    std::swap(first_, second_);
  first_->mutex.lock();
  if (second_ != nullptr) second_->mutex.lock_same_rank();
}

InodePairLock::~InodePairLock() {
  if (second_ != nullptr) second_->mutex.unlock();
  first_->mutex.unlock();
}

}  // namespace rmemfs
