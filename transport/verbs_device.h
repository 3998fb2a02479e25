// VerbsDevice: one RDMA device as the connections of this process use it: its limits, one protection domain for all of
// them, and the registered units of announced memory (LocalMemory). Nothing in the domain can be reached from outside:
// every registration is for local access only.
//
// Thread-safe; takes a Mutex of rank kLeaf. A connection keeps what find() returned, and asks again for other memory.
#pragma once

#include <infiniband/verbs.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "util/mutex.h"
#include "util/result.h"

namespace rmemfs {

struct PdDeleter {
  void operator()(ibv_pd* pd) const { ::ibv_dealloc_pd(pd); }
};
struct MrDeleter {
  void operator()(ibv_mr* mr) const { ::ibv_dereg_mr(mr); }
};
using ProtectionDomain = std::unique_ptr<ibv_pd, PdDeleter>;
using MemoryRegistration = std::unique_ptr<ibv_mr, MrDeleter>;

// Why this machine has no RDMA, in a sentence; none: it has some. Looks at the devices each time.
std::optional<std::string> why_no_rdma();

class VerbsDevice {
 public:
  static Result<std::shared_ptr<VerbsDevice>> make(ibv_context* context);

  ibv_context* context() const { return context_; }
  ibv_pd* domain() const { return domain_.get(); }
  const ibv_device_attr& attributes() const { return attributes_; }
  // For memory that one connection owns: local access only. kNoMemory (also: the limit on locked memory).
  Result<MemoryRegistration> register_own(std::span<std::byte> memory);

  void announce(std::span<std::byte> arena, std::size_t unit_bytes);
  void withdraw(std::span<std::byte> arena);  // deregisters it

  struct Local {
    const std::byte* begin = nullptr;
    const std::byte* end = nullptr;
    std::uint32_t lkey = 0;
    std::uint64_t stamp = 0;
    bool holds(const std::byte* data, std::size_t size) const {
      return data >= begin && size <= static_cast<std::size_t>(end - begin) && data + size <= end;
    }
  };
  // The registered unit that holds these bytes, registered now if need be.
  std::optional<Local> find(const std::byte* data, std::size_t size);
  // A Local is good as long as its stamp is this: withdraw() changes it.
  std::uint64_t stamp() const { return stamp_.load(std::memory_order_acquire); }

 private:
  struct Arena {
    std::span<std::byte> memory;
    std::size_t unit_bytes;
    std::vector<MemoryRegistration> units;
    std::vector<bool> refused;
  };
  explicit VerbsDevice(ibv_context* context) : context_(context) {}

  // Constant after construction.
  ibv_context* const context_;  // librdmacm's, open for the process's life
  ibv_device_attr attributes_{};
  ProtectionDomain domain_;

  std::atomic<std::uint64_t> stamp_{1};
  Mutex mutex_{LockRank::kLeaf};
  std::vector<Arena> arenas_;  // guarded by mutex_; destroyed before the domain
  bool told_refused_ = false;  // guarded by mutex_
};

}  // namespace rmemfs
