#include "transport/region_slots.h"

namespace rmemfs {

RegionSlots::Binding RegionSlots::bind(const RemoteRegion& region) {
  const RegionName name = RegionName::of(region);
  if (last_slot_ < wire::kSlots && name == last_name_) return {last_slot_, false};
  const auto found = slots_.find(name);
  const bool fresh = found == slots_.end();
  if (fresh) {
    if (next_ < names_.size()) {
      const auto older = slots_.find(names_[next_]);
      if (older != slots_.end() && older->second == next_) slots_.erase(older);
      names_[next_] = name;
    } else {
      names_.push_back(name);
    }
    slots_.emplace(name, next_);
    last_slot_ = next_;
    next_ = (next_ + 1) % wire::kSlots;
  } else {
    last_slot_ = found->second;
  }
  last_name_ = name;
  return {last_slot_, fresh};
}

void RegionSlots::forget(const RemoteRegion& region) {
  slots_.erase(RegionName::of(region));
  last_slot_ = wire::kSlots;
}

void RegionSlots::clear() {
  slots_.clear();
  names_.clear();
  next_ = 0;
  last_slot_ = wire::kSlots;
}

}  // namespace rmemfs
