// Each function looks at one subject. How bad something about RDMA is depends on who needs RDMA: a node of the file
// system asked about (rdma://) or memory named to be registered makes it a problem; a device that is there, a warning;
// on a machine without either it is a note, because rmemfs works over shm and tcp there.
#include "tools/doctor.h"

#include <algorithm>

#include "tools/cli.h"
#include "tools/text_table.h"

namespace rmemfs {
namespace {

using cli::format_size;

class Examiner {
 public:
  explicit Examiner(const SystemFacts& facts) : f_(facts) {
    needs_rdma_ = std::any_of(f_.nodes.begin(), f_.nodes.end(), [](const NodeFacts& node) { return node.rdma; });
    has_rdma_ = !f_.rdma.devices.empty() || !f_.kernel_devices.empty();
  }

  std::vector<Finding> run() && {
    rdma_devices();
    for (const RdmaDevice& device : f_.rdma.devices) {
      rdma_device(device);
      for (const RdmaPort& port : device.ports) rdma_port(device, port);
    }
    connection_manager();
    memlock();
    memory();
    hugepages();
    fuse_device();
    fusermount();
    fuse_pages();
    for (const NodeFacts& node : f_.nodes) control_plane(node);
    for (const NodeFacts& node : f_.nodes) data_plane(node);
    return std::move(findings_);
  }

 private:
  void add(Verdict verdict, const char* check, std::string text, std::string fix = {}) {
    findings_.push_back({verdict, check, std::move(text), std::move(fix)});
  }
  // What a fault of RDMA's is worth.
  Verdict rdma_fault() const { return needs_rdma_ ? Verdict::kProblem : has_rdma_ ? Verdict::kWarn : Verdict::kNote; }

  void rdma_devices() {
    for (const std::string& device : f_.rdma.unusable) {
      add(rdma_fault(), "rdma device", device,
          "give this user access to /dev/infiniband/uverbs*; in a container, pass /dev/infiniband into it");
    }
    if (!f_.rdma.devices.empty() || !f_.rdma.unusable.empty()) return;
    if (!f_.kernel_devices.empty()) {
      std::string list;
      for (const std::string& device : f_.kernel_devices) list += (list.empty() ? "" : ", ") + device;
      add(rdma_fault(), "rdma device",
          "the kernel has " + list +
              ", which libibverbs cannot use: its driver for programs or /dev/infiniband is missing",
          "apt-get install ibverbs-providers; modprobe ib_uverbs; in a container, pass /dev/infiniband into it");
      return;
    }
    static constexpr const char* kSoft =
        "modprobe rdma_rxe && rdma link add rxe0 type rxe netdev DEVICE makes a software one; see rmemfs-rdma(7)";
    if (needs_rdma_) {
      add(Verdict::kProblem, "rdma device", f_.rdma.reason + ", and an rdma:// node cannot be reached without one",
          std::string("use the node's tcp:// address, or: ") + kSoft);
    } else {
      add(Verdict::kNote, "rdma device",
          f_.rdma.reason + ": nodes are reached over shm and tcp, which works, at a higher latency", kSoft);
    }
  }

  void rdma_device(const RdmaDevice& device) {
    std::string text = device.name + ": ";
    if (!device.firmware.empty()) text += "firmware " + device.firmware + ", ";
    text += "registers up to " + format_size(device.max_registration_bytes) + " at once, ";
    text += device.atomics ? "atomics" : "no atomics";
    if (device.on_demand_paging) text += ", on-demand paging";
    text += device.native_flush ? ", native flush" : ", no native flush";
    if (!device.atomics) {
      add(Verdict::kWarn, "rdma device", text + (device.iwarp ? "; it is iWARP" : ""),
          "an adapter for RoCE or InfiniBand has remote atomics");
    } else {
      add(Verdict::kOk, "rdma device", text);
    }
    if (f_.memory_named && device.max_registration_bytes < f_.memory_bytes) {
      add(Verdict::kNote, "max_mr_size",
          device.name + " registers " + format_size(f_.memory_bytes) + " in pieces, as one may have " +
              format_size(device.max_registration_bytes) + " at most");
    }
  }

