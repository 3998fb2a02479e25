// rmemctl doctor: what of this machine, and of the nodes named, is in the way of rmemfs, and how to get it out of
// there.
#include <array>
#include <cstdio>

#include "tools/cli.h"
#include "tools/collect_facts.h"
#include "tools/json.h"
#include "tools/rmemctl_commands.h"
#include "tools/text_table.h"
#include "util/log.h"

namespace rmemfs {
namespace {

using Counts = std::array<std::uint64_t, 4>;  // by Verdict

void print_json(const std::vector<Finding>& findings, const Counts& counts) {
  Json out;
  out.begin_object();
  out.field("problems", counts[static_cast<int>(Verdict::kProblem)]);
  out.field("warnings", counts[static_cast<int>(Verdict::kWarn)]);
  out.key("findings").begin_array();
  for (const Finding& finding : findings) {
    out.begin_object();
    out.field("check", finding.check).field("status", name(finding.verdict));
    out.field("text", finding.text).field("fix", finding.fix);
    out.end_object();
  }
  out.end_array().end_object();
  std::printf("%s\n", out.text().c_str());
}

void print_text(const std::vector<Finding>& findings, const Counts& counts) {
  std::vector<std::vector<std::string>> rows;
  for (const Finding& finding : findings) {
    rows.push_back({std::string(name(finding.verdict)), finding.check, finding.text});
    if (!finding.fix.empty()) rows.push_back({"", "", "-> " + finding.fix});
  }
  std::fputs(text_table(rows, {false, false, false}).c_str(), stdout);
  const auto say = [](std::uint64_t count, const char* what) {
    return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
  };
  std::printf("%s, %s\n", say(counts[static_cast<int>(Verdict::kProblem)], "problem").c_str(),
              say(counts[static_cast<int>(Verdict::kWarn)], "warning").c_str());
}

}  // namespace

void DoctorCommand::add_to(CLI::App& app) {
  command_ = app.add_subcommand("doctor", "Look for what is in the way of rmemfs on this machine, and say the fix");
  command_->allow_extras();
  command_->add_option("place", places_, "Nodes' addresses, file systems' directories or mount points to look at too")
      ->type_name("PLACE");
  cli::add_size(*command_, "--memory", memory_bytes_, "Memory that this machine is going to lend over RDMA");
  command_->add_flag("--json", json_, "Print JSON");
  command_->add_option("--timeout", timeout_ms_, "Give up on a node's answer after this many milliseconds")
      ->type_name("MS")
      ->check(CLI::Range(1, 3'600'000))
      ->capture_default_str();
}

int DoctorCommand::run() {
  log::set_level(log::Level::kOff);  // what a node does wrong is a finding
  const UniqueFd stop = signals_as_descriptor();
  const Result<SystemFacts> facts = collect_facts({places_, memory_bytes_, timeout_ms_, stop.get()});
  if (!facts.ok()) {
    cli::print_error("rmemctl", facts.error());
    return cli::kUsage;
  }
  const std::vector<Finding> findings = examine(*facts);
  Counts counts{};
  for (const Finding& finding : findings) ++counts[static_cast<std::size_t>(finding.verdict)];
  if (json_) {
    print_json(findings, counts);
  } else {
    print_text(findings, counts);
  }
  return counts[static_cast<std::size_t>(Verdict::kProblem)] == 0 ? 0 : cli::kFailure;
}

}  // namespace rmemfs
