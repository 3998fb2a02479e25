// rmemctl ping: what a memory node's data plane gives, without a file system around it.
#include <sys/signalfd.h>

#include <csignal>
#include <cstdio>

#include "tools/cli.h"
#include "tools/json.h"
#include "tools/rmemctl_commands.h"
#include "tools/text_table.h"
#include "util/log.h"

namespace rmemfs {
namespace {

const char* verb(OperationKind kind) { return kind == OperationKind::kWrite ? "write" : "read"; }

void print_json(const PingReport& report) {
  Json out;
  out.begin_object();
  out.field("address", report.address).field("connect_seconds", report.connect_s);
  out.field("region_bytes", report.region_bytes).field("interrupted", report.interrupted);
  out.key("measurements").begin_array();
  for (const PingMeasurement& m : report.measurements) {
    out.begin_object();
    out.field("operation", verb(m.kind)).field("bytes", m.size_bytes).field("depth", std::uint64_t{m.depth});
    out.field("operations", m.operations).field("seconds", m.seconds);
    out.field("min_seconds", m.min_s).field("median_seconds", m.median_s);
    out.field("p99_seconds", m.p99_s).field("max_seconds", m.max_s);
    out.field("bytes_per_second", m.bytes_per_second());
    out.end_object();
  }
  out.end_array().end_object();
  std::printf("%s\n", out.text().c_str());
}

void print_text(const PingReport& report) {
  std::printf("%s: connected in %s, region of %s\n", report.address.c_str(), format_latency(report.connect_s).c_str(),
              cli::format_size(report.region_bytes).c_str());
  std::vector<std::vector<std::string>> rows = {
      {"OPERATION", "SIZE", "DEPTH", "COUNT", "MIN", "MEDIAN", "P99", "RATE"}};
  for (const PingMeasurement& m : report.measurements) {
    rows.push_back({verb(m.kind), cli::format_size(m.size_bytes), std::to_string(m.depth), std::to_string(m.operations),
                    format_latency(m.min_s), format_latency(m.median_s), format_latency(m.p99_s),
                    cli::format_size(static_cast<std::uint64_t>(m.bytes_per_second())) + "/s"});
  }
  std::fputs(text_table(rows, {false, true, true, true, true, true, true, true}).c_str(), stdout);
}

}  // namespace

UniqueFd signals_as_descriptor() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, number);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

void PingCommand::add_to(CLI::App& app) {
  command_ = app.add_subcommand("ping", "Measure a memory node's data plane: latency and bandwidth");
  command_->allow_extras();
  command_->add_option("address", address_, "shm:PATH, unix:PATH, tcp://HOST:PORT or rdma://HOST:PORT")
      ->type_name("ADDRESS");
  cli::add_size(*command_, "--size", size_bytes_, "Measure operations of this size only (default: 8, 4K and 1M)");
  command_->add_option("--count", options_.count, "Operations of each latency measurement")
      ->check(CLI::Range(1, 10'000'000))
      ->capture_default_str();
  command_->add_option("--depth", options_.depth, "Operations under way while bandwidth is measured")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command_->add_option("--seconds", options_.seconds, "End each measurement after this long")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  command_->add_option("--poll", poll_, "How completions are waited for: spin or block")
      ->check(CLI::IsMember({"spin", "block"}))
      ->capture_default_str();
  command_->add_flag("--json", json_, "Print JSON");
  command_->add_option("--timeout", options_.timeout_ms, "Give up on an operation after this many milliseconds")
      ->type_name("MS")
      ->check(CLI::Range(1, 3'600'000))
      ->capture_default_str();
}

int PingCommand::run() {
  if (address_.empty()) {
    cli::print_error("rmemctl", "ping needs the node's address");
    return cli::kUsage;
  }
  log::set_level(log::Level::kOff);  // what goes wrong is said once, in the one sentence at the end
  const UniqueFd stop = signals_as_descriptor();
  options_.stop_fd = stop.get();
  options_.spin = poll_ == "spin";
  if (size_bytes_) {
    options_.latency_sizes = {*size_bytes_};
    options_.bandwidth_size = *size_bytes_;
  }
  const Result<PingReport> report = ping_node(address_, options_);
  if (!report.ok()) {
    cli::print_error("rmemctl", report.error());
    return report.error().code == Errc::kInvalid ? cli::kUsage : status_of(report.error());
  }
  if (json_) {
    print_json(*report);
  } else {
    print_text(*report);
  }
  if (!report->left_behind.empty()) {
    cli::print_error("rmemctl", "the node may keep a region of " + cli::format_size(report->region_bytes) +
                                    " leased: " + report->left_behind);
    return cli::kFailure;
  }
  return report->interrupted ? kInterrupted : 0;
}

}  // namespace rmemfs
