// An agent made by hand: a data-plane stream that says what a test wants, in the wire format.
#pragma once

#include <boost/test/unit_test.hpp>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "tests/unit/transport/test_node.h"
#include "transport/wire_format.h"

namespace rmemfs::test {

inline void limit_waiting(int fd) {
  const timeval limit{30, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

inline UniqueFd connect_raw(const NodeAddress& address) {
  if (address.transport == TransportKind::kShm) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, address.path.c_str(), address.path.size() + 1);
    BOOST_REQUIRE(::connect(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
    limit_waiting(fd.get());
    return fd;
  }
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(address.port);
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  BOOST_REQUIRE(::connect(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
  limit_waiting(fd.get());
  return fd;
}

inline void send_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return;  // the node has closed it, which is what some of these tests are after
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

// Whether the node ends the stream within the time.
inline bool ends(int fd, int limit_ms) {
  const TimePoint limit = deadline_after_ms(static_cast<std::uint64_t>(limit_ms));
  std::byte sink[4096];
  while (MonoClock::now() < limit) {
    pollfd polled{fd, POLLIN, 0};
    if (::poll(&polled, 1, 50) <= 0) continue;
    const ssize_t n = ::recv(fd, sink, sizeof sink, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) return true;
  }
  return false;
}

inline std::array<std::byte, wire::kHelloBytes> hello_of(const TestRegions& regions, TransportKind transport,
                                                         std::uint32_t lane = 0, std::uint64_t incarnation = 1) {
  wire::Hello hello;
  hello.transport = transport;
  hello.session = {regions.file_system, MountEpoch(1), lane};
  hello.key = regions.file_system_key;
  hello.incarnation = incarnation;
  std::array<std::byte, wire::kHelloBytes> bytes;
  wire::encode_hello(hello, bytes);
  return bytes;
}

inline wire::HelloReply greet(int fd, std::span<const std::byte> hello, TransportKind transport) {
  send_all(fd, hello);
  std::array<std::byte, wire::kHelloReplyBytes> bytes;
  BOOST_REQUIRE(::recv(fd, bytes.data(), bytes.size(), MSG_WAITALL) == static_cast<ssize_t>(bytes.size()));
  const auto reply = wire::decode_hello_reply(transport, bytes);
  BOOST_REQUIRE(reply.ok());
  return *reply;
}

inline void send_request(int fd, const wire::Request& request) {
  std::array<std::byte, wire::kRequestBytes> bytes;
  wire::encode_request(request, bytes);
  send_all(fd, bytes);
}

inline void send_attach(int fd, const RemoteRegion& region, std::uint32_t slot = 0) {
  wire::Request attach;
  attach.kind = wire::Kind::kAttach;
  attach.slot = slot;
  attach.region = region.id;
  attach.generation = region.generation;
  attach.key = region.key;
  send_request(fd, attach);
}

inline wire::Reply receive_reply(int fd) {
  std::array<std::byte, wire::kReplyBytes> bytes;
  BOOST_REQUIRE(::recv(fd, bytes.data(), bytes.size(), MSG_WAITALL) == static_cast<ssize_t>(bytes.size()));
  const auto reply = wire::decode_reply(bytes);
  BOOST_REQUIRE(reply.ok());
  return *reply;
}

}  // namespace rmemfs::test
