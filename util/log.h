// The log: spdlog behind one header that costs little to include. log_setup() is called once by each main; before that,
// lines go to stdout as spdlog does by itself. Thread-safe. Nothing on a hot path logs above debug level.
#pragma once

#include <fmt/core.h>

#include <string>

#include "util/result.h"

namespace rmemfs {

enum class LogTarget { kStderr, kSyslog, kFile };

// `program` names the process in every line; `path` is for kFile: appended to, made where it is missing (its directory
// is not). Fails, as open(2) does, for a file only; the log is then the one before.
Result<void> log_setup(const std::string& program, LogTarget target, bool debug, const std::string& path = {});

// log::info("node {} answers again", url)
namespace log {

enum class Level { kDebug, kInfo, kWarn, kError, kOff };
void set_level(Level least);  // what is logged from here on
bool enabled(Level level);
void write(Level level, fmt::string_view format, fmt::format_args arguments);

template <typename... Arguments>
void debug(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  if (enabled(Level::kDebug)) write(Level::kDebug, format, fmt::make_format_args(arguments...));
}
template <typename... Arguments>
void info(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::kInfo, format, fmt::make_format_args(arguments...));
}
template <typename... Arguments>
void warn(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::kWarn, format, fmt::make_format_args(arguments...));
}
template <typename... Arguments>
void error(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::kError, format, fmt::make_format_args(arguments...));
}

}  // namespace log
}  // namespace rmemfs
