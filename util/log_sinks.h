// Where log lines go besides spdlog's own places: a file that can be opened again, and systemd's journal. Only for
// util/log.cc. Thread-safe: spdlog's base_sink holds its mutex around both.
#pragma once

#include <spdlog/sinks/base_sink.h>

#include <mutex>
#include <string>

#include "util/result.h"
#include "util/unique_fd.h"

namespace rmemfs {

// Each line is one write to a file opened for appending: several processes may share it, and a copy that is truncated
// (logrotate's copytruncate) goes on at its beginning.
class FileSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  static Result<std::shared_ptr<FileSink>> open(const std::string& path);
  FileSink(std::string path, UniqueFd file) : path_(std::move(path)), file_(std::move(file)) {}
  Result<void> reopen();

 private:
  void sink_it_(const spdlog::details::log_msg& message) override;
  void flush_() override {}

  const std::string path_;
  UniqueFd file_;  // guarded by the sink's mutex
};

// Datagrams to journald, one for each line. Nothing waits for journald: a line that it has no room for is dropped,
// as a full disk drops one of a file.
class JournalSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  static Result<std::shared_ptr<JournalSink>> open(const std::string& program);
  JournalSink(std::string program, UniqueFd socket) : program_(std::move(program)), socket_(std::move(socket)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override;
  void flush_() override {}

  const std::string program_;
  const UniqueFd socket_;
};

}  // namespace rmemfs
