// What a service manager is told of this process: sd_notify(3)'s datagrams, without its library. Without a manager
// (NOTIFY_SOCKET) everything here does nothing.
//
// Made by main() before the first thread, because it changes the environment. notify() may be called from any thread
// that may wait a second, which a manager that reads nothing costs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace rmemfs {

class ServiceManager {
 public:
  // Takes the variables out of the environment: what this process starts does not speak for it.
  static ServiceManager from_environment();

  bool present() const { return !socket_.empty(); }
  // Lines of sd_notify(3), such as "READY=1\nSTATUS=serving".
  void notify(std::string_view lines) const;
  // How often "WATCHDOG=1" is due, half of what the manager waits for; none when it does not watch this process.
  std::optional<std::uint32_t> watchdog_ms() const { return watchdog_ms_; }

 private:
  std::string socket_;  // a path, or '@' and a name without a file
  std::optional<std::uint32_t> watchdog_ms_;
};

}  // namespace rmemfs
