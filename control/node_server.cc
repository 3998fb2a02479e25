#include "control/node_server.h"

#include "control/grpc_status.h"
#include "control/node.grpc.pb.h"
#include "control/node_messages.h"
#include "control/protocol.h"
#include "control/stream_server.h"

namespace rmemfs {
namespace {

std::string version_detail(std::uint32_t theirs) {
  return "asked in version " + std::to_string(theirs) + ", this node speaks " + std::to_string(kNodeProtocolVersion);
}

template <typename Request>
Result<void> check_version(const Request& request) {
  if (request.protocol_version() == kNodeProtocolVersion) return success();
  return Error(Errc::kVersion, "node", version_detail(request.protocol_version()));
}

// Each method: check the version, read the identity, ask the service, write the answer.
class Adapter final : public node::Node::Service {
 public:
  explicit Adapter(NodeService& service) : service_(service) {}

  grpc::Status Describe(grpc::ServerContext*, const node::DescribeRequest* request,
                        node::DescribeReply* reply) override {
    return answer(describe(*request, *reply));
  }
  grpc::Status Lease(grpc::ServerContext* context, const node::LeaseRequest* request, node::Region* reply) override {
    return answer(lease(*request, context->peer(), *reply));
  }
  grpc::Status Release(grpc::ServerContext* context, const node::ReleaseRequest* request, node::Empty*) override {
    return answer(release(*request, context->peer()));
  }
  grpc::Status List(grpc::ServerContext* context, const node::ListRequest* request, node::ListReply* reply) override {
    return answer(list(*request, context->peer(), *reply));
  }
  grpc::Status Fence(grpc::ServerContext* context, const node::FenceRequest* request, node::Empty*) override {
    return answer(fence(*request, context->peer()));
  }
  grpc::Status Forget(grpc::ServerContext* context, const node::ForgetRequest* request, node::Empty*) override {
    return answer(forget(*request, context->peer()));
  }
  grpc::Status Heartbeat(grpc::ServerContext*, const node::HeartbeatRequest* request,
                         node::HeartbeatReply* reply) override {
    return answer(heartbeat(*request, *reply));
  }

 private:
  static grpc::Status answer(const Result<void>& result) {
    return result.ok() ? grpc::Status::OK : to_status(result.error());
  }
  Result<void> describe(const node::DescribeRequest& request, node::DescribeReply& reply) {
    RETURN_IF_ERROR(check_version(request));
    ASSIGN_OR_RETURN(NodeDescription description, service_.describe());
    description.protocol_version = kNodeProtocolVersion;
    write_message(description, reply);
    return success();
  }
  Result<void> lease(const node::LeaseRequest& request, const std::string& peer, node::Region& reply) {
    RETURN_IF_ERROR(check_version(request));
    ASSIGN_OR_RETURN(const FileSystemIdentity who, read_message(request.who()));
    ASSIGN_OR_RETURN(const LeasedRegion region,
                     service_.lease(who, request.length_bytes(), request.minimum_bytes(), request.tag(), peer));
    write_message(region, reply);
    return success();
  }
  Result<void> release(const node::ReleaseRequest& request, const std::string& peer) {
    RETURN_IF_ERROR(check_version(request));
    ASSIGN_OR_RETURN(const FileSystemIdentity who, read_message(request.who()));
    return service_.release(who, RegionId(request.region()), peer);
  }
  Result<void> list(const node::ListRequest& request, const std::string& peer, node::ListReply& reply) {
    RETURN_IF_ERROR(check_version(request));
    ASSIGN_OR_RETURN(const FileSystemIdentity who, read_message(request.who()));
    ASSIGN_OR_RETURN(const std::vector<LeasedRegion> regions, service_.list(who, peer));
    for (const LeasedRegion& region : regions) write_message(region, *reply.add_regions());
    return success();
  }
  Result<void> fence(const node::FenceRequest& request, const std::string& peer) {
    RETURN_IF_ERROR(check_version(request));
    ASSIGN_OR_RETURN(const FileSystemIdentity who, read_message(request.who()));
    return service_.fence(who, peer);
  }
  Result<void> forget(const node::ForgetRequest& request, const std::string& peer) {
    RETURN_IF_ERROR(check_version(request));
    ASSIGN_OR_RETURN(const FileSystemIdentity who, read_message(request.who()));
    return service_.forget(who, peer);
  }
  Result<void> heartbeat(const node::HeartbeatRequest& request, node::HeartbeatReply& reply) {
    RETURN_IF_ERROR(check_version(request));
    ASSIGN_OR_RETURN(const Generation generation, service_.heartbeat());
    reply.set_generation(generation.value());
    return success();
  }

  NodeService& service_;
};

class Server final : public NodeServer {
 public:
  explicit Server(NodeService& service) : adapter_(service) {}
  Result<void> start() {
    ASSIGN_OR_RETURN(streams_, StreamServer::start(adapter_));
    return success();
  }
  void adopt(UniqueFd stream) override { streams_->adopt(std::move(stream)); }

 private:
  Adapter adapter_;
  std::unique_ptr<StreamServer> streams_;  // ends before adapter_
};

}  // namespace

Result<std::unique_ptr<NodeServer>> NodeServer::start(NodeService& service) {
  auto server = std::make_unique<Server>(service);
  RETURN_IF_ERROR(server->start());
  return std::unique_ptr<NodeServer>(std::move(server));
}

}  // namespace rmemfs
