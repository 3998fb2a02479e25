#include "tools/mount_options.h"

#include <algorithm>
#include <charconv>
#include <iterator>

#include "tools/cli.h"

namespace rmemfs {
namespace {

Error bad(std::string_view name, std::string_view value, std::string_view why) {
  return Error(Errc::kInvalid, "", "option " + std::string(name) + "=" + std::string(value) + ": " + std::string(why));
}

Result<std::uint64_t> parse_number(std::string_view name, std::string_view text, std::uint64_t low,
                                   std::uint64_t high) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < low || number > high) {
    return bad(name, text, "is not a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return number;
}

Result<double> parse_seconds(std::string_view name, std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || !(number >= 0 && number <= 1e9)) {
    return bad(name, text, "is not a number of seconds");
  }
  return number;
}

// The kernel's, which libfuse knows.
constexpr std::string_view kKernelOptions[] = {"suid",   "nosuid",  "dev",     "nodev", "exec",
                                               "noexec", "noatime", "dirsync", "sync",  "async"};
// For mount(8), or without meaning here (reads do not update access times).
constexpr std::string_view kIgnoredOptions[] = {
    "rw",       "defaults",   "auto",        "noauto",        "user",     "nouser",     "users",
    "owner",    "group",      "nofail",      "_netdev",       "atime",    "diratime",   "nodiratime",
    "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "silent",
    "loud",     "nonempty",   "mand",        "nomand"};

bool contains(auto& list, std::string_view word) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

Result<void> set_flag(std::string_view name, MountOptions& options) {
  if (name == "ro")
    options.read_only = true;
  else if (name == "allow_other")
    options.allow_other = true;
  else if (name == "degraded")
    options.degraded = true;
  else if (name == "debug")
    options.debug = true;
  else if (contains(kKernelOptions, name))
    options.kernel.emplace_back(name);
  else if (!contains(kIgnoredOptions, name) && !name.starts_with("x-")) {
    return Error(Errc::kInvalid, "", "unknown option \"" + std::string(name) + "\"; see rmemfs(8)");
  }
  return {};
}

Result<void> set_value(std::string_view name, std::string_view value, MountOptions& options) {
  if (name == "lanes") {
    ASSIGN_OR_RETURN(const std::uint64_t lanes, parse_number(name, value, 1, 256));
    options.lanes = static_cast<unsigned>(lanes);
  } else if (name == "poll") {
    if (value == "off")
      options.poll = PollMode::kOff;
    else if (value == "adaptive")
      options.poll = PollMode::kAdaptive;
    else {
      auto us = parse_number(name, value, 1, 1000000);
      if (!us.ok()) return bad(name, value, "is none of off, adaptive and a number of microseconds");
      options.poll = PollMode::kFixed;
      options.spin_us = static_cast<std::uint32_t>(*us);
    }
  } else if (name == "deadline") {
    ASSIGN_OR_RETURN(options.deadline_ms, parse_milliseconds(name, value));
  } else if (name == "commit") {
    options.sync_commit = value == "sync";
    if (!options.sync_commit) {
      ASSIGN_OR_RETURN(options.commit_ms, parse_milliseconds(name, value));
    }
  } else if (name == "transport") {
    if (value == "auto")
      options.transport = TransportChoice::kAuto;
    else if (value == "rdma")
      options.transport = TransportChoice::kRdma;
    else if (value == "tcp")
      options.transport = TransportChoice::kTcp;
    else
      return bad(name, value, "is none of auto, rdma and tcp");
  } else if (name == "require") {
    if (value != "persistent") return bad(name, value, "is not known; only \"persistent\" is");
    options.require_persistent = true;
  } else if (name == "cache") {
    auto bytes = cli::parse_size(value);
    if (!bytes.ok()) return bad(name, value, bytes.error().detail);
    if (*bytes < (8u << 20)) return bad(name, value, "is less than 8M");
    options.cache_bytes = *bytes;
  } else if (name == "attr_timeout") {
    ASSIGN_OR_RETURN(options.attribute_timeout_s, parse_seconds(name, value));
  } else if (name == "entry_timeout") {
    ASSIGN_OR_RETURN(options.entry_timeout_s, parse_seconds(name, value));
  } else if (name == "log") {
    if (!value.starts_with('/')) return bad(name, value, "is not an absolute path");
    options.log_path = value;
  } else if (name != "comment" && !name.starts_with("x-")) {
    return Error(Errc::kInvalid, "", "unknown option \"" + std::string(name) + "\"; see rmemfs(8)");
  }
  return {};
}

}  // namespace

Result<std::uint32_t> parse_milliseconds(std::string_view name, std::string_view text) {
  std::string_view digits = text;
  std::uint64_t scale = 1;
  if (digits.ends_with("ms"))
    digits.remove_suffix(2);
  else if (digits.ends_with("s"))
    digits.remove_suffix(1), scale = 1000;
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size() || number == 0 || number > 86400000 / scale) {
    return bad(name, text, "is not a time; write milliseconds, or seconds as in 10s, up to one day");
  }
  return static_cast<std::uint32_t>(number * scale);
}

Result<void> parse_mount_options(std::string_view text, MountOptions& options) {
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    const std::string_view word = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
    if (word.empty()) continue;
    const std::size_t equals = word.find('=');
    if (equals == std::string_view::npos) {
      RETURN_IF_ERROR(set_flag(word, options));
    } else {
      RETURN_IF_ERROR(set_value(word.substr(0, equals), word.substr(equals + 1), options));
    }
  }
  return {};
}

}  // namespace rmemfs
