#include "memnode/pool_format.h"

#include <algorithm>
#include <cstring>

#include "util/crc32c.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kSmallPool = 64u << 20;  // below, alignment to huge pages would waste too much

std::uint64_t round_up(std::uint64_t value, std::uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

template <std::size_t size>
bool all_zero(const std::array<std::byte, size>& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

Error damaged(std::string what) { return Error(Errc::kCorrupt, "pool superblock", std::move(what)); }

}  // namespace

Result<PoolLayout> PoolLayout::make(std::uint64_t data_bytes, std::uint64_t granule) {
  if (data_bytes == 0 || data_bytes % kPoolPage != 0 || data_bytes > kMaxPoolBytes) {
    return Error(Errc::kInvalid, "pool size", std::to_string(data_bytes) + " bytes is not a multiple of 4K up to 64T");
  }
  PoolLayout layout;
  layout.data_bytes = data_bytes;
  layout.file_systems_offset = kPoolPage;
  layout.regions_offset = kPoolPage + kFileSystemSlots * sizeof(FileSystemEntry);
  layout.region_slots = std::clamp<std::uint64_t>(data_bytes >> 20, 1024, 65536);
  const std::uint64_t alignment = data_bytes >= kSmallPool ? kHugePage : kPoolPage;
  layout.data_offset = round_up(layout.regions_offset + layout.region_slots * sizeof(RegionEntry), alignment);
  layout.file_bytes = round_up(layout.data_offset + data_bytes, std::max<std::uint64_t>(granule, kPoolPage));
  return layout;
}

std::uint32_t checksum(const PoolSuperblock& superblock) {
  PoolSuperblock copy = superblock;
  copy.crc = 0;
  copy.next_region = 0;
  return crc32c(std::as_bytes(std::span(&copy, 1)));
}

std::uint32_t checksum(const FileSystemEntry& entry) {
  return crc32c(std::as_bytes(std::span(&entry, 1)).subspan(16, 32));
}

std::uint32_t checksum(const RegionEntry& entry) { return crc32c(std::as_bytes(std::span(&entry, 1)).subspan(8, 72)); }

bool looks_like_pool(std::span<const std::byte> page) {
  return page.size() >= 8 && std::memcmp(page.data(), &kPoolMagic, 8) == 0;
}

Result<PoolLayout> check_superblock(const PoolSuperblock& s, std::uint64_t file_bytes) {
  if (s.magic != kPoolMagic) return Error(Errc::kNotFormatted, "pool superblock", "it does not begin as a pool does");
  if (s.version != kPoolVersion) {
    return Error(Errc::kVersion, "pool superblock", "format version " + std::to_string(s.version));
  }
  if (checksum(s) != s.crc) return Error(Errc::kChecksum, "pool superblock");
  if ((s.incompat_features & ~kPoolKnownIncompatFeatures) != 0 ||
      (s.ro_compat_features & ~kPoolKnownReadOnlyFeatures) != 0) {
    return Error(Errc::kUnsupportedFeature, "pool superblock",
                 "feature bits incompat " + std::to_string(s.incompat_features) + ", ro_compat " +
                     std::to_string(s.ro_compat_features));
  }
  if (s.generation == 0) return damaged("its generation is zero");
  if (s.persistent > 1) return damaged("its kind of memory is unknown");
  if (!all_zero(s.reserved)) return damaged("its reserved bytes are not zero");
  Result<PoolLayout> layout = PoolLayout::make(s.data_bytes, kPoolPage);
  if (!layout.ok()) return damaged("its size is impossible");
  layout->file_bytes = s.file_bytes;
  const PoolLayout stated{s.file_systems_offset, s.regions_offset, s.region_slots,
                          s.data_offset,         s.data_bytes,     s.file_bytes};
  if (stated != *layout) return damaged("its tables are not where this version puts them");
  if (s.file_bytes % kPoolPage != 0 || s.file_bytes < s.data_offset + s.data_bytes ||
      s.file_bytes > kMaxPoolBytes * 2) {
    return damaged("its size is impossible");
  }
  if (file_bytes != s.file_bytes) {
    return damaged("the file has " + std::to_string(file_bytes) + " bytes, the pool " + std::to_string(s.file_bytes));
  }
  if (s.next_region == 0) return damaged("its next region id is zero");
  return layout;
}

}  // namespace rmemfs
