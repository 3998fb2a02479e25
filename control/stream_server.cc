#include "control/stream_server.h"

#include <fcntl.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>

#include <chrono>

#include "control/grpc_channel.h"

namespace rmemfs {

Result<std::unique_ptr<StreamServer>> StreamServer::start(grpc::Service& service) {
  adopt_grpc_log();
  using Builder = grpc::ServerBuilder;
  Builder builder;
  grpc::ResourceQuota quota("rmemfs control");
  quota.SetMaxThreads(16);
  quota.Resize(64 << 20);
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(Builder::SyncServerOption::NUM_CQS, 1);
  builder.SetSyncServerOption(Builder::SyncServerOption::MIN_POLLERS, 1);
  builder.SetSyncServerOption(Builder::SyncServerOption::MAX_POLLERS, 2);
  builder.SetMaxReceiveMessageSize(64 << 10);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 64);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);

  std::unique_ptr<StreamServer> server(new StreamServer);
  server->acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
      Builder::experimental_type::ExternalConnectionType::FROM_FD, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr) return Error(Errc::kNoMemory, "control server start");
  return server;
}

StreamServer::~StreamServer() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
  server_->Wait();
}

void StreamServer::adopt(UniqueFd stream) {
  const int flags = ::fcntl(stream.get(), F_GETFL);
  if (flags < 0 || ::fcntl(stream.get(), F_SETFL, flags | O_NONBLOCK) != 0) return;
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
  parameters.fd = stream.release();  // gRPC closes it, also when it has shut down already
  acceptor_->HandleNewConnection(&parameters);
}

}  // namespace rmemfs
