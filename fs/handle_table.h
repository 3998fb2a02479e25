// Handles given to the kernel: a slot number with a generation, never an address. A stale or invented handle is
// kBadHandle. Thread-safe; rank kLeaf. Bound: `limit` open handles, then kTooMany.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "util/mutex.h"
#include "util/result.h"

namespace rmemfs {

template <typename T>
class HandleTable {
 public:
  explicit HandleTable(std::uint32_t limit) : limit_(limit) {}

  Result<std::uint64_t> insert(std::shared_ptr<T> object) {
    MutexLock lock(mutex_);
    if (free_.empty()) {
      if (slots_.size() >= limit_) return Error(Errc::kTooMany, "open");
      free_.push_back(static_cast<std::uint32_t>(slots_.size()));
      slots_.emplace_back();
    }
    const std::uint32_t index = free_.back();
    free_.pop_back();
    slots_[index].object = std::move(object);
    return std::uint64_t{slots_[index].generation} << 32 | index;
  }

  Result<std::shared_ptr<T>> get(std::uint64_t handle) const {
    MutexLock lock(mutex_);
    const Slot* slot = find(handle);
    if (slot == nullptr) return Error(Errc::kBadHandle, "handle");
    return slot->object;
  }

  Result<void> erase(std::uint64_t handle) {
    std::shared_ptr<T> gone;  // destroyed after the lock is released
    MutexLock lock(mutex_);
    Slot* slot = const_cast<Slot*>(find(handle));
    if (slot == nullptr) return Error(Errc::kBadHandle, "handle");
    gone.swap(slot->object);
    ++slot->generation;
    free_.push_back(static_cast<std::uint32_t>(handle));
    lock.unlock();
    return {};
  }

  std::size_t size() const {
    MutexLock lock(mutex_);
    return slots_.size() - free_.size();
  }

 private:
  struct Slot {
    std::uint32_t generation = 1;  // so that no handle is ever 0
    std::shared_ptr<T> object;
  };
  const Slot* find(std::uint64_t handle) const {
    const auto index = static_cast<std::uint32_t>(handle);
    if (index >= slots_.size()) return nullptr;
    const Slot& slot = slots_[index];
    return slot.object != nullptr && slot.generation == handle >> 32 ? &slot : nullptr;
  }

  const std::uint32_t limit_;
  mutable Mutex mutex_{LockRank::kLeaf};
  std::vector<Slot> slots_;          // guarded by mutex_
  std::vector<std::uint32_t> free_;  // guarded by mutex_
};

}  // namespace rmemfs
