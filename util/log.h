// The log: spdlog behind one header. log_setup() is called once by each main; before that, warnings go to stderr.
// Thread-safe. Nothing on a hot path logs above debug level.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace rmemfs {

enum class LogTarget { kStderr, kSyslog, kFile };

// `program` names the process in every line; `path` is for kFile.
void log_setup(const std::string& program, LogTarget target, bool debug, const std::string& path = {});

// log::info("node {} answers again", url);  also log::debug, log::warn, log::error.
namespace log = ::spdlog;

}  // namespace rmemfs
