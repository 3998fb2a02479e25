// fsck.rmemfs: checks a file system and repairs it. Exit status as fsck(8) has it.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <iostream>

#include "recovery/checker.h"
#include "tools/cli.h"
#include "tools/json.h"
#include "tools/report_text.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr const char* kProgram = "fsck.rmemfs";

enum ExitStatus : int { kClean = 0, kCorrected = 1, kUncorrected = 4, kOperational = 8, kUsage = 16, kCancelled = 32 };

struct Arguments {
  std::string directory;
  bool none = false, safe = false, all = false;
  bool json = false, verbose = false, force = false;
  int progress_fd = 0;
};

// The one global: a signal handler can reach nothing else. Set by it and by a question without an answer.
std::atomic<bool> g_cancelled{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_signal(int) { g_cancelled.store(true, std::memory_order_relaxed); }

void watch_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;  // no SA_RESTART: a question that waits for its answer ends
  for (int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
}

// One line on a terminal's standard error, rewritten in place.
class ProgressLine {
 public:
  explicit ProgressLine(bool on) : on_(on) {}
  ~ProgressLine() { clear(); }
  void show(CheckPass pass, unsigned done) {
    if (!on_) return;
    std::fprintf(stderr, "\r\033[K%s: pass %u of %u (%s) %u%%", kProgram, static_cast<unsigned>(pass), kCheckPasses,
                 std::string(pass_name(pass)).c_str(), done / 10);
    shown_ = true;
  }
  void clear() {
    if (std::exchange(shown_, false)) std::fputs("\r\033[K", stderr);
  }

 private:
  const bool on_;
  bool shown_ = false;
};

// yes, no, or yes to all from here on; no answer at all means no.
class Questions {
 public:
  explicit Questions(ProgressLine& progress) : progress_(progress) {}
  bool ask(const Problem& problem) {
    progress_.clear();
    const ProblemInfo& info = info_of(problem.code);
    std::printf("%s\n", cli::printable(problem.message()).c_str());
    if (all_) {
      std::printf("  %s: yes\n", std::string(info.repair).c_str());
      return true;
    }
    for (;;) {
      std::printf("  %s? (y)es, (n)o, yes to (a)ll: ", std::string(info.repair).c_str());
      std::fflush(stdout);
      std::string answer;
      if (!std::getline(std::cin, answer)) {
        std::putchar('\n');
        g_cancelled.store(true, std::memory_order_relaxed);
        return false;
      }
      if (answer == "y" || answer == "yes") return true;
      if (answer == "n" || answer == "no") return false;
      if (answer == "a" || answer == "all") return all_ = true;
    }
  }

 private:
  ProgressLine& progress_;
  bool all_ = false;
};

int status_of(const CheckReport& report) {
  int status = kClean;
  if (report.changed && report.repaired != 0) status |= kCorrected;
  if (report.uncorrected() != 0) status |= kUncorrected;
  if (report.cancelled) status |= kCancelled;
  return status;
}

void print_problem(const Problem& problem, bool verbose) {
  std::printf("%s [0x%04x]: %s\n", cli::printable(problem.message()).c_str(), static_cast<unsigned>(problem.code),
              problem.repaired ? "repaired" : "not repaired");
  if (verbose) std::printf("  repair: %s\n", std::string(info_of(problem.code).repair).c_str());
}

void print_lost_files(const CheckReport& report) {
  if (report.lost_files.empty()) return;
  std::printf("%zu file%s with data in memory that is gone; reading there is an error:\n", report.lost_files.size(),
              report.lost_files.size() == 1 ? "" : "s");
  for (const LostFile& file : report.lost_files) {
    const std::string name =
        file.path.empty() ? "inode " + std::to_string(file.ino.value()) : cli::printable(file.path);
    std::printf("  %s: up to %s\n", name.c_str(), cli::format_size(file.bytes).c_str());
  }
}

void print_summary(const Arguments& arguments, const CheckReport& report) {
  const char* verdict = report.found == 0 ? "clean" : report.uncorrected() != 0 ? "problems are left" : "repaired";
  if (report.cancelled) verdict = "cancelled";
  std::printf("%s: %s, %llu inodes (%llu directories, %llu orphans), %llu extents in %llu chunks, %s in use",
              cli::printable(arguments.directory).c_str(), verdict, static_cast<unsigned long long>(report.inodes),
              static_cast<unsigned long long>(report.directories), static_cast<unsigned long long>(report.orphans),
              static_cast<unsigned long long>(report.extents), static_cast<unsigned long long>(report.chunks),
              cli::format_size(report.used_bytes).c_str());
  if (report.found != 0) {
    std::printf("; %llu problems, %llu repaired", static_cast<unsigned long long>(report.found),
                static_cast<unsigned long long>(report.repaired));
  }
  std::putchar('\n');
}

void print_text(const Arguments& arguments, const CheckReport& report, bool asked) {
  for (const std::string& notice : report.notices) std::printf("%s\n", cli::printable(notice).c_str());
  if (!asked) {
    for (const Problem& problem : report.problems) print_problem(problem, arguments.verbose);
    if (report.found > report.problems.size()) {
      std::printf("... and %llu more\n", static_cast<unsigned long long>(report.found - report.problems.size()));
    }
  }
  print_lost_files(report);
  print_summary(arguments, report);
}

// The schema is stable (fsck.rmemfs(8)): names are added, never changed.
std::string json_of(const Arguments& arguments, const CheckReport& report, int status) {
  Json json;
  json.begin_object().key("summary").begin_object();
  json.field("directory", arguments.directory).field("uuid", report.uuid.to_string()).field("label", report.label);
  json.field("exit", static_cast<std::uint64_t>(status)).field("problems", report.found);
  json.field("repaired", report.repaired).field("uncorrected", report.uncorrected());
  json.field("cancelled", report.cancelled).field("inodes", report.inodes).field("directories", report.directories);
  json.field("orphans", report.orphans).field("extents", report.extents).field("chunks", report.chunks);
  json.field("used_bytes", report.used_bytes).field("replayed", report.replayed).end_object();
  json.key("problems").begin_array();
  for (const Problem& problem : report.problems) {
    const ProblemInfo& info = info_of(problem.code);
    char code[8];
    std::snprintf(code, sizeof code, "0x%04x", static_cast<unsigned>(problem.code));
    json.begin_object().field("code", code).field("name", info.name.substr(1)).field("pass", pass_name(info.pass()));
    json.field("ino", problem.ino.value()).field("path", problem.path).field("sentence", problem.message());
    json.field("repair", info.repair).field("repaired", problem.repaired).end_object();
  }
  json.end_array().key("lost_files").begin_array();
  for (const LostFile& file : report.lost_files) {
    json.begin_object().field("ino", file.ino.value()).field("path", file.path).field("bytes", file.bytes).end_object();
  }
  json.end_array().key("notices").begin_array();
  for (const std::string& notice : report.notices) json.value(notice);
  json.end_array().end_object();
  return json.text();
}

int fail(const Arguments& arguments, const Error& error) {
  if (arguments.json) {
    Json json;
    json.begin_object().key("summary").begin_object().field("directory", arguments.directory);
    json.field("exit", std::uint64_t{kOperational}).field("error", cli::sentence_of(error)).end_object();
    json.key("problems").begin_array().end_array().end_object();
    std::puts(json.text().c_str());
  }
  return cli::fail(kProgram, error, kOperational);
}

void declare(CLI::App& app, Arguments& arguments) {
  auto* none = app.add_flag("-n", arguments.none, "Change nothing; only say what is wrong");
  auto* safe = app.add_flag("-p,-a", arguments.safe, "Repair what is safe to repair without asking");
  app.add_flag("-y", arguments.all, "Repair everything without asking")->excludes(none)->excludes(safe);
  none->excludes(safe);
  app.add_flag("-f", arguments.force, "Check even if it looks clean (every check is a whole one)");
  app.add_flag("-v", arguments.verbose, "Say for each problem what its repair is");
  app.add_flag("--json", arguments.json, "Report as JSON on standard output");
  app.add_option("-C", arguments.progress_fd, "Accepted for fsck(8): progress is shown on a terminal");
  app.add_option("DIR", arguments.directory, "Metadata directory")->required();
}

int main_of(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Checks and repairs an rmemfs file system that is not mounted");
  cli::prepare(app, kProgram);
  declare(app, arguments);
  if (const auto status = cli::parse(app, argc, argv, kUsage)) return *status;
  log::set_level(log::Level::kOff);  // the checker's errors and notices say it all

  const bool asks = !arguments.none && !arguments.safe && !arguments.all;
  if (asks && (::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0 || arguments.json)) {
    cli::print_error(kProgram, "there is no terminal to ask on: give -n, -p or -y");
    return kOperational;
  }
  watch_signals();
  ProgressLine progress(::isatty(STDERR_FILENO) != 0 && !arguments.json);
  Questions questions(progress);
  CheckOptions options;
  options.directory = arguments.directory;
  options.cancelled = &g_cancelled;
  options.answers =
      asks ? Answers::kAsk : (arguments.none ? Answers::kNone : (arguments.safe ? Answers::kSafe : Answers::kAll));
  options.ask = [&](const Problem& problem) { return questions.ask(problem); };
  options.progress = [&](CheckPass pass, unsigned done) { progress.show(pass, done); };
  const auto report = check_file_system(options);
  progress.clear();
  if (!report.ok()) return fail(arguments, report.error());
  const int status = status_of(*report);
  if (arguments.json)
    std::puts(json_of(arguments, *report, status).c_str());
  else
    print_text(arguments, *report, asks);
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    cli::print_error(kProgram, "the report could not be written");
    return kOperational;
  }
  return status;
}

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) { return rmemfs::main_of(argc, argv); }
