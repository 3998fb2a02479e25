// NameLookup: turns a host name into addresses without blocking whoever asks. A numeric address is known at once; a
// name is looked up by a thread that shares nothing but its result.
//
// Thread-safety: one thread, besides the one inside.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace rmemfs {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// What getaddrinfo() finds; empty when it finds nothing. `flags`: AI_NUMERICHOST never blocks.
std::vector<SocketAddress> look_up(const std::string& host, std::uint16_t port, int flags);

class NameLookup {
 public:
  // Null when there are no descriptors (errno says why).
  static std::unique_ptr<NameLookup> start(const std::string& host, std::uint16_t port);
  ~NameLookup();

  int event_fd() const;  // readable once it is done
  bool done() const;
  const std::vector<SocketAddress>& found() const;  // once done

 private:
  struct Shared;
  explicit NameLookup(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  const std::shared_ptr<Shared> shared_;  // whoever finishes last frees it
};

}  // namespace rmemfs
