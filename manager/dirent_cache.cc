#include "manager/dirent_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "util/check.h"

namespace rmemfs {

DirentCache::DirentCache(std::size_t names)
    : sets_count_(std::bit_ceil(std::max(names / kSlots, kShards))),
      // All zero: free slots, whose pages nobody has touched.
      sets_(static_cast<Set*>(std::calloc(sets_count_, sizeof(Set)))) {
  CHECK(sets_ != nullptr);
}

std::size_t DirentCache::set_of(const Name& name) const {
  const std::uint64_t mixed = (name.hash ^ name.parent.value()) * 0x9e3779b97f4a7c15u;
  return (mixed >> 20) & (sets_count_ - 1);
}

DirentCache::Slot* DirentCache::slot_of(Set& set, const Name& name) {
  for (Slot& slot : set.slots) {
    if (slot.hash == name.hash && slot.parent == name.parent.value() && slot.size == name.name.size() &&
        std::memcmp(slot.name.data(), name.name.data(), slot.size) == 0) {
      return &slot;
    }
  }
  return nullptr;
}

void DirentCache::forget(Set& set, const Name& name) {
  Slot* const slot = slot_of(set, name);
  if (slot == nullptr) return;
  std::move(slot + 1, set.slots.data() + kSlots, slot);
  set.slots.back() = {};
}

void DirentCache::put(Set& set, const Name& name, const std::optional<Dirent>& dirent) {
  forget(set, name);
  std::move_backward(set.slots.begin(), set.slots.end() - 1, set.slots.end());
  Slot& slot = set.slots.front();
  slot.parent = name.parent.value();
  slot.hash = name.hash;
  slot.ino = dirent ? dirent->ino.value() : 0;
  slot.type = dirent ? dirent->type : 0;
  slot.size = static_cast<std::uint8_t>(name.name.size());
  std::copy(name.name.begin(), name.name.end(), slot.name.begin());
}

DirentCache::Found DirentCache::find(const Name& name) {
  const std::size_t at = set_of(name);
  Shard& shard = shard_of(at);
  MutexLock lock(shard.mutex);
  Found found;
  Set& set = sets_[at];
  if (Slot* const slot = fits(name) ? slot_of(set, name) : nullptr; slot != nullptr) {
    found.known = true;
    if (slot->ino != 0) found.dirent = Dirent{InodeNumber(slot->ino), slot->type};
    std::rotate(set.slots.data(), slot, slot + 1);
  } else {
    found.ticket = {shard.changes, shard.under_way == 0};
  }
  return found;
}

void DirentCache::fill(const Name& name, Ticket ticket, const std::optional<Dirent>& dirent) {
  if (!ticket.valid || !fits(name)) return;
  const std::size_t at = set_of(name);
  Shard& shard = shard_of(at);
  MutexLock lock(shard.mutex);
  if (shard.changes == ticket.changes) put(sets_[at], name, dirent);  // D3
}

DirentCache::Change::Change(DirentCache& cache, const Name& name) : cache_(cache), name_(name) {
  const std::size_t at = cache_.set_of(name_);
  Shard& shard = cache_.shard_of(at);
  MutexLock lock(shard.mutex);
  ++shard.changes;
  ++shard.under_way;
  if (fits(name_)) forget(cache_.sets_[at], name_);
}

void DirentCache::Change::done(const std::optional<Dirent>& dirent) {
  CHECK(!ended_);
  ended_ = true;
  const std::size_t at = cache_.set_of(name_);
  Shard& shard = cache_.shard_of(at);
  MutexLock lock(shard.mutex);
  --shard.under_way;
  if (fits(name_)) put(cache_.sets_[at], name_, dirent);
}

DirentCache::Change::~Change() {
  if (ended_) return;
  Shard& shard = cache_.shard_of(cache_.set_of(name_));
  MutexLock lock(shard.mutex);
  --shard.under_way;
}

}  // namespace rmemfs
