// Statistics of one lane: written by its thread only, read by any. Lanes share no cache line.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace rmemfs {

// constant, name for rmemctl (stable).
#define RMEMFS_LANE_COUNTERS(X)                     \
  X(kLookup, "requests.lookup")                     \
  X(kForget, "requests.forget")                     \
  X(kGetattr, "requests.getattr")                   \
  X(kSetattr, "requests.setattr")                   \
  X(kReadlink, "requests.readlink")                 \
  X(kMakeNode, "requests.make_node")                \
  X(kUnlink, "requests.unlink")                     \
  X(kRename, "requests.rename")                     \
  X(kLink, "requests.link")                         \
  X(kOpen, "requests.open")                         \
  X(kOpendir, "requests.opendir")                   \
  X(kRead, "requests.read")                         \
  X(kWrite, "requests.write")                       \
  X(kFsync, "requests.fsync")                       \
  X(kReaddir, "requests.readdir")                   \
  X(kStatfs, "requests.statfs")                     \
  X(kFallocate, "requests.fallocate")               \
  X(kSeek, "requests.seek")                         \
  X(kCopy, "requests.copy")                         \
  X(kGetAttribute, "requests.getxattr")             \
  X(kListAttributes, "requests.listxattr")          \
  X(kSetAttribute, "requests.setxattr")             \
  X(kErrors, "requests.failed")                     \
  X(kReadBytes, "bytes.read")                       \
  X(kWrittenBytes, "bytes.written")                 \
  X(kRemoteReads, "transport.reads")                \
  X(kRemoteWrites, "transport.writes")              \
  X(kRemotePersists, "transport.persists")          \
  X(kRemoteReadBytes, "transport.read_bytes")       \
  X(kRemoteWrittenBytes, "transport.written_bytes") \
  X(kRemotePending, "transport.awaited")            \
  X(kRemoteFailed, "transport.failed")              \
  X(kWorkRequests, "transport.work_requests")       \
  X(kDoorbells, "transport.doorbells")              \
  X(kSignalled, "transport.completions")            \
  X(kReconnects, "transport.reconnects")            \
  X(kRequests, "lane.requests")                     \
  X(kSpins, "lane.spins")                           \
  X(kSpinHits, "lane.spin_hits")                    \
  X(kSleeps, "lane.sleeps")

enum class Counter : std::uint8_t {
#define RMEMFS_X(name, text) name,
  RMEMFS_LANE_COUNTERS(RMEMFS_X)
#undef RMEMFS_X
};

inline constexpr std::string_view kCounterNames[] = {
#define RMEMFS_X(name, text) text,
    RMEMFS_LANE_COUNTERS(RMEMFS_X)
#undef RMEMFS_X
};
inline constexpr std::size_t kCounterCount = std::size(kCounterNames);

struct alignas(64) LaneCounters {
  // Owner's thread only: a plain load and store, no locked instruction.
  void add(Counter counter, std::uint64_t amount = 1) {
    auto& value = values[static_cast<std::size_t>(counter)];
    value.store(value.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  std::uint64_t get(Counter counter) const {
    return values[static_cast<std::size_t>(counter)].load(std::memory_order_relaxed);
  }
  std::array<std::atomic<std::uint64_t>, kCounterCount> values{};
};

}  // namespace rmemfs
