// RegionSlots: which slot of a tcp stream is bound to which region, on the agent's side. At most wire::kSlots are
// bound; then the oldest binding is replaced, which is safe because a stream is served in order: operations on the
// slot's former region that are already framed stand before the new ATTACH. Not thread-safe.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "transport/connection.h"
#include "transport/wire_format.h"

namespace rmemfs {

// What names a region at a node: an operation with another generation or key is another region's.
struct RegionName {
  RegionId id;
  Generation generation;
  AccessKey key;
  bool operator==(const RegionName& other) const {
    return id == other.id && generation == other.generation && key.bytes == other.key.bytes;
  }
  static RegionName of(const RemoteRegion& region) { return {region.id, region.generation, region.key}; }
};
struct RegionNameHash {
  std::size_t operator()(const RegionName& name) const {
    return (name.id.value() * 0x9e3779b97f4a7c15u) ^ name.generation.value();
  }
};

class RegionSlots {
 public:
  struct Binding {
    std::uint32_t slot;
    bool fresh;  // an ATTACH must go first
  };
  Binding bind(const RemoteRegion& region);
  // The node refused the region: the next operation on it asks again.
  void forget(const RemoteRegion& region);
  void clear();

 private:
  std::unordered_map<RegionName, std::uint32_t, RegionNameHash> slots_;
  std::vector<RegionName> names_;  // by slot; a name whose slots_ entry differs is no longer bound
  std::uint32_t next_ = 0;
  RegionName last_name_;
  std::uint32_t last_slot_ = wire::kSlots;  // slot of last_name_, or kSlots
};

}  // namespace rmemfs
