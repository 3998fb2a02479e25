#include "tools/collect_facts.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "control/node_client.h"
#include "fs/fuse_lane.h"
#include "fs/request_buffer.h"
#include "manager/superblock.h"
#include "tools/mounts.h"
#include "tools/node_ping.h"

namespace rmemfs {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

std::optional<std::uint64_t> number_of(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return number;
}

// The number behind "Name:" in a file of /proc.
std::optional<std::uint64_t> field_of(const std::string& text, std::string_view name) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line(text.data() + at, end - at);
    if (line.starts_with(name)) return number_of(line.substr(name.size()));
    at = end + 1;
  }
  return std::nullopt;
}

FileFacts look_at(const std::string& path) {
  FileFacts facts;
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return facts;
  facts.exists = true;
  facts.mode = status.st_mode & 07777;
  const auto may = [&](int how) { return ::faccessat(AT_FDCWD, path.c_str(), how, AT_EACCESS) == 0; };
  facts.readable = may(R_OK);
  facts.writable = may(W_OK);
  facts.executable = may(X_OK);
  return facts;
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

std::string find_in_path(const std::string& program) {
  const char* const path = std::getenv("PATH");
  std::istringstream directories(path == nullptr ? "" : path);
  // Users often lack sbin in their PATH; libfuse itself asks for the program by its place.
  std::vector<std::string> places;
  for (std::string directory; std::getline(directories, directory, ':');) places.push_back(directory);
  for (const char* usual : {"/usr/bin", "/bin", "/usr/local/bin"}) places.emplace_back(usual);
  for (const std::string& place : places) {
    struct stat status {};
    const std::string file = std::string(place).append("/").append(program);
    if (!place.empty() && ::stat(file.c_str(), &status) == 0 && S_ISREG(status.st_mode)) return file;
  }
  return {};
}

bool may_lock_memory() {
  // Of the effective set: CapEff is a hexadecimal number.
  const std::string status = text_of("/proc/self/status");
  const std::size_t at = status.find("CapEff:");
  if (at == std::string::npos) return false;
  return ((std::strtoull(status.c_str() + at + 7, nullptr, 16) >> CAP_IPC_LOCK) & 1) != 0;
}

std::uint64_t limit_of(rlim_t limit) { return limit == RLIM_INFINITY ? kUnlimited : static_cast<std::uint64_t>(limit); }

void look_at_rdma(SystemFacts& facts) {
  facts.rdma = list_rdma_devices();
  facts.kernel_devices = names_in("/sys/class/infiniband");
  for (const char* module : {"ib_core", "rdma_cm", "rdma_ucm"}) {
    if (!look_at(std::string("/sys/module/") + module).exists) facts.missing_modules.emplace_back(module);
  }
  facts.rdma_cm = look_at("/dev/infiniband/rdma_cm");
}

void look_at_memory(SystemFacts& facts) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
    facts.memlock_soft = limit_of(limit.rlim_cur);
    facts.memlock_hard = limit_of(limit.rlim_max);
  }
  facts.may_exceed_memlock = may_lock_memory();
  facts.available_bytes = field_of(text_of("/proc/meminfo"), "MemAvailable:").value_or(0) * 1024;
  static constexpr std::string_view kPrefix = "hugepages-";
  for (const std::string& name : names_in("/sys/kernel/mm/hugepages")) {
    const std::optional<std::uint64_t> kib =
        name.starts_with(kPrefix) ? number_of(std::string_view(name).substr(kPrefix.size())) : std::nullopt;
    if (!kib) continue;
    const std::string directory = "/sys/kernel/mm/hugepages/" + name;
    facts.hugepages.push_back({*kib * 1024, number_of(text_of(directory + "/nr_hugepages")).value_or(0),
                               number_of(text_of(directory + "/free_hugepages")).value_or(0)});
  }
  std::sort(facts.hugepages.begin(), facts.hugepages.end(),
            [](const HugepageFacts& a, const HugepageFacts& b) { return a.page_bytes < b.page_bytes; });
}

void look_at_fuse(SystemFacts& facts) {
  facts.fuse = look_at("/dev/fuse");
  facts.fusermount_path = find_in_path("fusermount3");
  if (!facts.fusermount_path.empty()) facts.fusermount = look_at(facts.fusermount_path);
  facts.user_allow_other = allows_other(text_of("/etc/fuse.conf"));
  facts.fuse_max_pages = number_of(text_of("/proc/sys/fs/fuse/max_pages_limit"));
  facts.page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  facts.largest_request_bytes = kMaxRequestData;
}

bool is_address(std::string_view place) {
  return place.starts_with("shm:") || place.starts_with("unix:") || place.starts_with("tcp://") ||
         place.starts_with("rdma://");
}

