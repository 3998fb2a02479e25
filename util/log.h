// The log: spdlog behind one header that costs little to include. log_setup() is called once by each main; before that,
// lines go to stdout as spdlog does by itself. Thread-safe. Nothing on a hot path logs above debug level.
#pragma once

#include <fmt/core.h>

#include <string>

#include "util/result.h"

namespace rmemfs {

// kJournal: systemd's journal by its own protocol, so that a line keeps its priority.
enum class LogTarget { kStderr, kSyslog, kJournal, kFile };

// `program` names the process in every line; `path` is for kFile: appended to, made where it is missing (its directory
// is not). Fails, as open(2) does, for a file, and for a journal that is not there; the log is then the one before.
Result<void> log_setup(const std::string& program, LogTarget target, bool debug, const std::string& path = {});

// Opens kFile's path again, for whoever renamed the file (logrotate(8)); what was open stays when that fails. False:
// the log is not in a file.
bool log_reopen();

// Whether standard error is a stream to systemd's journal (systemd.exec(5), JOURNAL_STREAM).
bool stderr_is_journal();
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
