// Pass 2, the superblock and the nodes that it names.
//
// Checks: which nodes answer, and asks each for the regions that it holds for this file system; later passes compare.
// Leaves to others: the superblock's own bytes. It is replaced as a whole and has a checksum: one that cannot be read,
// or that uses a feature this version does not know, ended the check before any pass. Without it there is no key for
// the nodes and no seed for the names, so there is nothing to repair it from. A node that does not answer is said, and
// is not damage: what only it could tell stays unchecked.
#include <algorithm>
#include <thread>

#include "control/pool_claims.h"
#include "recovery/check_context.h"

namespace rmemfs {
namespace {

Result<void> ask(NodeState& node, const FileSystemIdentity& who, const CheckOptions& options) {
  ASSIGN_OR_RETURN(node.client, options.connect ? options.connect(node.address) : NodeClient::make(node.address));
  ASSIGN_OR_RETURN(const NodeDescription description, node.client->describe(options.node_timeout_ms));
  node.generation = description.generation;
  node.pool = description.pool;
  ASSIGN_OR_RETURN(node.leases, node.client->list(who, options.node_timeout_ms));
  return success();
}

}  // namespace

Result<void> check_superblock(CheckContext& context) {
  const Superblock& superblock = context.superblock;
  const FileSystemIdentity who{superblock.uuid, superblock.key, superblock.epoch};
  for (const NodeRecord& record : superblock.nodes) {
    NodeState node;
    node.record = record;
    node.address = node_address_of(context.options.directory, record);
    context.nodes.push_back(std::move(node));
  }
  // A dead node costs its timeout; a few threads keep many dead ones from adding up.
  std::vector<Result<void>> answers(context.nodes.size(), success());
  std::atomic<std::size_t> next{0};
  const std::size_t threads = std::min<std::size_t>(context.nodes.size(), 16);
  std::vector<std::jthread> workers;
  for (std::size_t i = 0; i < threads; ++i) {
    workers.emplace_back([&] {
      for (std::size_t at = next++; at < context.nodes.size(); at = next++) {
        answers[at] = ask(context.nodes[at], who, context.options);
      }
    });
  }
  workers.clear();
  PoolClaims claims;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    NodeState& node = context.nodes[i];
    node.answered = answers[i].ok();
    if (node.answered) {
      const auto claimed = claims.claim(node.address, node.pool);
      node.doubled = !claimed.ok();
      if (node.doubled) context.notice(claimed.error().detail + ": the file system cannot be mounted so");
    } else {
      context.notice("node " + node.address +
                     " could not be asked, so its regions were not checked: " + answers[i].error().message());
    }
    context.progress(CheckPass::kSuperblock, i + 1, answers.size());
  }
  return success();
}

}  // namespace rmemfs