Result<void> add_place(const std::string& place, SystemFacts& facts) {
  NodeFacts node;
  if (is_address(place)) {
    ASSIGN_OR_RETURN(const NodeAddress address, data_address_of(place));
    node.address = place;
    node.rdma = address.transport == TransportKind::kVerbs;
    facts.nodes.push_back(std::move(node));
    return success();
  }
  ASSIGN_OR_RETURN(const std::string directory, find_directory(place));
  ASSIGN_OR_RETURN(const Superblock superblock, load_superblock(directory));
  for (const NodeRecord& record : superblock.nodes) {
    node = {};
    node.address = node_address_of(directory, record);
    node.rdma = node.address.starts_with("rdma://");
    node.is_private = superblock.local_bytes != 0;
    facts.nodes.push_back(node);
  }
  return success();
}

void ask_control_plane(NodeFacts& node, std::uint32_t timeout_ms) {
  Result<std::unique_ptr<NodeClient>> client = NodeClient::make(node.address);
  if (!client.ok()) {
    node.control_error = client.error();
    return;
  }
  const Result<NodeDescription> description = (*client)->describe(timeout_ms);
  if (!description.ok()) {
    node.control_error = description.error();
    return;
  }
  node.pool_bytes = description->pool_bytes;
  node.free_bytes = description->free_bytes;
  node.version = description->version;
  // The first call made the connection; the next ones are what a call costs.
  double least = 0;
  for (int i = 0; i < 3; ++i) {
    const TimePoint before = MonoClock::now();
    if (!(*client)->heartbeat(timeout_ms).ok()) break;
    const double took = std::chrono::duration<double>(MonoClock::now() - before).count();
    least = least == 0 ? took : std::min(least, took);
  }
  node.control_s = least;
}

void ask_data_plane(NodeFacts& node, const DoctorQuestion& question) {
  PingOptions options;
  options.latency_sizes = {4096};
  options.bandwidth_size.reset();
  options.count = 200;
  options.seconds = 0.3;
  options.timeout_ms = question.timeout_ms;
  options.stop_fd = question.stop_fd;
  const Result<PingReport> report = ping_node(node.address, options);
  if (!report.ok()) {
    node.data_error = report.error();
    return;
  }
  node.connect_s = report->connect_s;
  for (const PingMeasurement& m : report->measurements) {
    (m.kind == OperationKind::kWrite ? node.write_s : node.read_s) = m.median_s;
  }
  if (report->interrupted) node.data_error = Error(Errc::kCancelled, "doctor", node.address);
}

// What RDMA would have to lock on this machine: what was named, or the pools of the file system's nodes that are here,
// or the request buffers that a mount registers.
void weigh_memory(const DoctorQuestion& question, SystemFacts& facts) {
  const std::uint64_t lanes = std::max(1U, std::thread::hardware_concurrency());
  facts.memory_bytes = lanes * LaneOptions{}.buffers * kMaxRequestData;
  facts.memory_of = "the request buffers of a mount with " + std::to_string(lanes) + (lanes == 1 ? " lane" : " lanes");
  std::uint64_t pools = 0;
  for (const NodeFacts& node : facts.nodes) {
    if (node.address.starts_with("shm:") || node.address.starts_with("unix:")) pools += node.pool_bytes;
  }
  if (question.memory_bytes) {
    facts.memory_bytes = *question.memory_bytes;
    facts.memory_of = "--memory";
    facts.memory_named = true;
  } else if (pools > facts.memory_bytes) {
    facts.memory_bytes = pools;
    facts.memory_of = "the pools of this machine's nodes";
  }
}

}  // namespace

bool allows_other(std::string_view fuse_conf) {
  while (!fuse_conf.empty()) {
    const std::size_t end = std::min(fuse_conf.find('\n'), fuse_conf.size());
    std::string_view line = fuse_conf.substr(0, end);
    while (!line.empty() && (line.back() == ' ' || line.back() == '\t' || line.back() == '\r')) line.remove_suffix(1);
    if (line == "user_allow_other") return true;
    fuse_conf.remove_prefix(std::min(end + 1, fuse_conf.size()));
  }
  return false;
}

Result<SystemFacts> collect_facts(const DoctorQuestion& question) {
  SystemFacts facts;
  facts.root = ::geteuid() == 0;
  for (const std::string& place : question.places) RETURN_IF_ERROR(add_place(place, facts));
  look_at_rdma(facts);
  look_at_memory(facts);
  look_at_fuse(facts);
  {
    std::vector<std::jthread> threads;
    for (NodeFacts& node : facts.nodes) {
      threads.emplace_back([&node, &question] { ask_control_plane(node, question.timeout_ms); });
    }
  }
  // One after the other: together they would measure each other.
  for (NodeFacts& node : facts.nodes) {
    if (!node.control_error) ask_data_plane(node, question);
  }
  weigh_memory(question, facts);
  return facts;
}

}  // namespace rmemfs
