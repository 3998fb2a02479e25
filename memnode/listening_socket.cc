#include "memnode/listening_socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

namespace rmemfs {
namespace {

constexpr const char* kWhere = "listen";
constexpr int kBacklog = 1024;

Error invalid(const std::string& address, const std::string& why) {
  return Error(Errc::kInvalid, kWhere, "\"" + address + "\" " + why);
}

Error failed(const std::string& address) {
  const int number = errno;
  const Errc code = number == EADDRINUSE ? Errc::kBusy : errc_from_errno(number);
  return Error(code, kWhere, address + ": " + std::strerror(number));
}

bool is_loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    return (ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr) >> 24) == 127;
  }
  return address->sa_family == AF_INET6 &&
         IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
}

std::string real_address(int fd, std::string_view scheme, const std::string& host) {
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) return std::string(scheme) + host;
  const in_port_t port = name.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&name)->sin6_port
                                                    : reinterpret_cast<sockaddr_in*>(&name)->sin_port;
  const bool bracket = host.find(':') != std::string::npos;
  return std::string(scheme) + (bracket ? "[" + host + "]" : host) + ":" + std::to_string(ntohs(port));
}

Result<ListeningSocket> listen_tcp(const std::string& address, std::string_view scheme, bool insecure) {
  const std::string_view rest = std::string_view(address).substr(scheme.size());
  const std::string form = std::string(scheme) + "HOST:PORT";
  const std::size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) return invalid(address, "has no port; write " + form);
  std::string host(rest.substr(0, colon));
  const std::string port(rest.substr(colon + 1));
  std::uint16_t number = 0;
  const auto [end, bad] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (bad != std::errc() || end != port.data() + port.size()) return invalid(address, "has no valid port");
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return invalid(address, "names an IPv6 host without brackets");
  }
  if (host.empty()) return invalid(address, "has no host; write " + form);

  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int status = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); status != 0) {
    return invalid(address, std::string("cannot be resolved: ") + ::gai_strerror(status));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  for (const addrinfo* info = found; info != nullptr && !insecure; info = info->ai_next) {
    if (is_loopback(info->ai_addr)) continue;
    return invalid(address,
                   "can be reached from other machines, and nothing on it is encrypted; give --insecure if "
                   "the network is trusted");
  }
  ListeningSocket socket;
  socket.tcp_socket.reset(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int one = 1;
  if (!socket.tcp_socket.valid() || ::setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      ::bind(socket.fd(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(socket.fd(), kBacklog) != 0) {
    return failed(address);
  }
  socket.address = real_address(socket.fd(), scheme, host);
  return socket;
}

}  // namespace

Result<ListeningSocket> listen_on(const std::string& address, bool insecure, std::uint32_t socket_mode) {
  const std::string_view text = address;
  for (const std::string_view scheme : {"tcp://", "rdma://"}) {
    if (text.starts_with(scheme)) return listen_tcp(address, scheme, insecure);
  }
  if (!text.starts_with("unix:")) return invalid(address, "is not unix:PATH, tcp://HOST:PORT or rdma://HOST:PORT");
  Result<ListeningUnixSocket> bound = ListeningUnixSocket::bind(address.substr(5), socket_mode, kBacklog);
  if (!bound.ok()) {
    if (bound.error().code == Errc::kLocked) {
      return Error(Errc::kLocked, kWhere, address + " is served by another process");
    }
    return Error(bound.error().code, kWhere, bound.error().message());
  }
  ListeningSocket socket;
  socket.address = address;
  socket.is_unix = true;
  socket.unix_socket.emplace(std::move(*bound));
  return socket;
}

}  // namespace rmemfs
