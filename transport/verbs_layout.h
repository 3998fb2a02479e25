// What the files of VerbsConnection share: its limits, and the layout of its own memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "transport/connection.h"
#include "transport/verbs_format.h"

namespace rmemfs::verbs {

inline constexpr std::uint32_t kMessages = 32;  // requests in flight; the node may grant fewer
inline constexpr std::uint32_t kResults = 64;   // words of COMPARE_SWAP and of reads behind writes
inline constexpr std::uint32_t kBounces = 4;
inline constexpr std::size_t kBounceBytes = 64 << 10;
inline constexpr std::uint64_t kReceiveMark = std::uint64_t{1} << 63;  // in a work request's number

// The layout of VerbsConnection::messages_.
inline constexpr std::size_t kResultsAt = 0;
inline constexpr std::size_t kRequestsAt = kResultsAt + kResults * 8;
inline constexpr std::size_t kRepliesAt = kRequestsAt + kMessages * kRequestBytes;
inline constexpr std::size_t kReplySpace = 1024;
inline constexpr std::size_t kMessageMemory = kRepliesAt + kMessages * kReplySpace;
static_assert(kMaxReplyBytes <= kReplySpace);

// V8: it matters which queue pair wrote.
inline bool counts_writes(const Operation& op) {
  return op.region->durability.method == PersistMethod::kReadAfterWrite;
}

}  // namespace rmemfs::verbs
