// A memory node's pool as found on a file: a sound pool of 64 KiB, changed by patches. An input is a byte of flags (1:
// mend the superblock's checksum afterwards, 2: mend the entries'), then patches {offset in 4 bytes, length in 1,
// bytes}. The reader must refuse, or give tables that hold what pool_tables.cc promises.
#include <algorithm>
#include <cstring>
#include <vector>

#include "memnode/pool_tables.h"
#include "memnode/region_allocator.h"
#include "util/bytes.h"
#include "util/check.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kDataBytes = 64 << 10;

PoolLayout layout() { return *PoolLayout::make(kDataBytes, kPoolPage); }

template <typename Entry>
Entry& at(std::vector<std::byte>& bytes, std::uint64_t offset, std::uint32_t slot) {
  return *reinterpret_cast<Entry*>(bytes.data() + offset + slot * sizeof(Entry));
}

// Two file systems, a leased and a dirty region.
std::vector<std::byte> sound_pool() {
  const PoolLayout where = layout();
  std::vector<std::byte> bytes(where.data_offset);
  auto& s = at<PoolSuperblock>(bytes, 0, 0);
  s.magic = kPoolMagic;
  s.version = kPoolVersion;
  s.generation = 9;
  s.file_bytes = where.file_bytes;
  s.file_systems_offset = where.file_systems_offset;
  s.regions_offset = where.regions_offset;
  s.region_slots = where.region_slots;
  s.data_offset = where.data_offset;
  s.data_bytes = where.data_bytes;
  s.next_region = 3;
  s.crc = checksum(s);
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    auto& f = at<FileSystemEntry>(bytes, where.file_systems_offset, slot);
    f.state = static_cast<std::uint64_t>(FileSystemState::kUsed);
    f.uuid[0] = std::byte(slot + 1);
    f.crc = checksum(f);
    auto& r = at<RegionEntry>(bytes, where.regions_offset, slot);
    r.state = slot + 1;
    r.id = slot + 1;
    r.offset = slot * 8192;
    r.length = 8192;
    r.file_system = f.uuid;
    r.generation = 9;
    r.crc = checksum(r);
  }
  return bytes;
}

void mend(std::vector<std::byte>& bytes, unsigned flags) {
  const PoolLayout where = layout();
  if ((flags & 1) != 0) {
    auto& s = at<PoolSuperblock>(bytes, 0, 0);
    s.crc = checksum(s);
  }
  if ((flags & 2) == 0) return;
  for (std::uint32_t slot = 0; slot < kFileSystemSlots; ++slot) {
    auto& f = at<FileSystemEntry>(bytes, where.file_systems_offset, slot);
    if (f.state != 0) f.crc = checksum(f);
  }
  for (std::uint32_t slot = 0; slot < where.region_slots; ++slot) {
    auto& r = at<RegionEntry>(bytes, where.regions_offset, slot);
    if (r.state != 0) r.crc = checksum(r);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ByteReader input({reinterpret_cast<const std::byte*>(data), size});
  const unsigned flags = input.take<std::uint8_t>();
  std::vector<std::byte> bytes = sound_pool();
  while (input.remaining() > 5) {
    const std::size_t offset = input.take<std::uint32_t>() % bytes.size();
    const std::size_t wanted = input.take<std::uint8_t>();
    const auto patch = input.take_bytes(std::min({wanted, input.remaining(), bytes.size() - offset}));
    std::memcpy(bytes.data() + offset, patch.data(), patch.size());
  }
  mend(bytes, flags);
  const auto tables = read_pool_tables(bytes, layout().file_bytes);
  if (!tables.ok()) return 0;
  CHECK(tables->layout.data_offset <= bytes.size());
  RegionAllocator room(tables->layout.data_bytes, kPoolPage, kHugePage);
  for (const PoolTables::Region& row : tables->regions) {
    CHECK(row.slot < tables->layout.region_slots);
    const auto& entry = at<RegionEntry>(bytes, tables->layout.regions_offset, row.slot);
    CHECK(room.take_exactly({entry.offset, entry.length}));
  }
  return 0;
}

}  // namespace rmemfs
