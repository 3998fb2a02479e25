// Listener: accepts streams on unix and TCP sockets and gives each to the plane that its first 8 bytes name.
//
//   "RMEMTCP1"  the tcp target          "RMEMSHM1"  the shm target, on a unix socket only
//   "PRI * HT"  gRPC                    anything else is closed
//
// One thread polls all of it; nothing a peer does or omits makes another wait. Bounds: 256 streams that have not said
// who they are (the oldest makes room, and none lives longer than 5 s), 1024 control streams; data streams are bounded
// by their targets. Out of descriptors: the oldest silent stream makes room, or accepting pauses for 100 ms.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "control/node_server.h"
#include "transport/target.h"
#include "util/result.h"

namespace rmemfs {

class Listener {
 public:
  struct Options {
    std::vector<std::string> addresses;  // "unix:PATH", "tcp://HOST:PORT", "rdma://HOST:PORT" (port 0: any)
    bool insecure = false;               // allow TCP beyond loopback
    std::uint32_t socket_mode = 0600;    // of unix sockets
    std::uint32_t first_bytes_timeout_ms = 5000;
    std::size_t max_silent = 256;
    std::size_t max_control = 1024;
  };
  struct Routes {  // all outlive the listener
    Target* tcp = nullptr;
    Target* shm = nullptr;
    NodeServer* control = nullptr;
  };
  // kInvalid (an address, or TCP beyond loopback without `insecure`), kLocked (a live socket is there), kExists (not a
  // socket), kBusy (the port is taken), kAccess. The detail says all of it.
  static Result<std::unique_ptr<Listener>> start(const Options& options, const Routes& routes);
  virtual ~Listener() = default;  // stops accepting; streams that were handed over live on

  // What is listened on, with real port numbers.
  virtual std::vector<std::string> addresses() const = 0;
  virtual std::size_t silent_streams() const = 0;
};

}  // namespace rmemfs
