#include "util/service_manager.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "util/log.h"
#include "util/unique_fd.h"

namespace rmemfs {
namespace {

std::optional<std::uint64_t> number_in(const char* name) {
  const char* const text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  std::uint64_t number = 0;
  const char* const end = text + std::strlen(text);
  const auto [last, error] = std::from_chars(text, end, number);
  if (error != std::errc() || last != end) return std::nullopt;
  return number;
}

}  // namespace

ServiceManager ServiceManager::from_environment() {
  ServiceManager manager;
  if (const char* const socket = std::getenv("NOTIFY_SOCKET"); socket != nullptr) manager.socket_ = socket;
  const auto period_us = number_in("WATCHDOG_USEC");
  const auto watched = number_in("WATCHDOG_PID");
  if (manager.present() && period_us.value_or(0) != 0 &&
      watched.value_or(static_cast<std::uint64_t>(::getpid())) == static_cast<std::uint64_t>(::getpid())) {
    manager.watchdog_ms_ = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(*period_us / 2000, 1, 3'600'000));
  }
  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) ::unsetenv(name);
  return manager;
}

void ServiceManager::notify(std::string_view lines) const {
  if (!present()) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if ((socket_[0] != '/' && socket_[0] != '@') || socket_.size() >= sizeof address.sun_path) {
    return log::warn("the service manager's socket \"{}\" is not one that can be used", socket_);
  }
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_[0] == '@') address.sun_path[0] = '\0';
  // A name without a file is as long as its address says.
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  const UniqueFd sender(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const timeval limit{1, 0};
  ::setsockopt(sender.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (::sendto(sender.get(), lines.data(), lines.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address),
               length) < 0) {
    log::warn("the service manager cannot be told: {}: {}", socket_, std::strerror(errno));
  }
}

}  // namespace rmemfs
