// rmemctl: asks a running mount, a memory node or this machine how it is, and ends mounts. It never waits longer than
// its deadline.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "control/admin.h"
#include "control/node_client.h"
#include "tools/cli.h"
#include "tools/json.h"
#include "tools/mounts.h"
#include "tools/rmemctl_commands.h"
#include "tools/text_table.h"

namespace rmemfs {

int status_of(const Error& error) {
  switch (error.code) {
    case Errc::kNotFound:
      return kNothingMounted;
    case Errc::kUnreachable:
    case Errc::kDeadline:
      return kNoAnswer;
    default:
      return cli::kFailure;
  }
}

namespace {

constexpr const char* kProgram = "rmemctl";
struct Arguments {
  std::string command, target;
  std::uint32_t timeout_ms = 5000;
  bool json = false;
};

int fail(const Error& error) {
  if (error.code == Errc::kNotFound && !error.detail.empty()) {
    cli::print_error(kProgram, error.detail);  // "DIR: nothing is mounted from here" needs no more words
  } else {
    cli::print_error(kProgram, error);
  }
  return status_of(error);
}

std::string size_text(std::uint64_t bytes) { return cli::format_size(bytes); }

std::string number_text(double value) {
  char text[64];
  if (value == std::floor(value) && std::fabs(value) < 1e15)
    std::snprintf(text, sizeof text, "%.0f", value);
  else
    std::snprintf(text, sizeof text, "%.3f", value);
  return text;
}

void print_table(const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& right) {
  std::fputs(text_table(rows, right).c_str(), stdout);
}

int print_status(const AdminStatus& s, bool json) {
  if (json) {
    Json out;
    out.begin_object();
    out.field("uuid", s.uuid).field("directory", s.directory).field("mountpoint", s.mountpoint);
    out.field("version", s.version).field("state", s.state).field("reason", s.reason);
    out.field("survives", s.survives);
    out.field("pid", s.pid).field("epoch", s.epoch).field("lanes", s.lanes);
    out.field("total_bytes", s.total_bytes).field("free_bytes", s.free_bytes).field("inodes", s.inodes);
    out.field("lost_bytes", s.lost_bytes).field("uptime_seconds", s.uptime_seconds);
    out.end_object();
    std::printf("%s\n", out.text().c_str());
    return 0;
  }
  print_table({{"state", s.reason.empty() ? s.state : s.state + ": " + s.reason},
               {"mounted on", s.mountpoint},
               {"directory", s.directory},
               {"uuid", s.uuid},
               {"space", size_text(s.free_bytes) + " free of " + size_text(s.total_bytes)},
               {"lost", s.lost_bytes == 0 ? "nothing" : size_text(s.lost_bytes) + "; see rmemctl lost"},
               {"inodes", std::to_string(s.inodes)},
               {"fsync survives", s.survives},
               {"mount epoch", std::to_string(s.epoch)},
               {"daemon", "pid " + std::to_string(s.pid) + ", version " + s.version + ", " + std::to_string(s.lanes) +
                              (s.lanes == 1 ? " lane, up " : " lanes, up ") + format_duration(s.uptime_seconds)}},
              {false, false});
  return 0;
}

int print_counters(const AdminCounters& counters, bool json) {
  if (json) {
    Json out;
    out.begin_object();
    for (const auto& [name, value] : counters) out.field(name, value);
    out.end_object();
    std::printf("%s\n", out.text().c_str());
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : counters) rows.push_back({name, number_text(value)});
  print_table(rows, {false, true});
  return 0;
}

int print_nodes(const std::vector<AdminNode>& nodes, bool json) {
  if (json) {
    Json out;
    out.begin_array();
    for (const AdminNode& n : nodes) {
      out.begin_object();
      out.field("id", std::uint64_t{n.id}).field("address", n.address).field("health", n.health);
      out.field("durability", n.durability).field("pool_bytes", n.pool_bytes).field("free_bytes", n.free_bytes);
      out.field("leased_bytes", n.leased_bytes).field("used_bytes", n.used_bytes).field("lost_bytes", n.lost_bytes);
      out.field("chunks", n.chunks).field("seconds_since_answer", n.seconds_since_answer);
      out.end_object();
    }
    out.end_array();
    std::printf("%s\n", out.text().c_str());
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {
      {"ID", "ADDRESS", "HEALTH", "DURABILITY", "POOL", "FREE", "LEASED", "USED", "LOST", "CHUNKS", "ANSWERED"}};
  for (const AdminNode& n : nodes) {
    rows.push_back({std::to_string(n.id), n.address, n.health, n.durability, size_text(n.pool_bytes),
                    size_text(n.free_bytes), size_text(n.leased_bytes), size_text(n.used_bytes),
                    size_text(n.lost_bytes), std::to_string(n.chunks),
                    std::isinf(n.seconds_since_answer) ? "never" : format_duration(n.seconds_since_answer) + " ago"});
  }
  print_table(rows, {true, false, false, false, true, true, true, true, true, true, true});
  return 0;
}

int print_lost(const std::vector<std::string>& files, bool json) {
  if (json) {
    Json out;
    out.begin_array();
    for (const std::string& file : files) out.value(file);
    out.end_array();
    std::printf("%s\n", out.text().c_str());
    return 0;
  }
  for (const std::string& file : files) std::printf("%s\n", file.c_str());
  return 0;
}

int print_description(const std::string& address, const NodeDescription& d, bool json) {
  static constexpr const char* kDurability[] = {"volatile", "saved", "persistent"};
  static constexpr const char* kMethod[] = {"none", "read-after-write", "node flush", "native flush"};
  const std::string durability = kDurability[std::min<std::size_t>(d.durability, 2)];
  const std::string method = kMethod[std::min<std::size_t>(d.persist_method, 3)];
  if (json) {
    Json out;
    out.begin_object();
    out.field("address", address).field("version", d.version).field("pid", d.pid);
    out.field("protocol_version", std::uint64_t{d.protocol_version});
    out.field("pool", d.pool.to_string()).field("generation", d.generation.value());
    out.field("pool_bytes", d.pool_bytes).field("free_bytes", d.free_bytes).field("regions", d.regions);
    out.field("durability", durability).field("persist_method", method);
    out.end_object();
    std::printf("%s\n", out.text().c_str());
    return 0;
  }
  print_table({{"address", address},
               {"pool", d.pool.to_string()},
               {"generation", std::to_string(d.generation.value())},
               {"space", size_text(d.free_bytes) + " free of " + size_text(d.pool_bytes)},
               {"regions", std::to_string(d.regions)},
               {"memory", durability + (method == "none" ? "" : ", persistent by " + method)},
               {"process", "pid " + std::to_string(d.pid) + ", version " + d.version + ", protocol " +
                               std::to_string(d.protocol_version)}},
              {false, false});
  return 0;
}

int ask_mount(const Arguments& arguments) {
  Result<std::string> directory = find_directory(arguments.target);
  if (!directory.ok()) {
    cli::print_error(kProgram, directory.error().detail);
    return directory.error().code == Errc::kNotFound ? kNothingMounted : cli::kUsage;
  }
  Result<std::unique_ptr<AdminClient>> client = AdminClient::connect(*directory);
  if (!client.ok()) return fail(client.error());
  const auto answer = [&](auto result, auto print) {
    return result.ok() ? print(*result, arguments.json) : fail(result.error());
  };
  if (arguments.command == "status") return answer((*client)->status(arguments.timeout_ms), print_status);
  if (arguments.command == "stats") return answer((*client)->counters(arguments.timeout_ms), print_counters);
  if (arguments.command == "nodes") return answer((*client)->nodes(arguments.timeout_ms), print_nodes);
  return answer((*client)->lost_files(arguments.timeout_ms), print_lost);
}

int ask_node(const Arguments& arguments) {
  Result<std::unique_ptr<NodeClient>> client = NodeClient::make(arguments.target);
  if (!client.ok()) {
    cli::print_error(kProgram, client.error());
    return client.error().code == Errc::kInvalid ? cli::kUsage : kNoAnswer;
  }
  Result<NodeDescription> description = (*client)->describe(arguments.timeout_ms);
  if (!description.ok()) return fail(description.error());
  return print_description(arguments.target, *description, arguments.json);
}

int main_of(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Asks a running rmemfs mount, or a memory node, how it is");
  cli::prepare(app, kProgram);
  app.require_subcommand(0, 1);  // a missing one gets our own sentence
  const auto common = [&](CLI::App& command) {
    command.add_flag("--json", arguments.json, "Print JSON");
    command.add_option("--timeout", arguments.timeout_ms, "Give up after this many milliseconds")
        ->type_name("MS")
        ->check(CLI::Range(1, 3'600'000))
        ->capture_default_str();
    command.allow_extras();
  };
  const auto add = [&](const char* name, const char* what) {
    CLI::App* command = app.add_subcommand(name, what);
    common(*command);
    command->add_option("target", arguments.target, "Mount point, or the file system's directory")->type_name("PLACE");
    command->callback([&arguments, name] { arguments.command = name; });
  };
  add("status", "What is mounted, how much room there is, what an fsync survives");
  add("stats", "Counters");
  add("nodes", "The memory nodes and their health");
  add("lost", "Files of which bytes are lost");
  CLI::App* node = app.add_subcommand("node", "Ask a memory node itself");
  node->allow_extras();
  node->require_subcommand(0, 1);
  CLI::App* describe = node->add_subcommand("describe", "Its pool, generation, room and durability");
  common(*describe);
  describe->add_option("address", arguments.target, "shm:PATH, unix:PATH, tcp://HOST:PORT or rdma://HOST:PORT")
      ->type_name("ADDRESS");
  describe->callback([&arguments] { arguments.command = "describe"; });
  UmountCommand umount;
  umount.add_to(app);
  PingCommand ping;
  ping.add_to(app);
  DoctorCommand doctor;
  doctor.add_to(app);
  if (const std::optional<int> status = cli::parse(app, argc, argv)) return *status;
  if (umount.chosen()) return umount.run();
  if (ping.chosen()) return ping.run();
  if (doctor.chosen()) return doctor.run();
  if (arguments.command.empty()) {
    cli::print_error(kProgram, "say what to ask: status, stats, nodes, lost, node describe, umount, ping or doctor");
    return cli::kUsage;
  }
  if (arguments.command != "describe") return ask_mount(arguments);
  if (arguments.target.empty()) {
    cli::print_error(kProgram, "node describe needs the node's address");
    return cli::kUsage;
  }
  return ask_node(arguments);
}

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) { return rmemfs::main_of(argc, argv); }
