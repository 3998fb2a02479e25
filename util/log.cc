#include "util/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "util/log_sinks.h"

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
    case LogTarget::kJournal: {
      ASSIGN_OR_RETURN(auto sink, JournalSink::open(program));
      logger = std::make_shared<spdlog::logger>(program, std::move(sink));
      break;
    }
    case LogTarget::kFile: {
      ASSIGN_OR_RETURN(auto sink, FileSink::open(path));
      logger = std::make_shared<spdlog::logger>(program, std::move(sink));
      break;
    }
  }
  logger->set_level(debug ? spdlog::level::debug : spdlog::level::info);
  logger->flush_on(spdlog::level::info);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %n[%P] %l: %v");
  spdlog::set_default_logger(std::move(logger));
  return success();
}

bool log_reopen() {
  bool in_file = false;
  for (const spdlog::sink_ptr& sink : spdlog::default_logger()->sinks()) {
    auto* const file = dynamic_cast<FileSink*>(sink.get());
    if (file == nullptr) continue;
    in_file = true;
    if (const auto reopened = file->reopen(); !reopened.ok()) log::error("{}", reopened.error().message());
  }
  return in_file;
}

bool stderr_is_journal() {
  const char* const stream = std::getenv("JOURNAL_STREAM");  // device:inode
  struct stat st;
  return stream != nullptr && ::fstat(STDERR_FILENO, &st) == 0 &&
         std::to_string(st.st_dev) + ":" + std::to_string(st.st_ino) == stream;
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
