#include "control/grpc_status.h"

#include <optional>

#include "control/failure.pb.h"

namespace rmemfs {
namespace {

struct NamedCode {
  std::string_view name;
  Errc code;
};
constexpr NamedCode kCodes[] = {
#define RMEMFS_X(name, number, sentence) {#name, Errc::name},
    RMEMFS_ERROR_CODES(RMEMFS_X)
#undef RMEMFS_X
};

std::optional<Errc> code_of(std::string_view name) {
  for (const NamedCode& row : kCodes) {
    if (row.name == name) return row.code;
  }
  return std::nullopt;
}

// The innermost reason of a failed connection. gRPC 1.51 nests them, outermost first: "failed to connect to all
// addresses; last error: UNKNOWN: Failed to connect to remote host: Connection refused". Empty when there is none to be
// read.
std::string innermost_reason(const std::string& message) {
  constexpr std::size_t kLongest = 120;
  const std::size_t colon = message.rfind(": ");
  std::string reason = colon == std::string::npos ? message : message.substr(colon + 2);
  if (reason.size() > kLongest) return {};
  // A frozen process: its kernel accepts the connection. gRPC's words are those of its protocol.
  if (reason.ends_with("before receiving SETTINGS frame")) return "connected, but no answer";
  for (char& c : reason) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  return reason;
}

}  // namespace

grpc::Status to_status(const Error& error) {
  Failure failure;
  failure.set_code(std::string(name(error.code)));
  failure.set_detail(error.detail);
  return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, std::string(sentence(error.code)),
                      failure.SerializeAsString());
}

Error from_status(const grpc::Status& status, const char* where, const std::string& peer) {
  Failure failure;
  if (!status.error_details().empty() && failure.ParseFromString(status.error_details())) {
    if (const std::optional<Errc> code = code_of(failure.code())) {
      return Error(*code, where, failure.detail().empty() ? peer : peer + ": " + failure.detail());
    }
    return Error(Errc::kProtocol, where, peer);  // a code of a later version
  }
  switch (status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return Error(Errc::kDeadline, where, peer);
    case grpc::StatusCode::UNAVAILABLE: {
      const std::string reason = innermost_reason(status.error_message());
      return Error(Errc::kUnreachable, where, reason.empty() ? peer : peer + ": " + reason);
    }
    case grpc::StatusCode::UNIMPLEMENTED:
      return Error(Errc::kVersion, where, peer);
    case grpc::StatusCode::CANCELLED:
      return Error(Errc::kUnreachable, where, peer);  // the server is ending
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return Error(Errc::kBusy, where, peer);
    default:
      return Error(Errc::kProtocol, where, peer);
  }
}

}  // namespace rmemfs
