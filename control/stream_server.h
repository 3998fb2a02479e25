// A gRPC server without a listener: it serves the streams that are handed to it by descriptor, so that one socket can
// carry both planes and has the permissions we want. Inside control/ only. Thread-safe.
//
// Bounds: 16 handler threads, 64 KiB per request, 64 calls per stream, streams idle for a minute are closed.
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>

#include "util/result.h"
#include "util/unique_fd.h"

namespace rmemfs {

class StreamServer {
 public:
  // `service` outlives the server. kNoMemory when gRPC does not start.
  static Result<std::unique_ptr<StreamServer>> start(grpc::Service& service);
  ~StreamServer();  // cancels calls after half a second, waits for their handlers

  void adopt(UniqueFd stream);

 private:
  StreamServer() = default;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace rmemfs