  void rdma_port(const RdmaDevice& device, const RdmaPort& port) {
    std::string text = device.name + " port " + std::to_string(port.number) + ": " + name(port.link_layer) + ", ";
    const std::optional<std::size_t> chosen = port.chosen_gid();
    const std::string interface = chosen ? port.gids[*chosen].network_device : std::string();
    const std::string shown = interface.empty() ? "DEVICE" : interface;
    if (port.state != RdmaPortState::kActive) {
      // Another port may be the one in use.
      const bool another = std::any_of(f_.rdma.devices.begin(), f_.rdma.devices.end(), [](const RdmaDevice& other) {
        return std::any_of(other.ports.begin(), other.ports.end(),
                           [](const RdmaPort& p) { return p.state == RdmaPortState::kActive; });
      });
      std::string fix = "ip link set " + shown + " up, and look at the cable";
      if (port.link_layer == RdmaLinkLayer::kInfiniband) {
        fix = port.state == RdmaPortState::kDown ? "look at the cable and the switch"
                                                 : "start a subnet manager on the fabric (opensm)";
      }
      add(another ? Verdict::kWarn : rdma_fault(), "rdma port", text + "the port is " + name(port.state), fix);
      return;
    }
    text += "active, MTU " + std::to_string(port.active_mtu_bytes);
    if (!chosen) {
      add(rdma_fault(), "rdma port", text + ", no GID", "ip addr add ADDRESS/LENGTH dev " + shown);
      return;
    }
    const RdmaGid& gid = port.gids[*chosen];
    text +=
        ", takes GID " + std::to_string(gid.index) + " of " + std::to_string(port.gids.size()) + ": " + gid.to_string();
    text += std::string(" (") + name(gid.type) + (interface.empty() ? "" : " on " + interface) + ")";
    if (port.link_layer != RdmaLinkLayer::kEthernet) {
      add(Verdict::kOk, "rdma port", text);
    } else if (gid.is_link_local()) {
      add(rdma_fault(), "rdma port", text + ", which no address of a node leads to",
          "ip addr add ADDRESS/LENGTH dev " + shown);
    } else if (gid.type == RdmaGidType::kRoceV1) {
      add(Verdict::kWarn, "rdma port", text + ", which routers do not pass on",
          "cma_roce_mode -d " + device.name + " -p " + std::to_string(port.number) + " -m 2");
    } else if (port.active_mtu_bytes < port.max_mtu_bytes) {
      add(Verdict::kNote, "rdma port",
          text + " of at most " + std::to_string(port.max_mtu_bytes) + ": more packets for the same bytes",
          "ip link set " + shown + " mtu " + std::to_string(port.max_mtu_bytes + 404) +
              " on both sides, and as much in the switches");
    } else {
      add(Verdict::kOk, "rdma port", text);
    }
  }

  void connection_manager() {
    if (!has_rdma_ && !needs_rdma_) return;  // said by rdma_devices()
    if (!f_.rdma_cm.exists) {
      std::string text = "/dev/infiniband/rdma_cm is missing, and without it nothing connects";
      std::string fix = "modprobe rdma_ucm; in a container, pass /dev/infiniband into it";
      if (!f_.missing_modules.empty()) {
        std::string list;
        for (const std::string& module : f_.missing_modules) list += (list.empty() ? "" : ", ") + module;
        text += "; not loaded: " + list;
      }
      add(rdma_fault(), "rdma modules", text, fix);
    } else if (!f_.rdma_cm.readable || !f_.rdma_cm.writable) {
      add(rdma_fault(), "rdma modules", "/dev/infiniband/rdma_cm may not be opened by this user",
          "chmod 0666 /dev/infiniband/rdma_cm (the udev rules of rdma-core do it)");
    } else {
      add(Verdict::kOk, "rdma modules", "/dev/infiniband/rdma_cm can be opened");
    }
  }

