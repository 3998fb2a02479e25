#include "control/node_client.h"

#include <charconv>
#include <filesystem>
#include <thread>

#include "control/grpc_channel.h"
#include "control/grpc_status.h"
#include "control/node.grpc.pb.h"
#include "control/node_messages.h"
#include "control/protocol.h"

namespace rmemfs {
namespace {

Error bad_address(const std::string& address) {
  return Error(Errc::kInvalid, "node address",
               "\"" + address + "\" is not shm:PATH, unix:PATH, tcp://HOST:PORT or rdma://HOST:PORT");
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

Result<GrpcChannel> open_channel(const std::string& address) {
  std::string_view rest = address;
  if (rest.find('\0') != std::string_view::npos) return bad_address(address);
  if (take_prefix(rest, "shm:") || take_prefix(rest, "unix:")) {
    std::error_code error;
    // A daemon changes its directory later; the channel connects at any time.
    const std::filesystem::path path = std::filesystem::absolute(std::filesystem::path(rest), error);
    if (rest.empty() || error) return bad_address(address);
    return open_unix_channel(path.string());
  }
  if (!take_prefix(rest, "tcp://") && !take_prefix(rest, "rdma://")) return bad_address(address);
  const std::size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) return bad_address(address);
  std::string_view host = rest.substr(0, colon);
  const std::string_view port = rest.substr(colon + 1);
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size() || number == 0) return bad_address(address);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    if (host.find(':') == std::string_view::npos) return bad_address(address);
  } else if (host.find(':') != std::string_view::npos) {
    return bad_address(address);
  }
  if (host.empty() || host.find_first_of("/[]@?# ") != std::string_view::npos) return bad_address(address);
  return open_tcp_channel(std::string(host), std::to_string(number));
}

// What a mount begins with: one attempt to connect may fail for a reason that passes, such as a node that is starting.
constexpr Duration kPatience = std::chrono::milliseconds(700);
constexpr Duration kPause = std::chrono::milliseconds(100);

class Client final : public NodeClient {
 public:
  Client(std::string address, GrpcChannel channel)
      : address_(std::move(address)), channel_(std::move(channel)), stub_(node::Node::NewStub(channel_.channel)) {}

  Result<NodeDescription> describe(std::uint32_t timeout_ms) override {
    node::DescribeRequest request;
    node::DescribeReply reply;
    RETURN_IF_ERROR(call(&Stub::Describe, request, reply, timeout_ms, "node describe", kPatience));
    if (reply.protocol_version() != kNodeProtocolVersion) {
      return Error(Errc::kVersion, "node describe",
                   address_ + ": speaks version " + std::to_string(reply.protocol_version()));
    }
    return named(read_message(reply), "node describe");
  }

  Result<LeasedRegion> lease(const FileSystemIdentity& who, std::uint64_t length_bytes, std::uint64_t minimum_bytes,
                             std::uint64_t tag, std::uint32_t timeout_ms) override {
    node::LeaseRequest request;
    write_message(who, *request.mutable_who());
    request.set_length_bytes(length_bytes);
    request.set_minimum_bytes(minimum_bytes);
    request.set_tag(tag);
    node::Region reply;
    // A lease must not happen twice, so it is sent once, over a connection that a heartbeat has just proved alive.
    const TimePoint deadline = deadline_after_ms(timeout_ms);
    RETURN_IF_ERROR(heartbeat(timeout_ms));
    RETURN_IF_ERROR(call_once(&Stub::Lease, request, reply, deadline, "node lease"));
    Result<LeasedRegion> region = named(read_message(reply), "node lease");
    if (region.ok() && (region->length_bytes > length_bytes || region->length_bytes < minimum_bytes)) {
      return Error(Errc::kProtocol, "node lease", address_ + ": leased another length than asked");
    }
    return region;
  }

  Result<void> release(const FileSystemIdentity& who, RegionId region, std::uint32_t timeout_ms) override {
    node::ReleaseRequest request;
    write_message(who, *request.mutable_who());
    request.set_region(region.value());
    node::Empty reply;
    return call(&Stub::Release, request, reply, timeout_ms, "node release");
  }

