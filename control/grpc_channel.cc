#include "control/grpc_channel.h"

#include <arpa/inet.h>
#include <grpc/support/log.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <sys/un.h>

#include <chrono>

#include "util/log.h"

namespace rmemfs {
namespace {

grpc::ChannelArguments arguments() {
  grpc::ChannelArguments args;
  // Each client has its own connection: a client that goes takes its connection along, and one that is new does not
  // inherit another's back-off.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 250);
  // Despite its name this is how long one attempt to connect may take.
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  args.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 500);
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  args.SetMaxReceiveMessageSize(64 << 20);
  return args;
}

// gRPC reads its target as a URI, so what a URI gives a meaning to is escaped.
std::string escape(const std::string& text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || std::string_view("/._-").find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return out;
}

std::shared_ptr<grpc::Channel> make(const std::string& target) {
  adopt_grpc_log();
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments());
}

void to_our_log(gpr_log_func_args* args) { log::debug("grpc: {}", args->message); }

}  // namespace

Result<GrpcChannel> open_unix_channel(const std::string& path) {
  GrpcChannel result;
  if (path.size() < sizeof(sockaddr_un::sun_path)) {
    result.channel = make("unix:" + escape(path));
  } else {
    ASSIGN_OR_RETURN(result.path, SocketPath::open(path));
    result.channel = make("unix:" + escape(result.path.reachable()));
  }
  return result;
}

GrpcChannel open_tcp_channel(const std::string& host, const std::string& port) {
  unsigned char binary[sizeof(in6_addr)];
  GrpcChannel result;
  if (::inet_pton(AF_INET, host.c_str(), binary) == 1) {
    result.channel = make("ipv4:" + host + ":" + port);
  } else if (host.find(':') != std::string::npos) {
    result.channel = make("ipv6:%5B" + escape(host) + "%5D:" + port);
  } else {
    result.channel = make("dns:///" + escape(host) + ":" + port);
  }
  return result;
}

void set_deadline(grpc::ClientContext& context, TimePoint deadline) {
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::duration_cast<std::chrono::system_clock::duration>(deadline - MonoClock::now()));
}

void adopt_grpc_log() { gpr_set_log_function(&to_our_log); }

}  // namespace rmemfs
