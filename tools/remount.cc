#include "tools/remount.h"

#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "control/admin.h"
#include "tools/bounded_call.h"
#include "tools/mounts.h"

namespace rmemfs {
namespace {

constexpr unsigned long kAccessTimeFlags = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME;
constexpr std::uint32_t kAskMs = 5000;
constexpr std::uint32_t kMarginMs = 5000;  // beside the deadline, for what the kernel writes back

Result<void> tell_daemon(const std::string& directory, unsigned long flags, std::uint32_t timeout_ms) {
  ASSIGN_OR_RETURN(const auto client, AdminClient::connect(directory));
  return client->remount(flags, timeout_ms);
}

}  // namespace

Result<void> remount(const std::string& directory, const std::string& mountpoint, const MountOptions& options) {
  const auto mount = mount_at(mountpoint);
  if (!mount) return Error(Errc::kInvalid, "", "remount: there is no rmemfs mount on " + mountpoint);
  if (mount->directory != resolved_above(directory)) {
    return Error(Errc::kInvalid, "",
                 "remount: " + mountpoint + " is a mount of " + mount->directory + ", not of " + directory);
  }
  unsigned long flags = options.mount_flags();
  if ((flags & kAccessTimeFlags) == 0) flags |= mount->flags & kAccessTimeFlags;  // as the kernel does, but known here
  const bool read_only = (flags & MS_RDONLY) != 0;
  const std::uint32_t ask_ms = std::min(options.deadline_ms, kAskMs);
  if (!read_only) RETURN_IF_ERROR(tell_daemon(mount->directory, flags, ask_ms));
  const char* const path = mount->mountpoint.c_str();
  ASSIGN_OR_RETURN(
      const std::optional<int> outcome,
      bounded_call(
          [path, flags] { return ::mount("none", path, nullptr, MS_REMOUNT | flags, nullptr) == 0 ? 0 : errno; },
          options.deadline_ms + kMarginMs));
  if (outcome && *outcome == 0) return read_only ? tell_daemon(mount->directory, flags, ask_ms) : success();
  // It stays what it was, for the daemon, too.
  if (!read_only) RETURN_IF_ERROR(tell_daemon(mount->directory, mount->flags, ask_ms));
  if (!outcome) return Error(Errc::kDeadline, "remount", mountpoint);
  if (*outcome == EBUSY) return Error(Errc::kBusy, "remount", mountpoint + " has files open for writing");
  return Error(errc_from_errno(*outcome), "remount", mountpoint + ": " + std::strerror(*outcome));
}

}  // namespace rmemfs
