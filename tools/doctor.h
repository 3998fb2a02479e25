// What rmemctl doctor knows and what it concludes. collect_facts() (collect_facts.h) looks at the machine; examine() is
// a pure function from what was seen to findings, so that every conclusion can be tested with facts made by hand.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "transport/rdma_devices.h"
#include "util/error.h"

namespace rmemfs {

struct FileFacts {
  bool exists = false;
  bool readable = false, writable = false, executable = false;  // by us
  std::uint32_t mode = 0;                                       // permission bits, with setuid
};

struct HugepageFacts {
  std::uint64_t page_bytes = 0, total = 0, free = 0;
};

struct NodeFacts {
  std::string address;
  bool rdma = false;                   // rdma://
  bool is_private = false;             // the node of `rmemfs --local`, which a mount starts by itself
  std::optional<Error> control_error;  // none: it answered
  double control_s = 0;                // of one call
  std::uint64_t pool_bytes = 0, free_bytes = 0;
  std::string version;
  std::optional<Error> data_error;
  double connect_s = 0, read_s = 0, write_s = 0;  // 4 KiB, medians
};

inline constexpr std::uint64_t kUnlimited = UINT64_MAX;

struct SystemFacts {
  bool root = false;

  RdmaInventory rdma;
  std::vector<std::string> kernel_devices;   // what the kernel has, known to libibverbs or not
  std::vector<std::string> missing_modules;  // of ib_core, rdma_cm, rdma_ucm
  FileFacts rdma_cm;                         // /dev/infiniband/rdma_cm

  std::uint64_t memlock_soft = 0, memlock_hard = 0;  // bytes or kUnlimited
  bool may_exceed_memlock = false;                   // CAP_IPC_LOCK
  std::uint64_t memory_bytes = 0;                    // to register
  std::string memory_of;                             // whose: "the request buffers of a mount here"
  bool memory_named = false;                         // by --memory: somebody means to register it
  std::uint64_t available_bytes = 0;                 // MemAvailable
  std::vector<HugepageFacts> hugepages;

  FileFacts fuse, fusermount;
  std::string fusermount_path;
  bool user_allow_other = false;
  std::optional<std::uint64_t> fuse_max_pages;  // none: the kernel has no such setting, and its limit is 256
  std::uint64_t page_bytes = 4096;
  std::uint64_t largest_request_bytes = 0;  // what a mount asks the kernel for

  std::vector<NodeFacts> nodes;
};

// kNote: worth knowing, nothing to do. kWarn: works, worse than it could. kProblem: something will not work.
enum class Verdict : std::uint8_t { kOk, kNote, kWarn, kProblem };
std::string_view name(Verdict verdict);  // "ok", "note", "warn", "problem"

struct Finding {
  Verdict verdict = Verdict::kOk;
  std::string check;  // stable: "rdma device", "memlock"; rmemfs-rdma(7) explains each
  std::string text;
  std::string fix;  // a command or what to do; empty: nothing
};

std::vector<Finding> examine(const SystemFacts& facts);

}  // namespace rmemfs
