#include "control/pool_claims.h"

#include <algorithm>

namespace rmemfs {

Result<void> PoolClaims::claim(const std::string& address, const Uuid& pool) {
  const auto other = std::find_if(pools_.begin(), pools_.end(), [&](const auto& claimed) {
    return claimed.first != address && claimed.second == pool;
  });
  if (other != pools_.end()) {
    return Error(Errc::kInvalid, "",
                 "memory nodes " + other->first + " and " + address + " are one and the same (pool " +
                     pool.to_string() + "); a node is named once");
  }
  pools_[address] = pool;
  return success();
}

}  // namespace rmemfs
