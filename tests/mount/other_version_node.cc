// A memory node that speaks another protocol version: it says so to every call.
//   other_version_node SOCKET_PATH       serves until it is killed
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "control/node_server.h"

namespace rmemfs {
namespace {

class OtherVersion : public NodeService {
 public:
  Result<NodeDescription> describe() override { return no(); }
  Result<LeasedRegion> lease(const FileSystemIdentity&, std::uint64_t, std::uint64_t, std::uint64_t,
                             const std::string&) override {
    return no();
  }
  Result<void> release(const FileSystemIdentity&, RegionId, const std::string&) override { return no(); }
  Result<std::vector<LeasedRegion>> list(const FileSystemIdentity&, const std::string&) override { return no(); }
  Result<void> fence(const FileSystemIdentity&, const std::string&) override { return no(); }
  Result<void> forget(const FileSystemIdentity&, const std::string&) override { return no(); }
  Result<Generation> heartbeat() override { return no(); }

 private:
  static tl::unexpected<Error> no() { return tl::unexpected<Error>(Error(Errc::kVersion, "node")); }
};

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  rmemfs::OtherVersion service;
  auto server = rmemfs::NodeServer::start(service);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
  int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (!server || ::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      ::listen(listener, 16) < 0)
    return 1;
  for (;;) {
    int stream = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (stream >= 0) (*server)->adopt(rmemfs::UniqueFd(stream));
  }
}
