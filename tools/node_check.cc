#include "tools/node_check.h"

#include <thread>
#include <vector>

#include "control/node_client.h"
#include "control/pool_claims.h"

namespace rmemfs {
namespace {

// The pool that answers there.
Result<Uuid> check_node(const std::string& address, const FileSystemIdentity& identity, std::uint32_t timeout_ms) {
  ASSIGN_OR_RETURN(const auto client, NodeClient::make(address));
  ASSIGN_OR_RETURN(const NodeDescription description, client->describe(timeout_ms));
  // Listing needs the key and an epoch that is not behind, and changes nothing.
  RETURN_IF_ERROR(client->list(identity, timeout_ms));
  return description.pool;
}

}  // namespace

Result<void> check_nodes(const std::string& directory, const Superblock& superblock, bool degraded,
                         std::uint32_t timeout_ms) {
  const FileSystemIdentity identity{superblock.uuid, superblock.key, superblock.epoch};
  std::vector<std::string> addresses;
  for (const NodeRecord& node : superblock.nodes) addresses.push_back(node_address_of(directory, node));
  std::vector<Result<Uuid>> outcomes(addresses.size(), Error(Errc::kUnreachable));
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < addresses.size(); ++i) {
      threads.emplace_back([&, i] { outcomes[i] = check_node(addresses[i], identity, timeout_ms); });
    }
  }
  PoolClaims claims;
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    if (outcomes[i].ok()) {
      RETURN_IF_ERROR(claims.claim(addresses[i], *outcomes[i]));
      continue;
    }
    const Error& error = outcomes[i].error();
    const bool silent = error.code == Errc::kUnreachable || error.code == Errc::kDeadline;
    if (silent && degraded) continue;
    return node_failure(addresses[i], error);
  }
  return success();
}

}  // namespace rmemfs
