// What every program's command line shares: sizes, one-sentence errors, --help and --version.
//
//   CLI::App app("Lends memory");
//   cli::prepare(app, "rmemd");
//   cli::add_size(app, "--size", size, "Memory to lend");
//   if (auto status = cli::parse(app, argc, argv)) return *status;
//
// CLI11 throws; its exceptions end inside parse(). Main thread only.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "util/result.h"

namespace rmemfs::cli {

// A wrong command line: an unknown option, a bad value, a missing argument. fsck and the mount helper have their own.
inline constexpr int kUsage = 2;
inline constexpr int kFailure = 1;

// "4G", "64M", "512K", "1T", "4096" (bytes): powers of 1024, whole numbers. kInvalid, with a sentence naming what is
// wrong.
Result<std::uint64_t> parse_size(std::string_view text);
// "4.0 GiB", "512 KiB", "17 bytes": for people.
std::string format_size(std::uint64_t bytes);
// "64M": as parse_size() takes it, and exact.
std::string exact_size(std::uint64_t bytes);

// The sentence for an error: its message, without "invalid argument" behind a detail that says so already.
std::string sentence_of(const Error& error);
// Writes "program: sentence" and a newline to standard error in one write.
void print_error(std::string_view program, std::string_view sentence);
void print_error(std::string_view program, const Error& error);
inline int fail(std::string_view program, const Error& error, int status = kFailure) {
  print_error(program, error);
  return status;
}

// Names the program and adds -V, --version.
void prepare(CLI::App& app, const std::string& program);
// An option whose value is a size.
CLI::Option* add_size(CLI::App& app, const std::string& name, std::uint64_t& target, const std::string& description);
CLI::Option* add_size(CLI::App& app, const std::string& name, std::optional<std::uint64_t>& target,
                      const std::string& description);
// Parses. Nothing: go on. Otherwise the exit status: 0 after --help or --version, `usage` after one printed sentence.
std::optional<int> parse(CLI::App& app, int argc, const char* const* argv, int usage = kUsage);

}  // namespace rmemfs::cli
