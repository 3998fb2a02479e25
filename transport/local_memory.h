// LocalMemory: the memory of this process that operations read and write, and what its RDMA devices know of it.
//
// A lane announces the arena of its request buffers; a device registers each unit of it (one buffer) when an operation
// first uses it, once, and from then on operations on it need no copy. Memory that nobody announced works as well: a
// connection copies it through a registered buffer of its own.
//
// Invariants:
//   - announced memory stays mapped until it is withdrawn, and withdraw() returns only after no device knows it;
//   - a unit that could not be registered (the limit on locked memory) is used as if it had not been announced; the
//     reason is logged once.
// Thread-safe; takes a Mutex of rank kTransport. Registering blocks for as long as it takes to pin one unit.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "util/mutex.h"
#include "util/result.h"

struct ibv_context;

namespace rmemfs {

class VerbsDevice;

class LocalMemory {
 public:
  LocalMemory();
  ~LocalMemory();
  LocalMemory(const LocalMemory&) = delete;
  LocalMemory& operator=(const LocalMemory&) = delete;

  // `unit_bytes` divides the arena; an operation's buffer that crosses units is copied.
  void announce(std::span<std::byte> arena, std::size_t unit_bytes);
  void withdraw(std::span<std::byte> arena);

  // The one VerbsDevice of a context that rdma_cm has opened.
  Result<std::shared_ptr<VerbsDevice>> device(ibv_context* context);

 private:
  struct Arena {
    std::span<std::byte> memory;
    std::size_t unit_bytes;
  };
  Mutex mutex_{LockRank::kTransport};
  // Guarded by mutex_.
  std::vector<Arena> arenas_;
  std::vector<std::shared_ptr<VerbsDevice>> devices_;
};

}  // namespace rmemfs
