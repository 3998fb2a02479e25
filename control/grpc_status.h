// Errors across gRPC: our code travels by name in the status detail, so that the caller gets exactly the Errc that the
// other side returned. Inside control/ only.
#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "util/result.h"

namespace rmemfs {

grpc::Status to_status(const Error& error);

// `where` names the call, `peer` the address that was asked, with which the detail begins. A failure of the call itself
// becomes kUnreachable (the detail then ends with the system's or gRPC's reason), kDeadline, kVersion (the service or
// method is unknown there), or kProtocol. `status` must not be OK.
Error from_status(const grpc::Status& status, const char* where, const std::string& peer);

}  // namespace rmemfs
