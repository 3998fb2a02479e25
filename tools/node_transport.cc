#include "tools/node_transport.h"

#include <thread>

#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kProbeLane = UINT32_MAX;  // no lane's session is ended by it

}  // namespace

Result<NodeTransports> choose_transports(const std::vector<NodeStatus>& nodes, TransportChoice choice,
                                         const ConnectOptions& connect, std::uint32_t timeout_ms) {
  NodeTransports chosen;
  for (const NodeStatus& node : nodes) {
    ASSIGN_OR_RETURN(chosen[node.id], NodeAddress::parse(node.address));
  }
  std::unordered_map<NodeId, Result<void>> outcomes;
  for (const auto& [id, address] : chosen) {
    if (address.transport == TransportKind::kVerbs) outcomes.emplace(id, success());
  }
  if (choice != TransportChoice::kTcp) {
    ConnectOptions probe = connect;
    probe.session.lane = kProbeLane;
    std::vector<std::jthread> threads;
    for (auto& [id, outcome] : outcomes) {
      threads.emplace_back([&outcome = outcome, &address = chosen.at(id), &probe, timeout_ms] {
        outcome = probe_verbs(address, probe, timeout_ms);
      });
    }
  }
  for (const auto& [id, outcome] : outcomes) {
    NodeAddress& address = chosen.at(id);
    const bool without = !outcome.ok() && outcome.error().code == Errc::kNotSupported;
    if (choice == TransportChoice::kAuto && !without) continue;
    if (choice == TransportChoice::kRdma) {
      if (!without) continue;
      return Error(Errc::kNotSupported, "",
                   "transport=rdma: no RDMA to memory node " + address.to_string() + ": " + outcome.error().detail);
    }
    const std::string name = address.to_string();
    address.transport = TransportKind::kTcp;
    log::warn("memory node {} is reached over tcp: {}", name,
              without ? outcome.error().detail : std::string("transport=tcp"));
  }
  return chosen;
}

}  // namespace rmemfs