  Result<std::vector<LeasedRegion>> list(const FileSystemIdentity& who, std::uint32_t timeout_ms) override {
    node::ListRequest request;
    write_message(who, *request.mutable_who());
    node::ListReply reply;
    RETURN_IF_ERROR(call(&Stub::List, request, reply, timeout_ms, "node list"));
    std::vector<LeasedRegion> regions;
    regions.reserve(static_cast<std::size_t>(reply.regions_size()));
    for (const node::Region& message : reply.regions()) {
      ASSIGN_OR_RETURN(LeasedRegion region, named(read_message(message), "node list"));
      regions.push_back(region);
    }
    return regions;
  }

  Result<void> fence(const FileSystemIdentity& who, std::uint32_t timeout_ms) override {
    node::FenceRequest request;
    write_message(who, *request.mutable_who());
    node::Empty reply;
    return call(&Stub::Fence, request, reply, timeout_ms, "node fence", kPatience);
  }

  Result<void> forget(const FileSystemIdentity& who, std::uint32_t timeout_ms) override {
    node::ForgetRequest request;
    write_message(who, *request.mutable_who());
    node::Empty reply;
    return call(&Stub::Forget, request, reply, timeout_ms, "node forget");
  }

  Result<Generation> heartbeat(std::uint32_t timeout_ms) override {
    node::HeartbeatRequest request;
    node::HeartbeatReply reply;
    RETURN_IF_ERROR(call(&Stub::Heartbeat, request, reply, timeout_ms, "node heartbeat"));
    if (reply.generation() == 0) return Error(Errc::kProtocol, "node heartbeat", address_);
    return Generation(reply.generation());
  }

 private:
  using Stub = node::Node::Stub;

  template <typename Request, typename Reply>
  Result<void> call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*), Request& request,
                    Reply& reply, std::uint32_t timeout_ms, const char* where, Duration patience = Duration::zero()) {
    const TimePoint deadline = deadline_after_ms(timeout_ms);
    const TimePoint patient_until = std::min(deadline, MonoClock::now() + patience);
    Result<void> result = call_once(method, request, reply, deadline, where);
    const auto unreachable = [&] { return !result.ok() && result.error().code == Errc::kUnreachable; };
    // A node that was restarted since the last call is met through the old, dead connection first; only a call finds
    // that out. Asking once more meets the new one. Every call that comes here may happen twice.
    if (unreachable() && MonoClock::now() < deadline) result = call_once(method, request, reply, deadline, where);
    while (unreachable() && MonoClock::now() + kPause < patient_until) {
      std::this_thread::sleep_for(kPause);
      result = call_once(method, request, reply, deadline, where);
    }
    return result;
  }

  template <typename Request, typename Reply>
  Result<void> call_once(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*), Request& request,
                         Reply& reply, TimePoint deadline, const char* where) {
    request.set_protocol_version(kNodeProtocolVersion);
    grpc::ClientContext context;
    set_deadline(context, deadline);
    const grpc::Status status = ((*stub_).*method)(&context, request, &reply);
    if (!status.ok()) return from_status(status, where, address_);
    return success();
  }

  // A reply that does not make sense is told with the node's address.
  template <typename T>
  Result<T> named(Result<T> result, const char* where) const {
    if (result.ok()) return result;
    return Error(result.error().code, where, address_ + ": " + result.error().detail);
  }

  const std::string address_;
  const GrpcChannel channel_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace

Error node_failure(const std::string& address, const Error& error) {
  std::string thing = error.detail.starts_with(address) ? error.detail : address;
  if (error.code != Errc::kDeadline) return Error(error.code, "mount", "memory node " + thing);
  return Error(Errc::kUnreachable, "mount", "memory node " + thing + ": no answer in time");
}

Result<std::unique_ptr<NodeClient>> NodeClient::make(const std::string& address) {
  ASSIGN_OR_RETURN(GrpcChannel channel, open_channel(address));
  return std::unique_ptr<NodeClient>(std::make_unique<Client>(address, std::move(channel)));
}

}  // namespace rmemfs
