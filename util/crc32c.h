// CRC32C (Castagnoli, RFC 3720) by ISA-L. Chain calls by passing the last result as `seed`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace rmemfs {
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed = 0);
}  // namespace rmemfs
