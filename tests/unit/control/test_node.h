// A node's services behind a real socket: the service answers what the test tells it to.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "control/node_client.h"
#include "control/node_server.h"
#include "control/unix_socket.h"

namespace rmemfs::test {

// A directory under /tmp that goes with all that is in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

class ScriptedService final : public NodeService {
 public:
  std::optional<Errc> fails;     // every call fails with this
  std::string fails_with;        // and this detail
  std::atomic<int> delay_ms{0};  // every call takes this long
  FileSystemIdentity last_who;
  std::uint64_t last_length = 0, last_minimum = 0, last_tag = 0, last_region = 0;
  int forgotten = 0;
  std::string last_peer;
  LeasedRegion region;
  std::size_t list_size = 3;

  ScriptedService();
  Result<NodeDescription> describe() override;
  Result<LeasedRegion> lease(const FileSystemIdentity& who, std::uint64_t length_bytes, std::uint64_t minimum_bytes,
                             std::uint64_t tag, const std::string& peer) override;
  Result<void> release(const FileSystemIdentity& who, RegionId id, const std::string& peer) override;
  Result<std::vector<LeasedRegion>> list(const FileSystemIdentity& who, const std::string& peer) override;
  Result<void> fence(const FileSystemIdentity& who, const std::string& peer) override;
  Result<void> forget(const FileSystemIdentity& who, const std::string& peer) override;
  Result<Generation> heartbeat() override;

 private:
  Result<void> outcome(const FileSystemIdentity& who, const std::string& peer);
};

// Accepts on a unix socket, or on a loopback port, and gives every stream to gRPC.
class ServedNode {
 public:
  ServedNode(NodeService& service, const std::string& unix_path);  // "" for TCP
  ~ServedNode();
  const std::string& address() const { return address_; }
  // From now on streams are accepted and left alone, as a frozen node does.
  void freeze() { frozen_ = true; }
  void thaw() { frozen_ = false; }

 private:
  void accept_until_stopped();
  std::string address_;
  std::unique_ptr<NodeServer> server_;
  std::optional<ListeningUnixSocket> unix_;
  UniqueFd tcp_, stop_;
  std::atomic<bool> frozen_{false};
  std::vector<UniqueFd> kept_;
  std::thread thread_;
};

FileSystemIdentity some_identity();

}  // namespace rmemfs::test
