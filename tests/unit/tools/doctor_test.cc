// The doctor's conclusions from facts made by hand: what this machine has or lacks does not matter here.
#include "tools/doctor.h"

#include <boost/test/unit_test.hpp>

#include <algorithm>

#include "tools/collect_facts.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kGiB = 1 << 30;

// A machine without RDMA on which everything else is well.
SystemFacts plain_machine() {
  SystemFacts facts;
  facts.rdma.reason = "this machine has no RDMA device";
  facts.missing_modules = {"ib_core", "rdma_cm", "rdma_ucm"};
  facts.memlock_soft = facts.memlock_hard = 8 * kMiB;
  facts.memory_bytes = 64 * kMiB;
  facts.memory_of = "the request buffers of a mount with 2 lanes";
  facts.available_bytes = 16 * kGiB;
  facts.hugepages = {{2 * kMiB, 0, 0}, {kGiB, 0, 0}};
  facts.fuse = {true, true, true, false, 0666};
  facts.fusermount = {true, true, true, true, 04755};
  facts.fusermount_path = "/usr/bin/fusermount3";
  facts.user_allow_other = true;
  facts.fuse_max_pages = 256;
  facts.largest_request_bytes = kMiB;
  return facts;
}

RdmaGid ipv4_gid(RdmaGidType type) {
  RdmaGid gid;
  gid.index = 1;
  gid.bytes = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1};
  gid.type = type;
  gid.network_device = "eth0";
  return gid;
}

// One with a port that works, and limits that are wide enough.
SystemFacts rdma_machine() {
  SystemFacts facts = plain_machine();
  facts.rdma.reason.clear();
  RdmaPort port;
  port.state = RdmaPortState::kActive;
  port.link_layer = RdmaLinkLayer::kEthernet;
  port.active_mtu_bytes = port.max_mtu_bytes = 4096;
  port.gids = {ipv4_gid(RdmaGidType::kRoceV2)};
  RdmaDevice device;
  device.name = "mlx5_0";
  device.atomics = true;
  device.max_registration_bytes = 1024 * kGiB;
  device.ports = {port};
  facts.rdma.devices = {device};
  facts.kernel_devices = {"mlx5_0"};
  facts.missing_modules.clear();
  facts.rdma_cm = {true, true, true, false, 0666};
  facts.memlock_soft = facts.memlock_hard = kUnlimited;
  return facts;
}

NodeFacts node(const char* address) {
  NodeFacts made;
  made.address = address;
  made.rdma = made.address.starts_with("rdma://");
  return made;
}

// The worst of a check's findings; the check has to be there.
Finding worst(const SystemFacts& facts, const std::string& check) {
  Finding found;
  bool any = false;
  for (const Finding& finding : examine(facts)) {
    if (finding.check != check || (any && finding.verdict <= found.verdict)) continue;
    found = finding;
    any = true;
  }
  BOOST_REQUIRE_MESSAGE(any, "no finding about " << check);
  return found;
}

std::size_t count(const SystemFacts& facts, Verdict verdict) {
  const std::vector<Finding> findings = examine(facts);
  return static_cast<std::size_t>(
      std::count_if(findings.begin(), findings.end(), [&](const Finding& f) { return f.verdict == verdict; }));
}

