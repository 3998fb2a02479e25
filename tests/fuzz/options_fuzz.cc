// What comes from a command line, /etc/fstab, mkfs or /proc: mount options, sizes, times, addresses of nodes, UUIDs and
// the table of mounts. No text crashes a parser; what is accepted is within the limits that the manual pages name, and
// an address written out and read again is the same.
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include "tools/cli.h"
#include "tools/mount_options.h"
#include "tools/mounts.h"
#include "transport/connection.h"
#include "util/check.h"
#include "util/ids.h"

namespace {

void check_options(std::string_view text) {
  rmemfs::MountOptions options;
  const auto parsed = rmemfs::parse_mount_options(text, options);
  if (!parsed.ok()) CHECK(!parsed.error().detail.empty());
  CHECK(options.lanes <= 256 && options.spin_us <= 1000000);
  CHECK(options.deadline_ms >= 1 && options.deadline_ms <= 86400000);
  CHECK(options.commit_ms >= 1 && options.commit_ms <= 86400000);
  CHECK(!options.cache_bytes || *options.cache_bytes >= (8u << 20));
  CHECK(std::isfinite(options.attribute_timeout_s) && options.attribute_timeout_s >= 0);
  CHECK(std::isfinite(options.entry_timeout_s) && options.entry_timeout_s >= 0);
  CHECK((options.log == rmemfs::LogChoice::kFile) == !options.log_path.empty());
  CHECK(options.log_path.empty() || options.log_path.front() == '/');
  CHECK(!options.oom_score || (*options.oom_score >= -1000 && *options.oom_score <= 1000));
  for (const std::string& context : options.contexts) CHECK(context.find("context=") != std::string::npos);
  CHECK((options.flags.set & options.flags.cleared) == 0);
}

void check_address(std::string_view text) {
  const auto address = rmemfs::NodeAddress::parse(text);
  if (!address.ok()) return;
  const auto again = rmemfs::NodeAddress::parse(address->to_string());
  CHECK(again.ok());
  CHECK(again->transport == address->transport && again->path == address->path && again->host == address->host &&
        again->port == address->port);
}

void check_values(std::string_view text) {
  const auto size = rmemfs::cli::parse_size(text);
  if (size.ok()) CHECK(!rmemfs::cli::format_size(*size).empty());
  const auto time = rmemfs::parse_milliseconds("deadline", text);
  if (time.ok()) CHECK(*time >= 1 && *time <= 86400000);
  const auto uuid = rmemfs::Uuid::parse(text);
  if (uuid.ok()) {
    const auto again = rmemfs::Uuid::parse(uuid->to_string());
    CHECK(again.ok() && *again == *uuid);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check_options(text);
  check_address(text);
  check_values(text);
  rmemfs::parse_mountinfo(text);
  return 0;
}
