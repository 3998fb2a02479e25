#include "util/log.h"

#include <fcntl.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "util/unique_fd.h"

namespace rmemfs {

Result<void> log_setup(const std::string& program, LogTarget target, bool debug, const std::string& path) {
  std::shared_ptr<spdlog::logger> logger;
  switch (target) {
    case LogTarget::kStderr:
      logger = std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::stderr_sink_mt>());
      break;
    case LogTarget::kSyslog:
      logger = std::make_shared<spdlog::logger>(
          program, std::make_shared<spdlog::sinks::syslog_sink_mt>(program, 0, LOG_DAEMON, true));
      break;
    case LogTarget::kFile: {
      // Opened first, because spdlog would make the missing directories of its path, and says less of what went wrong.
      const UniqueFd writable(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644));
      if (!writable.valid()) return Error(errc_from_errno(errno), "log", path + ": " + std::strerror(errno));
      try {
        logger = std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::basic_file_sink_mt>(path));
      } catch (const spdlog::spdlog_ex& failure) {
        return Error(Errc::kLocalIo, "log", failure.what());
      }
      break;
    }
  }
  logger->set_level(debug ? spdlog::level::debug : spdlog::level::info);
  logger->flush_on(spdlog::level::info);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %n[%P] %l: %v");
  spdlog::set_default_logger(std::move(logger));
  return success();
}

namespace log {
namespace {
spdlog::level::level_enum level_of(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
    case Level::kOff:
      break;
  }
  return spdlog::level::off;
}
}  // namespace

void set_level(Level least) { spdlog::set_level(level_of(least)); }
bool enabled(Level level) { return spdlog::should_log(level_of(level)); }

void write(Level level, fmt::string_view format, fmt::format_args arguments) {
  spdlog::log(level_of(level), fmt::vformat(format, arguments));
}

}  // namespace log
}  // namespace rmemfs
