#include "util/crc32c.h"

#include <isa-l/crc.h>

namespace rmemfs {

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed) {
  // ISA-L neither inverts its input nor its output; RFC 3720 does both. Its pointer parameter is not const, its use is.
  auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data()));
  return ~crc32_iscsi(data, static_cast<int>(bytes.size()), ~seed);
}

}  // namespace rmemfs
