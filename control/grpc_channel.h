// One gRPC channel to one server, set up so that nothing hangs and a server that comes back is seen within a second.
// Inside control/ only.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <string>

#include "control/unix_socket.h"
#include "util/clock.h"
#include "util/result.h"

namespace rmemfs {

// The channel and what must live as long as it: the opened directory of a long socket path.
struct GrpcChannel {
  std::shared_ptr<grpc::Channel> channel;
  SocketPath path;  // of a unix socket with a long path only
};

// Neither connects. For a path of more than 107 bytes kNotFound when its directory does not exist, and kNameTooLong.
Result<GrpcChannel> open_unix_channel(const std::string& path);
GrpcChannel open_tcp_channel(const std::string& host, const std::string& port);

void set_deadline(grpc::ClientContext& context, TimePoint deadline);

// Sends gRPC's own messages to our log at debug level: a dead node is our error, told once, not gRPC's on stderr.
void adopt_grpc_log();

}  // namespace rmemfs
