// The administration socket: a thread accepts, gRPC serves and closes idle streams. Streams beyond the kernel's queue
// of 64 wait in connect().
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <thread>

#include "control/admin.grpc.pb.h"
#include "control/admin.h"
#include "control/grpc_status.h"
#include "control/protocol.h"
#include "control/stream_server.h"
#include "control/unix_socket.h"
#include "util/check.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::size_t kPathsPerMessage = 1000;
constexpr int kBacklog = 64;

template <typename Request>
Result<void> check_version(const Request& request) {
  if (request.protocol_version() == kAdminProtocolVersion) return success();
  return Error(Errc::kVersion, "admin",
               "asked in version " + std::to_string(request.protocol_version()) + ", this mount speaks " +
                   std::to_string(kAdminProtocolVersion));
}

class Adapter final : public admin::Admin::Service {
 public:
  explicit Adapter(AdminHandlers handlers) : handlers_(std::move(handlers)) {}

  grpc::Status Status(grpc::ServerContext*, const admin::Request* request, admin::StatusReply* reply) override {
    if (const Result<void> version = check_version(*request); !version.ok()) return to_status(version.error());
    const AdminStatus status = handlers_.status();
    reply->set_uuid(status.uuid);
    reply->set_directory(status.directory);
    reply->set_mountpoint(status.mountpoint);
    reply->set_version(status.version);
    reply->set_state(status.state);
    reply->set_reason(status.reason);
    reply->set_survives(status.survives);
    reply->set_pid(status.pid);
    reply->set_epoch(status.epoch);
    reply->set_lanes(status.lanes);
    reply->set_total_bytes(status.total_bytes);
    reply->set_free_bytes(status.free_bytes);
    reply->set_inodes(status.inodes);
    reply->set_lost_bytes(status.lost_bytes);
    reply->set_uptime_seconds(status.uptime_seconds);
    return grpc::Status::OK;
  }

  grpc::Status Counters(grpc::ServerContext*, const admin::Request* request, admin::CountersReply* reply) override {
    if (const Result<void> version = check_version(*request); !version.ok()) return to_status(version.error());
    for (const auto& [name, value] : handlers_.counters()) {
      admin::Counter& counter = *reply->add_counters();
      counter.set_name(name);
      counter.set_value(value);
    }
    return grpc::Status::OK;
  }

  grpc::Status Nodes(grpc::ServerContext*, const admin::Request* request, admin::NodesReply* reply) override {
    if (const Result<void> version = check_version(*request); !version.ok()) return to_status(version.error());
    for (const AdminNode& node : handlers_.nodes()) {
      admin::Node& message = *reply->add_nodes();
      message.set_id(node.id);
      message.set_address(node.address);
      message.set_health(node.health);
      message.set_durability(node.durability);
      message.set_pool_bytes(node.pool_bytes);
      message.set_free_bytes(node.free_bytes);
      message.set_leased_bytes(node.leased_bytes);
      message.set_used_bytes(node.used_bytes);
      message.set_lost_bytes(node.lost_bytes);
      message.set_chunks(node.chunks);
      message.set_seconds_since_answer(node.seconds_since_answer);
    }
    return grpc::Status::OK;
  }

  grpc::Status LostFiles(grpc::ServerContext* context, const admin::Request* request,
                         grpc::ServerWriter<admin::LostFilesReply>* writer) override {
    if (const Result<void> version = check_version(*request); !version.ok()) return to_status(version.error());
    const std::vector<std::string> files = handlers_.lost_files();
    admin::LostFilesReply reply;
    for (std::size_t i = 0; i < files.size() && !context->IsCancelled(); ++i) {
      reply.add_paths(files[i]);
      if (static_cast<std::size_t>(reply.paths_size()) < kPathsPerMessage && i + 1 < files.size()) continue;
      if (!writer->Write(reply)) break;  // the caller is gone
      reply.Clear();
    }
    return grpc::Status::OK;
  }

  grpc::Status Remount(grpc::ServerContext*, const admin::RemountRequest* request, admin::RemountReply*) override {
    if (const Result<void> version = check_version(*request); !version.ok()) return to_status(version.error());
    const Result<void> done = handlers_.remount(request->mount_flags());
    return done.ok() ? grpc::Status::OK : to_status(done.error());
  }

 private:
  const AdminHandlers handlers_;
};

class Server final : public AdminServer {
 public:
  Server(AdminHandlers handlers, ListeningUnixSocket socket, UniqueFd stop)
      : adapter_(std::move(handlers)), socket_(std::move(socket)), stop_(std::move(stop)) {}

  ~Server() override {
    if (!acceptor_.joinable()) return;
    const std::uint64_t one = 1;
    CHECK(::write(stop_.get(), &one, sizeof one) == sizeof one);
    acceptor_.join();
  }

  Result<void> start() {
    ASSIGN_OR_RETURN(streams_, StreamServer::start(adapter_));
    acceptor_ = std::thread([this] { accept_until_stopped(); });
    return success();
  }

 private:
  void accept_until_stopped() {
    pollfd waits[2] = {{stop_.get(), POLLIN, 0}, {socket_.fd(), POLLIN, 0}};
    for (;;) {
      const int ready = ::poll(waits, 2, -1);  // the stop descriptor ends it
      if (ready < 0 && errno != EINTR) return log::error("admin socket: poll: {}", errno);
      if (ready <= 0) continue;
      if (waits[0].revents != 0) return;
      UniqueFd stream(::accept4(socket_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (stream.valid()) {
        streams_->adopt(std::move(stream));
      } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        ::poll(waits, 1, 100);  // out of descriptors: let some go before the next attempt
      }
    }
  }

  Adapter adapter_;
  ListeningUnixSocket socket_;
  UniqueFd stop_;
  std::unique_ptr<StreamServer> streams_;  // ends before adapter_
  std::thread acceptor_;
};

}  // namespace

Result<std::unique_ptr<AdminServer>> AdminServer::start(const std::string& directory, AdminHandlers handlers) {
  CHECK(handlers.status && handlers.counters && handlers.nodes && handlers.lost_files && handlers.remount);
  ASSIGN_OR_RETURN(ListeningUnixSocket socket, ListeningUnixSocket::bind(directory + "/admin.sock", 0600, kBacklog));
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop.valid()) return Error(errc_from_errno(errno), "admin socket", directory);
  auto server = std::make_unique<Server>(std::move(handlers), std::move(socket), std::move(stop));
  RETURN_IF_ERROR(server->start());
  return std::unique_ptr<AdminServer>(std::move(server));
}

}  // namespace rmemfs
