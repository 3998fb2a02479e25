// The superblock's parser: no bytes crash it, and what it accepts, encoded again, is the same bytes.
#include <cstdint>
#include <cstring>
#include <string>

#include "manager/superblock.h"
#include "util/bytes.h"
#include "util/check.h"
#include "util/crc32c.h"

namespace {

void parse(std::span<const std::byte> bytes) {
  const auto superblock = rmemfs::parse_superblock(bytes);
  if (superblock.ok()) CHECK(rmemfs::encode_superblock(*superblock) == rmemfs::as_text(bytes));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  parse(rmemfs::as_bytes(bytes));
  // The same with length and checksum made right, so that the fields behind them are reached.
  if (size < 256) return 0;
  auto* const at = reinterpret_cast<std::byte*>(bytes.data());
  rmemfs::store_le(at + 12, static_cast<std::uint32_t>(size));
  rmemfs::store_le(at + 16, std::uint32_t{0});
  rmemfs::store_le(at + 16, rmemfs::crc32c(rmemfs::as_bytes(bytes)));
  parse(rmemfs::as_bytes(bytes));
  return 0;
}
