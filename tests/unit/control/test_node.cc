#include "tests/unit/control/test_node.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cstdlib>
#include <filesystem>

#include "util/check.h"

namespace rmemfs::test {

TemporaryDirectory::TemporaryDirectory() {
  char name[] = "/tmp/rmemfs-control-XXXXXX";
  CHECK(::mkdtemp(name) != nullptr);
  path_ = name;
}
TemporaryDirectory::~TemporaryDirectory() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

ScriptedService::ScriptedService() {
  region.id = RegionId(77);
  region.generation = Generation(0x123456789abc);
  region.key = AccessKey::random();
  region.length_bytes = 8192;
  region.address = 1 << 20;
  region.rkey = 0xdeadbeef;
  region.durability = 2;
  region.persist_method = 2;
  region.tag = 5;
}

Result<void> ScriptedService::outcome(const FileSystemIdentity& who, const std::string& peer) {
  last_who = who;
  last_peer = peer;
  if (delay_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
  if (fails) return Error(*fails, "scripted", fails_with);
  return success();
}

Result<NodeDescription> ScriptedService::describe() {
  RETURN_IF_ERROR(outcome({}, {}));
  NodeDescription description;
  description.pool = Uuid::random();
  description.generation = region.generation;
  description.pool_bytes = 1 << 30;
  description.free_bytes = 1 << 29;
  description.regions = 4;
  description.durability = 1;
  description.persist_method = 3;
  description.version = "9.9.9";
  description.pid = 4711;
  return description;
}

Result<LeasedRegion> ScriptedService::lease(const FileSystemIdentity& who, std::uint64_t length_bytes,
                                            std::uint64_t minimum_bytes, std::uint64_t tag, const std::string& peer) {
  last_length = length_bytes;
  last_minimum = minimum_bytes;
  last_tag = tag;
  RETURN_IF_ERROR(outcome(who, peer));
  return region;
}

Result<void> ScriptedService::release(const FileSystemIdentity& who, RegionId id, const std::string& peer) {
  last_region = id.value();
  return outcome(who, peer);
}

Result<std::vector<LeasedRegion>> ScriptedService::list(const FileSystemIdentity& who, const std::string& peer) {
  RETURN_IF_ERROR(outcome(who, peer));
  return std::vector<LeasedRegion>(list_size, region);
}

Result<void> ScriptedService::fence(const FileSystemIdentity& who, const std::string& peer) {
  return outcome(who, peer);
}

Result<void> ScriptedService::forget(const FileSystemIdentity& who, const std::string& peer) {
  ++forgotten;
  return outcome(who, peer);
}

Result<Generation> ScriptedService::heartbeat() {
  RETURN_IF_ERROR(outcome({}, {}));
  return region.generation;
}

ServedNode::ServedNode(NodeService& service, const std::string& unix_path) {
  auto server = NodeServer::start(service);
  CHECK(server.ok());
  server_ = std::move(*server);
  if (!unix_path.empty()) {
    auto socket = ListeningUnixSocket::bind(unix_path, 0600);
    CHECK(socket.ok());
    unix_.emplace(std::move(*socket));
    address_ = "unix:" + unix_path;
  } else {
    tcp_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof name;
    CHECK(::bind(tcp_.get(), reinterpret_cast<sockaddr*>(&name), size) == 0 && ::listen(tcp_.get(), 64) == 0);
    CHECK(::getsockname(tcp_.get(), reinterpret_cast<sockaddr*>(&name), &size) == 0);
    address_ = "tcp://127.0.0.1:" + std::to_string(ntohs(name.sin_port));
  }
  stop_.reset(::eventfd(0, EFD_CLOEXEC));
  thread_ = std::thread([this] { accept_until_stopped(); });
}

ServedNode::~ServedNode() {
  const std::uint64_t one = 1;
  CHECK(::write(stop_.get(), &one, sizeof one) == sizeof one);
  thread_.join();
}

void ServedNode::accept_until_stopped() {
  const int listening = unix_ ? unix_->fd() : tcp_.get();
  pollfd waits[2] = {{stop_.get(), POLLIN, 0}, {listening, POLLIN, 0}};
  while (::poll(waits, 2, -1) >= 0 && waits[0].revents == 0) {
    UniqueFd stream(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!stream.valid()) continue;
    if (frozen_)
      kept_.push_back(std::move(stream));
    else
      server_->adopt(std::move(stream));
  }
}

FileSystemIdentity some_identity() {
  FileSystemIdentity who;
  who.uuid = Uuid::random();
  who.key = AccessKey::random();
  who.epoch = MountEpoch(12);
  return who;
}

}  // namespace rmemfs::test
