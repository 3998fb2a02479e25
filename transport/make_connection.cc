// The one place that knows all providers. verbs_connection.{h,cc} will stand beside the others when it is built in.
#include "transport/connection.h"
#include "transport/shm_connection.h"
#include "transport/tcp_connection.h"

namespace rmemfs {

Result<std::unique_ptr<Connection>> make_connection(const NodeAddress& address, const ConnectOptions& options) {
  switch (address.transport) {
    case TransportKind::kShm:
      return ShmConnection::make(address, options);
    case TransportKind::kTcp:
      return TcpConnection::make(address, options);
    case TransportKind::kVerbs:
      return Error(Errc::kNotSupported, "make connection",
                   address.to_string() + ": this build has no verbs transport; use tcp:// or shm:");
  }
  return Error(Errc::kInvalid, "make connection");
}

}  // namespace rmemfs