bool says(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

BOOST_AUTO_TEST_SUITE(doctor)

BOOST_AUTO_TEST_CASE(a_machine_without_rdma_has_no_problem) {
  const SystemFacts facts = plain_machine();
  BOOST_TEST(count(facts, Verdict::kProblem) == 0u);
  BOOST_TEST(count(facts, Verdict::kWarn) == 0u);
  const Finding rdma = worst(facts, "rdma device");
  BOOST_TEST((rdma.verdict == Verdict::kNote));
  BOOST_TEST(says(rdma.text, "tcp"));
  BOOST_TEST(!rdma.fix.empty());
  const Finding memlock = worst(facts, "memlock");
  BOOST_TEST((memlock.verdict == Verdict::kNote));
}

BOOST_AUTO_TEST_CASE(a_machine_with_rdma_in_order_is_all_right) {
  const SystemFacts facts = rdma_machine();
  BOOST_TEST(count(facts, Verdict::kProblem) == 0u);
  BOOST_TEST(count(facts, Verdict::kWarn) == 0u);
  const Finding port = worst(facts, "rdma port");
  BOOST_TEST((port.verdict == Verdict::kOk));
  BOOST_TEST(says(port.text, "10.0.0.1 (RoCE v2 on eth0)"));
  BOOST_TEST(says(port.text, "MTU 4096"));
}

BOOST_AUTO_TEST_CASE(an_rdma_node_needs_a_device) {
  SystemFacts facts = plain_machine();
  facts.nodes = {node("rdma://store:7471")};
  BOOST_TEST((worst(facts, "rdma device").verdict == Verdict::kProblem));
  BOOST_TEST((worst(facts, "memlock").verdict == Verdict::kProblem));
  BOOST_TEST((worst(facts, "rdma modules").verdict == Verdict::kProblem));
  BOOST_TEST(says(worst(facts, "rdma modules").text, "rdma_ucm"));
}

BOOST_AUTO_TEST_CASE(a_device_that_only_the_kernel_knows_lacks_its_driver) {
  SystemFacts facts = rdma_machine();
  facts.rdma.devices.clear();
  facts.rdma.reason = "this machine has no RDMA device";
  const Finding device = worst(facts, "rdma device");
  BOOST_TEST((device.verdict == Verdict::kWarn));
  BOOST_TEST(says(device.text, "mlx5_0"));
  BOOST_TEST(says(device.fix, "ibverbs-providers"));
}

BOOST_AUTO_TEST_CASE(ports_that_do_not_work_say_what_to_do) {
  SystemFacts facts = rdma_machine();
  RdmaPort& port = facts.rdma.devices[0].ports[0];
  port.state = RdmaPortState::kDown;
  BOOST_TEST((worst(facts, "rdma port").verdict == Verdict::kWarn));
  BOOST_TEST(says(worst(facts, "rdma port").fix, "ip link set eth0 up"));
  facts.nodes = {node("rdma://store:7471")};
  BOOST_TEST((worst(facts, "rdma port").verdict == Verdict::kProblem));
  port.link_layer = RdmaLinkLayer::kInfiniband;
  port.state = RdmaPortState::kInitializing;
  BOOST_TEST(says(worst(facts, "rdma port").fix, "opensm"));
  // A second port that works makes the first one's state a warning.
  RdmaPort second = port;
  second.number = 2;
  second.state = RdmaPortState::kActive;
  facts.rdma.devices[0].ports.push_back(second);
  BOOST_TEST((worst(facts, "rdma port").verdict == Verdict::kWarn));
}

BOOST_AUTO_TEST_CASE(gids_that_lead_nowhere_are_found) {
  SystemFacts facts = rdma_machine();
  RdmaPort& port = facts.rdma.devices[0].ports[0];
  port.gids[0].type = RdmaGidType::kRoceV1;
  BOOST_TEST((worst(facts, "rdma port").verdict == Verdict::kWarn));
  BOOST_TEST(says(worst(facts, "rdma port").fix, "cma_roce_mode -d mlx5_0 -p 1 -m 2"));
  port.gids[0].type = RdmaGidType::kRoceV2;
  port.gids[0].bytes = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  BOOST_TEST(says(worst(facts, "rdma port").fix, "ip addr add"));
  port.gids.clear();
  BOOST_TEST(says(worst(facts, "rdma port").text, "no GID"));
  port.gids = {ipv4_gid(RdmaGidType::kRoceV2)};
  port.active_mtu_bytes = 1024;
  BOOST_TEST((worst(facts, "rdma port").verdict == Verdict::kNote));
  BOOST_TEST(says(worst(facts, "rdma port").fix, "mtu 4500"));
}

BOOST_AUTO_TEST_CASE(memlock_is_weighed_against_the_memory) {
  SystemFacts facts = rdma_machine();
  facts.memlock_soft = facts.memlock_hard = 8 * kMiB;
  BOOST_TEST((worst(facts, "memlock").verdict == Verdict::kWarn));
  BOOST_TEST(says(worst(facts, "memlock").fix, "LimitMEMLOCK=infinity"));
  facts.memlock_hard = kUnlimited;
  BOOST_TEST(says(worst(facts, "memlock").fix, "ulimit -l"));
  facts.memory_named = true;
  BOOST_TEST((worst(facts, "memlock").verdict == Verdict::kProblem));
  facts.memlock_soft = facts.memory_bytes;
  BOOST_TEST((worst(facts, "memlock").verdict == Verdict::kOk));
  facts.memlock_soft = facts.memory_bytes - 1;
  BOOST_TEST((worst(facts, "memlock").verdict == Verdict::kProblem));
  facts.may_exceed_memlock = true;
  BOOST_TEST((worst(facts, "memlock").verdict == Verdict::kOk));
}

BOOST_AUTO_TEST_CASE(memory_that_is_not_there_cannot_be_lent) {
  SystemFacts facts = rdma_machine();
  facts.memory_named = true;
  facts.memory_bytes = 32 * kGiB;
  BOOST_TEST((worst(facts, "memory").verdict == Verdict::kProblem));
  facts.rdma.devices[0].max_registration_bytes = kGiB;
  BOOST_TEST((worst(facts, "max_mr_size").verdict == Verdict::kNote));
}

BOOST_AUTO_TEST_CASE(hugepages_that_do_not_suffice_are_counted) {
  SystemFacts facts = rdma_machine();
  BOOST_TEST(says(worst(facts, "hugepages").fix, "vm.nr_hugepages=32"));
  facts.hugepages[0] = {2 * kMiB, 40, 16};
  BOOST_TEST((worst(facts, "hugepages").verdict == Verdict::kNote));
  BOOST_TEST(says(worst(facts, "hugepages").text, "16 free of 40"));
  facts.hugepages[0].free = 32;
  BOOST_TEST((worst(facts, "hugepages").verdict == Verdict::kOk));
  facts.hugepages.clear();
  BOOST_TEST((worst(facts, "hugepages").verdict == Verdict::kNote));
}

BOOST_AUTO_TEST_CASE(what_a_mount_needs_is_looked_at) {
  SystemFacts facts = plain_machine();
  facts.fuse = {true, true, true, false, 0600};
  facts.root = true;
  BOOST_TEST((worst(facts, "fuse device").verdict == Verdict::kNote));
  facts.root = false;
  facts.fuse.readable = facts.fuse.writable = false;
  BOOST_TEST((worst(facts, "fuse device").verdict == Verdict::kProblem));
  facts.fuse = {};
  BOOST_TEST(says(worst(facts, "fuse device").fix, "modprobe fuse"));

  facts.fusermount.mode = 0755;
  BOOST_TEST((worst(facts, "fusermount3").verdict == Verdict::kProblem));
  BOOST_TEST(says(worst(facts, "fusermount3").fix, "chmod 4755 /usr/bin/fusermount3"));
  facts.root = true;
  BOOST_TEST((worst(facts, "fusermount3").verdict == Verdict::kWarn));
  facts.fusermount = {};
  BOOST_TEST(says(worst(facts, "fusermount3").fix, "fuse3"));
  facts.fusermount = {true, true, true, true, 04755};
  facts.user_allow_other = false;
  BOOST_TEST((worst(facts, "fusermount3").verdict == Verdict::kNote));

  facts.fuse_max_pages = 32;
  BOOST_TEST((worst(facts, "fuse pages").verdict == Verdict::kWarn));
  BOOST_TEST(says(worst(facts, "fuse pages").fix, "max_pages_limit=256"));
  facts.fuse_max_pages.reset();
  BOOST_TEST((worst(facts, "fuse pages").verdict == Verdict::kOk));
}

BOOST_AUTO_TEST_CASE(nodes_are_told_apart) {
  SystemFacts facts = plain_machine();
  facts.nodes = {node("tcp://store:7471")};
  BOOST_TEST((worst(facts, "node control").verdict == Verdict::kOk));
  BOOST_TEST((worst(facts, "node data").verdict == Verdict::kOk));
  NodeFacts& store = facts.nodes[0];
  store.data_error = Error(Errc::kNoSpace);
  BOOST_TEST((worst(facts, "node data").verdict == Verdict::kNote));
  store.data_error = Error(Errc::kDeadline);
  BOOST_TEST((worst(facts, "node data").verdict == Verdict::kProblem));
  store.control_error = Error(Errc::kUnreachable);
  BOOST_TEST(says(worst(facts, "node control").fix, "start rmemd"));
  for (const Finding& finding : examine(facts)) BOOST_TEST(finding.check != "node data");
  store.is_private = true;
  BOOST_TEST((worst(facts, "node control").verdict == Verdict::kNote));
  store.control_error = Error(Errc::kVersion);
  BOOST_TEST((worst(facts, "node control").verdict == Verdict::kProblem));
}

BOOST_AUTO_TEST_CASE(every_warning_and_problem_has_a_fix) {
  SystemFacts facts = plain_machine();
  facts.fuse = facts.fusermount = {};
  facts.fuse_max_pages = 1;
  facts.memory_named = true;
  facts.memory_bytes = 32 * kGiB;
  facts.rdma.unusable = {"mlx5_0: permission denied"};
  facts.nodes = {node("rdma://a:1"), node("tcp://b:1"), node("tcp://c:1"), node("rdma://d:1")};
  facts.nodes[0].data_error = Error(Errc::kUnreachable);
  facts.nodes[1].control_error = Error(Errc::kDeadline);
  facts.nodes[2].control_error = Error(Errc::kProtocol);
  facts.nodes[3].data_error = Error(Errc::kNotSupported);
  BOOST_TEST(count(facts, Verdict::kProblem) >= 8u);
  for (const Finding& finding : examine(facts)) {
    BOOST_TEST((finding.verdict < Verdict::kWarn || !finding.fix.empty()), finding.text);
  }
}

BOOST_AUTO_TEST_CASE(allow_other_counts_on_a_line_of_its_own) {
  BOOST_TEST(!allows_other(""));
  BOOST_TEST(!allows_other("#user_allow_other\nmount_max = 9\n"));
  BOOST_TEST(!allows_other("user_allow_other = yes\n"));
  BOOST_TEST(allows_other("# text\nuser_allow_other"));
  BOOST_TEST(allows_other("user_allow_other \nmount_max = 9\n"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace rmemfs
