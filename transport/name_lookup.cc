#include "transport/name_lookup.h"

#include <netdb.h>
#include <sys/eventfd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "util/unique_fd.h"

namespace rmemfs {

std::vector<SocketAddress> look_up(const std::string& host, std::uint16_t port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  std::vector<SocketAddress> found;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list) != 0) return found;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    SocketAddress address;
    if (entry->ai_addrlen > sizeof address.storage) continue;
    std::memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
    address.length = entry->ai_addrlen;
    found.push_back(address);
  }
  ::freeaddrinfo(list);
  return found;
}

struct NameLookup::Shared {
  UniqueFd event;
  std::atomic<bool> done{false};
  std::vector<SocketAddress> found;  // written before done
};

std::unique_ptr<NameLookup> NameLookup::start(const std::string& host, std::uint16_t port) {
  auto shared = std::make_shared<Shared>();
  shared->event.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!shared->event.valid()) return nullptr;
  std::thread([shared, host, port] {
    shared->found = look_up(host, port, 0);
    shared->done.store(true, std::memory_order_release);
    const std::uint64_t one = 1;
    (void)!::write(shared->event.get(), &one, sizeof one);  // an eventfd at zero always takes it
  }).detach();
  return std::unique_ptr<NameLookup>(new NameLookup(std::move(shared)));
}

NameLookup::~NameLookup() = default;
int NameLookup::event_fd() const { return shared_->event.get(); }
bool NameLookup::done() const { return shared_->done.load(std::memory_order_acquire); }
const std::vector<SocketAddress>& NameLookup::found() const { return shared_->found; }

}  // namespace rmemfs
