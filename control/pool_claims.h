// Which memory node's pool answers at which address. One node may have several addresses (a socket and a port, a name
// and a number); a file system that names it twice would count its memory twice and take its own leases for strangers'.
// Not thread-safe.
#pragma once

#include <map>
#include <string>

#include "util/ids.h"
#include "util/result.h"

namespace rmemfs {

class PoolClaims {
 public:
  // `pool` answered at `address`, whatever did so before. kInvalid, with both addresses in one sentence, when it is the
  // pool of another address; that one keeps it. A claim stays while its address is silent.
  Result<void> claim(const std::string& address, const Uuid& pool);

 private:
  std::map<std::string, Uuid> pools_;  // by address
};

}  // namespace rmemfs
