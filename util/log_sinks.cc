#include "util/log_sinks.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>

namespace rmemfs {
namespace {

constexpr std::string_view kJournalSocket = "/run/systemd/journal/socket";
constexpr int kJournalBufferBytes = 1 << 20;  // lines that may wait for journald

UniqueFd open_log(const std::string& path) {
  return UniqueFd(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644));
}

sockaddr_un journal_address() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, kJournalSocket.data(), kJournalSocket.size());
  return address;
}

// syslog(3)'s numbers.
char priority_of(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::trace:
    case spdlog::level::debug:
      return '7';
    case spdlog::level::warn:
      return '4';
    case spdlog::level::err:
      return '3';
    case spdlog::level::critical:
      return '2';
    default:
      return '6';
  }
}

}  // namespace

Result<std::shared_ptr<FileSink>> FileSink::open(const std::string& path) {
  UniqueFd file = open_log(path);
  if (!file.valid()) return Error(errc_from_errno(errno), "log", path + ": " + std::strerror(errno));
  return std::make_shared<FileSink>(path, std::move(file));
}

Result<void> FileSink::reopen() {
  UniqueFd file = open_log(path_);
  if (!file.valid()) return Error(errc_from_errno(errno), "log", path_ + ": " + std::strerror(errno));
  std::lock_guard lock(mutex_);
  file_ = std::move(file);
  return success();
}

void FileSink::sink_it_(const spdlog::details::log_msg& message) {
  spdlog::memory_buf_t line;
  formatter_->format(message, line);
  // Nobody is left to be told of a log that cannot be written.
  [[maybe_unused]] const auto written = ::write(file_.get(), line.data(), line.size());
}

Result<std::shared_ptr<JournalSink>> JournalSink::open(const std::string& program) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return Error(errc_from_errno(errno), "log", "socket");
  // Only looked for: each datagram names the address, because journald may be restarted.
  const sockaddr_un address = journal_address();
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Error(Errc::kInvalid, "",
                 "the log cannot go to the journal: " + std::string(kJournalSocket) + ": " + std::strerror(errno));
  }
  socket.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return Error(errc_from_errno(errno), "log", "socket");
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUF, &kJournalBufferBytes, sizeof kJournalBufferBytes);
  return std::make_shared<JournalSink>(program, std::move(socket));
}

// Fields are lines "NAME=value", or, where the value may have newlines, the name, a newline, the length as eight bytes
// little-endian, the value and a newline (systemd's JOURNAL_NATIVE_PROTOCOL).
void JournalSink::sink_it_(const spdlog::details::log_msg& message) {
  std::string datagram = "PRIORITY=";
  datagram += priority_of(message.level);
  datagram += "\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=" + program_ + "\nMESSAGE\n";
  for (unsigned shift = 0; shift < 64; shift += 8) {
    datagram += static_cast<char>(std::uint64_t{message.payload.size()} >> shift);
  }
  datagram.append(message.payload.data(), message.payload.size());
  datagram += '\n';
  const sockaddr_un address = journal_address();
  [[maybe_unused]] const auto sent =
      ::sendto(socket_.get(), datagram.data(), datagram.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

}  // namespace rmemfs
