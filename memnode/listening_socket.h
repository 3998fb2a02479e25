// A listening socket of a memory node, by its address. Of an rdma:// address it is the TCP side, at the same host and
// port: the control plane, and data of those who cannot use RDMA. (VerbsTarget listens for the others.)
#pragma once

#include <optional>
#include <string>

#include "control/unix_socket.h"
#include "util/result.h"
#include "util/unique_fd.h"

namespace rmemfs {

struct ListeningSocket {
  std::string address;  // with the real port
  bool is_unix = false;
  std::optional<ListeningUnixSocket> unix_socket;
  UniqueFd tcp_socket;
  int fd() const { return is_unix ? unix_socket->fd() : tcp_socket.get(); }
};

// Errors as in Listener::start. Resolves host names: may block for as long as the resolver does.
Result<ListeningSocket> listen_on(const std::string& address, bool insecure, std::uint32_t socket_mode);

}  // namespace rmemfs