  void memlock() {
    const auto limit_text = [](std::uint64_t limit) {
      return limit == kUnlimited ? std::string("unlimited") : format_size(limit);
    };
    const std::string need = format_size(f_.memory_bytes) + " (" + f_.memory_of + ")";
    std::string text = "RLIMIT_MEMLOCK is " + limit_text(f_.memlock_soft);
    if (f_.may_exceed_memlock) {
      add(Verdict::kOk, "memlock", text + ", and this user may exceed it (CAP_IPC_LOCK); RDMA locks " + need);
    } else if (f_.memlock_soft >= f_.memory_bytes) {
      add(Verdict::kOk, "memlock", text + "; RDMA locks " + need);
    } else {
      const bool required = needs_rdma_ || f_.memory_named;
      text += ", hard " + limit_text(f_.memlock_hard) + "; RDMA would lock " + need;
      if (!required && !has_rdma_) text += ", shm and tcp lock nothing";
      const char* fix = f_.memlock_hard >= f_.memory_bytes
                            ? "ulimit -l unlimited (or the hard limit), in the shell that starts the program"
                            : "LimitMEMLOCK=infinity in the service's unit, or \"* - memlock unlimited\" in "
                              "/etc/security/limits.conf and a new login";
      add(required ? Verdict::kProblem : has_rdma_ ? Verdict::kWarn : Verdict::kNote, "memlock", text, fix);
    }
  }

  void memory() {
    if (!f_.memory_named || f_.memory_bytes <= f_.available_bytes) return;
    add(Verdict::kProblem, "memory",
        format_size(f_.memory_bytes) + " are to be lent, and " + format_size(f_.available_bytes) + " are available",
        "lend less: rmemd --size");
  }

  void hugepages() {
    std::uint64_t free = 0;
    std::string text;
    for (const HugepageFacts& size : f_.hugepages) {
      free += size.free * size.page_bytes;
      if (size.total == 0) continue;
      text += (text.empty() ? "" : ", ") + std::to_string(size.free) + " free of " + std::to_string(size.total) +
              " of " + format_size(size.page_bytes);
    }
    if (f_.hugepages.empty()) {
      add(Verdict::kNote, "hugepages", "the kernel has none: memory is registered in ordinary pages");
      return;
    }
    const std::uint64_t page = f_.hugepages.front().page_bytes;
    const std::uint64_t pages = (f_.memory_bytes + page - 1) / page;
    const std::string fix = "sysctl vm.nr_hugepages=" + std::to_string(pages) +
                            ", early after boot; or at boot, hugepages=" + std::to_string(pages);
    if (text.empty()) {
      add(Verdict::kNote, "hugepages",
          "none reserved: registering memory takes longer, and an adapter translates more addresses", fix);
    } else if (free < f_.memory_bytes) {
      add(Verdict::kNote, "hugepages",
          text + "; " + format_size(f_.memory_bytes) + " (" + f_.memory_of + ") do not fit", fix);
    } else {
      add(Verdict::kOk, "hugepages", text);
    }
  }

  void fuse_device() {
    if (!f_.fuse.exists) {
      add(Verdict::kProblem, "fuse device",
          "/dev/fuse is missing: nothing can be mounted here (a memory node needs no mount)",
          "modprobe fuse; in a container, --device /dev/fuse --cap-add SYS_ADMIN");
    } else if (!f_.fuse.readable || !f_.fuse.writable) {
      add(Verdict::kProblem, "fuse device", "/dev/fuse may not be opened by this user",
          "chmod 0666 /dev/fuse (its usual mode)");
    } else if (f_.root && (f_.fuse.mode & 06) != 06) {
      add(Verdict::kNote, "fuse device", "/dev/fuse can be opened by root; other users cannot mount",
          "chmod 0666 /dev/fuse (its usual mode)");
    } else {
      add(Verdict::kOk, "fuse device", "/dev/fuse can be opened");
    }
  }

  void fusermount() {
    // Root mounts without it.
    const Verdict fault = f_.root ? Verdict::kWarn : Verdict::kProblem;
    if (!f_.fusermount.exists) {
      add(fault, "fusermount3", "fusermount3 is not in PATH: users can neither mount nor unmount",
          "apt-get install fuse3");
      return;
    }
    if (!f_.fusermount.executable) {
      add(fault, "fusermount3", f_.fusermount_path + " may not be run by this user",
          "chmod 4755 " + f_.fusermount_path);
      return;
    }
    if ((f_.fusermount.mode & 04000) == 0) {
      add(fault, "fusermount3", f_.fusermount_path + " is not setuid root: users cannot mount",
          "chmod 4755 " + f_.fusermount_path);
      return;
    }
    if (!f_.user_allow_other) {
      add(Verdict::kNote, "fusermount3", f_.fusermount_path + " is set up; users may not give -o allow_other",
          "a line user_allow_other in /etc/fuse.conf allows it");
    } else {
      add(Verdict::kOk, "fusermount3", f_.fusermount_path + " is set up, -o allow_other is allowed to users");
    }
  }

