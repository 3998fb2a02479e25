// NodeAddress: the text form of a memory node's address. Strict, because a wrong guess would be found out at a mount.
#include <charconv>

#include "transport/connection.h"

namespace rmemfs {
namespace {

constexpr std::string_view kShmPrefix = "shm:";
constexpr std::string_view kTcpPrefix = "tcp://";
constexpr std::string_view kVerbsPrefix = "rdma://";
constexpr std::size_t kMaxHostLength = 253;  // RFC 1035

Error invalid(std::string_view text, const char* why) {
  return Error(Errc::kInvalid, "node address", "\"" + std::string(text) + "\": " + why);
}

bool host_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}
bool ipv6_character(char c) {
  return (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || (c >= '0' && c <= '9') || c == ':' || c == '.';
}

}  // namespace

Result<NodeAddress> NodeAddress::parse(std::string_view text) {
  NodeAddress address;
  std::string_view rest;
  if (text.starts_with(kShmPrefix)) {
    address.transport = TransportKind::kShm;
    rest = text.substr(kShmPrefix.size());
    if (rest.empty() || rest.front() != '/') return invalid(text, "shm: needs the socket's absolute path");
    if (rest.find('\0') != std::string_view::npos) return invalid(text, "the path has a zero byte in it");
    if (rest.back() == '/') return invalid(text, "the path names a directory");
    address.path = rest;
    return address;
  }
  if (text.starts_with(kTcpPrefix)) {
    address.transport = TransportKind::kTcp;
    rest = text.substr(kTcpPrefix.size());
  } else if (text.starts_with(kVerbsPrefix)) {
    address.transport = TransportKind::kVerbs;
    rest = text.substr(kVerbsPrefix.size());
  } else {
    return invalid(text, "begins with none of shm:, tcp:// and rdma://");
  }

  std::string_view port;
  if (rest.starts_with('[')) {
    const auto close = rest.find(']');
    if (close == std::string_view::npos) return invalid(text, "a bracket is not closed");
    address.host = rest.substr(1, close - 1);
    port = rest.substr(close + 1);
    if (address.host.find(':') == std::string::npos) return invalid(text, "brackets are for IPv6 addresses");
    // A link-local address may name its interface: fe80::1%eth0.
    const std::string_view number = std::string_view(address.host).substr(0, address.host.find('%'));
    for (char c : number) {
      if (!ipv6_character(c)) return invalid(text, "not an IPv6 address between the brackets");
    }
    for (char c : std::string_view(address.host).substr(number.size())) {
      if (!host_character(c) && c != '%') return invalid(text, "not an IPv6 address between the brackets");
    }
  } else {
    const auto colon = rest.find(':');
    address.host = rest.substr(0, colon);
    port = colon == std::string_view::npos ? std::string_view{} : rest.substr(colon);
    if (address.host.empty()) return invalid(text, "the host is missing");
    if (port.find(':', 1) != std::string_view::npos) return invalid(text, "an IPv6 address stands in brackets");
    for (char c : address.host) {
      if (!host_character(c)) return invalid(text, "the host has a character that no host name has");
    }
  }
  if (address.host.size() > kMaxHostLength) return invalid(text, "the host is too long");
  if (port.size() < 2 || port.front() != ':') return invalid(text, "the port is missing");
  port.remove_prefix(1);
  unsigned number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc{} || end != port.data() + port.size() || number == 0 || number > 65535) {
    return invalid(text, "the port is not a number from 1 to 65535");
  }
  address.port = static_cast<std::uint16_t>(number);
  return address;
}

std::string NodeAddress::to_string() const {
  if (transport == TransportKind::kShm) return std::string(kShmPrefix) + path;
  std::string text(transport == TransportKind::kTcp ? kTcpPrefix : kVerbsPrefix);
  if (host.find(':') != std::string::npos)
    text += "[" + host + "]";
  else
    text += host;
  return text + ":" + std::to_string(port);
}

}  // namespace rmemfs
