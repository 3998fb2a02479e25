// RegionPlaces: where the regions of the nodes are, as one of this process's verbs connections was told by ATTACH, so
// that the others need not ask. A place is good on every queue pair of this file system to the same instance of the
// node's domain (VerbsDomain), which says its random number when it accepts; a node that starts again has another one.
//
// A place may be stale all the same (the region was given back): the device then refuses the operation, the connection
// forgets the place and asks the node (V7).
// Thread-safe; takes a Mutex of rank kTransport. Bounded: at kMost places it forgets all and begins anew.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "transport/region_slots.h"
#include "transport/verbs_format.h"
#include "util/mutex.h"

namespace rmemfs {

class RegionPlaces {
 public:
  using Place = std::shared_ptr<const verbs::Reply>;

  Place find(std::uint64_t instance, const RegionName& region) const {
    MutexLock lock(mutex_);
    const auto found = places_.find({instance, region});
    return found == places_.end() ? nullptr : found->second;
  }
  void add(std::uint64_t instance, const RegionName& region, Place place) {
    MutexLock lock(mutex_);
    if (places_.size() >= kMost) places_.clear();
    places_[{instance, region}] = std::move(place);
  }
  void forget(std::uint64_t instance, const RegionName& region) {
    MutexLock lock(mutex_);
    places_.erase({instance, region});
  }

 private:
  static constexpr std::size_t kMost = 1 << 16;
  struct Key {
    std::uint64_t instance;
    RegionName region;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const { return RegionNameHash{}(key.region) ^ key.instance; }
  };
  mutable Mutex mutex_{LockRank::kTransport};
  std::unordered_map<Key, Place, KeyHash> places_;  // guarded by mutex_
};

}  // namespace rmemfs
