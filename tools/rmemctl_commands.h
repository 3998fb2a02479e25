// The commands of rmemctl that are more than one question: umount, ping and doctor. Each adds itself to the command
// line and, once chosen, runs and gives rmemctl's exit status. Main thread only.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/node_ping.h"
#include "util/unique_fd.h"

namespace rmemfs {

// Exit statuses, as rmemctl(8) lists them, besides those of cli.h.
inline constexpr int kNothingMounted = 3;
inline constexpr int kNoAnswer = 4;
inline constexpr int kInterrupted = 130;

int status_of(const Error& error);

class PingCommand {
 public:
  void add_to(CLI::App& app);
  bool chosen() const { return command_ != nullptr && command_->parsed(); }
  int run();

 private:
  CLI::App* command_ = nullptr;
  std::string address_;
  std::optional<std::uint64_t> size_bytes_;
  std::string poll_ = "spin";
  bool json_ = false;
  PingOptions options_;
};

class DoctorCommand {
 public:
  void add_to(CLI::App& app);
  bool chosen() const { return command_ != nullptr && command_->parsed(); }
  int run();

 private:
  CLI::App* command_ = nullptr;
  std::vector<std::string> places_;
  std::optional<std::uint64_t> memory_bytes_;
  std::uint32_t timeout_ms_ = 5000;
  bool json_ = false;
};

class UmountCommand {
 public:
  void add_to(CLI::App& app);
  bool chosen() const { return command_ != nullptr && command_->parsed(); }
  int run();

 private:
  CLI::App* command_ = nullptr;
  std::string place_;
  std::uint32_t timeout_ms_ = 5000;
  bool force_ = false, lazy_ = false;
};

// Readable once SIGINT, SIGTERM or SIGHUP came, which no longer end the process. Before the first thread is made.
UniqueFd signals_as_descriptor();

}  // namespace rmemfs