  void fuse_pages() {
    const std::uint64_t wanted = (f_.largest_request_bytes + f_.page_bytes - 1) / f_.page_bytes;
    if (!f_.fuse_max_pages) {
      add(Verdict::kOk, "fuse pages", "this kernel's limit is fixed at 256 pages a request");
    } else if (*f_.fuse_max_pages < wanted) {
      add(Verdict::kWarn, "fuse pages",
          "a request has " + std::to_string(*f_.fuse_max_pages) + " pages at most; a mount would use " +
              std::to_string(wanted),
          "sysctl fs.fuse.max_pages_limit=" + std::to_string(wanted));
    } else {
      add(Verdict::kOk, "fuse pages",
          "a request may have " + std::to_string(*f_.fuse_max_pages) + " pages; a mount uses " +
              std::to_string(wanted));
    }
  }

  void control_plane(const NodeFacts& node) {
    if (!node.control_error) {
      add(Verdict::kOk, "node control",
          node.address + " answers in " + format_latency(node.control_s) + ": version " + node.version + ", " +
              format_size(node.free_bytes) + " free of " + format_size(node.pool_bytes));
      return;
    }
    const Error& error = *node.control_error;
    const std::string sentence(rmemfs::sentence(error.code));
    switch (error.code) {
      case Errc::kUnreachable:
      case Errc::kDeadline:
        if (node.is_private) {
          add(Verdict::kNote, "node control",
              node.address + " is the file system's private node and does not run; a mount starts it");
        } else {
          add(Verdict::kProblem, "node control", node.address + ": " + sentence,
              "start rmemd there, and let its TCP port through every firewall between");
        }
        return;
      case Errc::kVersion:
        add(Verdict::kProblem, "node control", node.address + ": " + sentence,
            "install the same version of rmemfs on both sides");
        return;
      default:
        add(Verdict::kProblem, "node control", cli::sentence_of(error), "look at the node's log");
    }
  }

  void data_plane(const NodeFacts& node) {
    if (node.control_error) return;  // not asked
    if (!node.data_error) {
      add(Verdict::kOk, "node data",
          node.address + ": connects in " + format_latency(node.connect_s) + "; 4 KiB read " +
              format_latency(node.read_s) + ", write " + format_latency(node.write_s) + " (median)");
      return;
    }
    const Error& error = *node.data_error;
    const std::string text = node.address + ": " + std::string(rmemfs::sentence(error.code));
    switch (error.code) {
      case Errc::kNoSpace:
      case Errc::kTooMany:
        add(Verdict::kNote, "node data", text + ", so its data plane was not measured");
        return;
      case Errc::kNotSupported:
        // The detail is the reason; the code's sentence adds nothing to it.
        add(Verdict::kProblem, "node data", error.detail.empty() ? text : error.detail,
            "use the node's tcp:// address");
        return;
      case Errc::kUnreachable:
      case Errc::kDeadline:
        add(Verdict::kProblem, "node data", text + " over its data plane, though its control plane answers",
            node.rdma ? "rping -s there and rping -c -a HOST here show whether RDMA itself gets through; let UDP port "
                        "4791 (RoCE v2) through every firewall"
                      : "look at the node's log");
        return;
      default:
        add(Verdict::kProblem, "node data", cli::sentence_of(error), "look at the node's log");
    }
  }

  const SystemFacts& f_;
  bool needs_rdma_ = false;
  bool has_rdma_ = false;
  std::vector<Finding> findings_;
};

}  // namespace

std::string_view name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kNote:
      return "note";
    case Verdict::kWarn:
      return "warn";
    case Verdict::kProblem:
      break;
  }
  return "problem";
}

std::vector<Finding> examine(const SystemFacts& facts) { return Examiner(facts).run(); }

}  // namespace rmemfs
