#include "tools/mount_options.h"

#include <algorithm>
#include <charconv>
#include <iterator>

#include "tools/cli.h"
#include "util/oom_score.h"

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

constexpr unsigned long kAccessTimeFlags = MS_NOATIME | MS_RELATIME | MS_STRICTATIME;

// Words for mount(2)'s flags, and what each of them sets and clears.
struct FlagWord {
  std::string_view word;
  unsigned long set, cleared;
};
constexpr FlagWord kFlagWords[] = {
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"nosuid", MS_NOSUID, 0},
    {"suid", 0, MS_NOSUID},
    {"nodev", MS_NODEV, 0},
    {"dev", 0, MS_NODEV},
    {"noexec", MS_NOEXEC, 0},
    {"exec", 0, MS_NOEXEC},
    {"sync", MS_SYNCHRONOUS, 0},
    {"async", 0, MS_SYNCHRONOUS},
    {"dirsync", MS_DIRSYNC, 0},
    {"noatime", MS_NOATIME, kAccessTimeFlags},
    {"atime", 0, MS_NOATIME},
    {"relatime", MS_RELATIME, kAccessTimeFlags},
    {"norelatime", 0, MS_RELATIME},
    {"strictatime", MS_STRICTATIME, kAccessTimeFlags},
    {"nostrictatime", 0, MS_STRICTATIME},
    {"nodiratime", MS_NODIRATIME, 0},
    {"diratime", 0, MS_NODIRATIME},
    {"lazytime", MS_LAZYTIME, 0},
    {"nolazytime", 0, MS_LAZYTIME},
};
// For mount(8) and systemd, or what is so in any case. mount(8) has made flags of what user and owner imply.
constexpr std::string_view kIgnoredOptions[] = {"defaults",
                                                "auto",
                                                "noauto",
                                                "user",
                                                "nouser",
                                                "users",
                                                "nousers",
                                                "owner",
                                                "noowner",
                                                "group",
                                                "nogroup",
                                                "nofail",
                                                "_netdev",
                                                "nonempty",
                                                "mand",
                                                "nomand",
                                                "silent",
                                                "loud",
                                                "default_permissions"};
// SELinux's, as mount(8) has them.
constexpr std::string_view kContextOptions[] = {"context", "fscontext", "defcontext", "rootcontext"};
// With which mount(8) repeats, in a remount, what the kernel shows of a mount.
constexpr std::string_view kShownOptions[] = {"user_id", "group_id", "max_read", "blksize"};

bool contains(auto& list, std::string_view word) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

bool for_others(std::string_view name) { return name.starts_with("x-") || name.starts_with("X-"); }

Error unknown(std::string_view name) {
  return Error(Errc::kInvalid, "", "unknown option \"" + std::string(name) + "\"; see rmemfs(8)");
}

Result<void> set_flag(std::string_view name, MountOptions& options) {
  const auto* const word = std::find_if(std::begin(kFlagWords), std::end(kFlagWords),
                                        [name](const FlagWord& one) { return one.word == name; });
  if (word != std::end(kFlagWords)) {
    options.flags.set = (options.flags.set & ~word->cleared) | word->set;
    options.flags.cleared = (options.flags.cleared | word->cleared) & ~word->set;
  } else if (name == "allow_other") {
    options.allow_other = true;
  } else if (name == "degraded") {
    options.degraded = true;
  } else if (name == "noacl") {
    options.access_lists = false;
  } else if (name == "noxattr") {
    options.extended = options.access_lists = false;
  } else if (name == "debug") {
    options.debug = true;
  } else if (name == "remount") {
    options.remount = true;
  } else if (name == "replace_stale") {
    options.replace_stale = true;
  } else if (!contains(kIgnoredOptions, name) && !for_others(name)) {
    return unknown(name);
  }
  return {};
}

Result<void> set_log(std::string_view value, MountOptions& options) {
  if (value == "stderr")
    options.log = LogChoice::kStderr;
  else if (value == "syslog")
    options.log = LogChoice::kSyslog;
  else if (value == "journal")
    options.log = LogChoice::kJournal;
  else if (value.starts_with('/'))
    options.log = LogChoice::kFile;
  else
    return bad("log", value, "is none of journal, syslog, stderr and an absolute path");
  options.log_path = options.log == LogChoice::kFile ? value : std::string_view{};
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
    return set_log(value, options);
  } else if (name == "oom_score_adj") {
    int score = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), score);
    if (error != std::errc() || end != value.data() + value.size() || score < kLeastOomScore || score > kMostOomScore) {
      return bad(name, value, "is not a whole number from -1000 to 1000");
    }
    options.oom_score = score;
  } else if (contains(kContextOptions, name)) {
    if (value.empty()) return bad(name, value, "names no context");
    options.contexts.push_back(std::string(name) + "=" + std::string(value));
  } else if (name != "comment" && !for_others(name) && !contains(kShownOptions, name)) {
    return unknown(name);
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

AccessTimes access_times_of(unsigned long mount_flags) {
  AccessTimes times;
  times.directories = (mount_flags & MS_NODIRATIME) == 0;
  if ((mount_flags & (MS_NOATIME | MS_RDONLY)) != 0)
    times.rule = AccessTimes::Rule::kNever;
  else if ((mount_flags & MS_STRICTATIME) != 0)
    times.rule = AccessTimes::Rule::kAlways;
  return times;
}

Result<void> parse_mount_options(std::string_view text, MountOptions& options) {
  while (!text.empty()) {
    std::size_t comma = 0;
    for (bool quoted = false; comma < text.size() && (quoted || text[comma] != ','); ++comma)
      quoted ^= text[comma] == '"';
    const std::string_view word = text.substr(0, comma);
    text = comma == text.size() ? std::string_view{} : text.substr(comma + 1);
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
