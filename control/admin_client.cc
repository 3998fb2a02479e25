#include "control/admin.grpc.pb.h"
#include "control/admin.h"
#include "control/grpc_channel.h"
#include "control/grpc_status.h"
#include "control/protocol.h"
#include "control/unix_socket.h"

namespace rmemfs {
namespace {

class Client final : public AdminClient {
 public:
  Client(std::string directory, GrpcChannel channel)
      : directory_(std::move(directory)),
        channel_(std::move(channel)),
        stub_(admin::Admin::NewStub(channel_.channel)) {}

  Result<AdminStatus> status(std::uint32_t timeout_ms) override {
    admin::StatusReply reply;
    RETURN_IF_ERROR(call(&Stub::Status, reply, timeout_ms, "mount status"));
    AdminStatus status;
    status.uuid = reply.uuid();
    status.directory = reply.directory();
    status.mountpoint = reply.mountpoint();
    status.version = reply.version();
    status.state = reply.state();
    status.reason = reply.reason();
    status.survives = reply.survives();
    status.pid = reply.pid();
    status.epoch = reply.epoch();
    status.lanes = reply.lanes();
    status.total_bytes = reply.total_bytes();
    status.free_bytes = reply.free_bytes();
    status.inodes = reply.inodes();
    status.lost_bytes = reply.lost_bytes();
    status.uptime_seconds = reply.uptime_seconds();
    return status;
  }

  Result<AdminCounters> counters(std::uint32_t timeout_ms) override {
    admin::CountersReply reply;
    RETURN_IF_ERROR(call(&Stub::Counters, reply, timeout_ms, "mount statistics"));
    AdminCounters counters;
    for (const admin::Counter& counter : reply.counters()) counters.emplace_back(counter.name(), counter.value());
    return counters;
  }

  Result<std::vector<AdminNode>> nodes(std::uint32_t timeout_ms) override {
    admin::NodesReply reply;
    RETURN_IF_ERROR(call(&Stub::Nodes, reply, timeout_ms, "mount nodes"));
    std::vector<AdminNode> nodes;
    for (const admin::Node& message : reply.nodes()) {
      AdminNode node;
      node.id = message.id();
      node.address = message.address();
      node.health = message.health();
      node.durability = message.durability();
      node.pool_bytes = message.pool_bytes();
      node.free_bytes = message.free_bytes();
      node.leased_bytes = message.leased_bytes();
      node.used_bytes = message.used_bytes();
      node.lost_bytes = message.lost_bytes();
      node.chunks = message.chunks();
      node.seconds_since_answer = message.seconds_since_answer();
      nodes.push_back(std::move(node));
    }
    return nodes;
  }

  Result<std::vector<std::string>> lost_files(std::uint32_t timeout_ms) override {
    grpc::ClientContext context;
    set_deadline(context, deadline_after_ms(timeout_ms));
    const auto reader = stub_->LostFiles(&context, request());
    std::vector<std::string> files;
    admin::LostFilesReply reply;
    while (reader->Read(&reply)) files.insert(files.end(), reply.paths().begin(), reply.paths().end());
    if (const grpc::Status status = reader->Finish(); !status.ok()) {
      return from_status(status, "mount lost files", directory_);
    }
    return files;
  }

  Result<void> remount(unsigned long mount_flags, std::uint32_t timeout_ms) override {
    admin::RemountRequest request;
    request.set_protocol_version(kAdminProtocolVersion);
    request.set_mount_flags(mount_flags);
    admin::RemountReply reply;
    grpc::ClientContext context;
    set_deadline(context, deadline_after_ms(timeout_ms));
    const grpc::Status status = stub_->Remount(&context, request, &reply);
    if (!status.ok()) return from_status(status, "remount", directory_);
    return success();
  }

 private:
  using Stub = admin::Admin::Stub;

  static admin::Request request() {
    admin::Request request;
    request.set_protocol_version(kAdminProtocolVersion);
    return request;
  }

  template <typename Reply>
  Result<void> call(grpc::Status (Stub::*method)(grpc::ClientContext*, const admin::Request&, Reply*), Reply& reply,
                    std::uint32_t timeout_ms, const char* where) {
    grpc::ClientContext context;
    set_deadline(context, deadline_after_ms(timeout_ms));
    const grpc::Status status = ((*stub_).*method)(&context, request(), &reply);
    if (!status.ok()) return from_status(status, where, directory_);
    return success();
  }

  const std::string directory_;
  const GrpcChannel channel_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace

Result<std::unique_ptr<AdminClient>> AdminClient::connect(const std::string& directory) {
  const std::string path = directory + "/admin.sock";
  Result<SocketPath> socket = SocketPath::open(path);
  Result<UniqueFd> live = socket.ok() ? connect_unix(*socket) : Result<UniqueFd>(socket.error());
  if (!live.ok()) {
    const Errc code = live.error().code;
    if (code == Errc::kNotFound || code == Errc::kNotDirectory || code == Errc::kUnreachable) {
      return Error(Errc::kNotFound, "mount", directory + ": nothing is mounted from here");
    }
    return Error(code, "mount", directory);
  }
  ASSIGN_OR_RETURN(GrpcChannel channel, open_unix_channel(path));
  return std::unique_ptr<AdminClient>(std::make_unique<Client>(directory, std::move(channel)));
}

}  // namespace rmemfs
