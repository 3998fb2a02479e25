// The one place that knows all providers.
#include "transport/connection.h"
#include "transport/shm_connection.h"
#include "transport/tcp_connection.h"
#include "transport/verbs_connection.h"

namespace rmemfs {

Result<std::unique_ptr<Connection>> make_connection(const NodeAddress& address, const ConnectOptions& options) {
  switch (address.transport) {
    case TransportKind::kShm:
      return ShmConnection::make(address, options);
    case TransportKind::kTcp:
      return TcpConnection::make(address, options);
    case TransportKind::kVerbs:
      return VerbsConnection::make(address, options);
  }
  return Error(Errc::kInvalid, "make connection");
}

}  // namespace rmemfs
