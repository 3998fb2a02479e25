// Strong types for the numbers that must not be mixed up. Plain values; ordered, hashable, printable with value().
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "util/result.h"

namespace rmemfs {

template <typename Tag, typename Number = std::uint64_t>
class StrongId {
 public:
  using number_type = Number;
  constexpr StrongId() = default;
  constexpr explicit StrongId(Number value) : value_(value) {}
  constexpr Number value() const { return value_; }
  constexpr auto operator<=>(const StrongId&) const = default;  // NOLINT(modernize-use-nullptr): the compiler's own 0
  constexpr StrongId next() const { return StrongId(value_ + 1); }

 private:
  Number value_ = 0;
};

using InodeNumber = StrongId<struct InodeTag>;           // never reused; the root is 1
using ChunkId = StrongId<struct ChunkTag>;               // never reused; 0 is no chunk
using NodeId = StrongId<struct NodeTag, std::uint32_t>;  // index in the file system's node list
using RegionId = StrongId<struct RegionTag>;             // unique in one node's pool for the pool's life
using Generation = StrongId<struct GenerationTag>;       // of a pool's contents; never 0
using MountEpoch = StrongId<struct MountEpochTag>;       // grows with each mount
using CommitId = StrongId<struct CommitTag>;             // grows with each transaction; 0 is before the first

inline constexpr InodeNumber kRootInode{1};

// A file system's or a pool's identity (RFC 4122, random).
struct Uuid {
  std::array<std::byte, 16> bytes{};
  auto operator<=>(const Uuid&) const = default;  // NOLINT(modernize-use-nullptr): the compiler's own 0
  bool is_zero() const { return *this == Uuid{}; }
  static Uuid random();
  static Result<Uuid> parse(std::string_view text);
  std::string to_string() const;
};

// An unguessable 128-bit secret; compared in constant time.
struct AccessKey {
  std::array<std::byte, 16> bytes{};
  static AccessKey random();
  bool matches(const AccessKey& other) const;
};

// 16 or more bytes from the kernel's random source.
void fill_random(std::byte* data, std::size_t size);

}  // namespace rmemfs

template <typename Tag, typename Number>
struct std::hash<rmemfs::StrongId<Tag, Number>> {
  std::size_t operator()(const rmemfs::StrongId<Tag, Number>& id) const noexcept {
    return std::hash<Number>{}(id.value());
  }
};
