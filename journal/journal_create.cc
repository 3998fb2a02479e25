// mkfs: formats a journal. The superblock goes last, so that a half-made journal is not one.
#include <cstring>
#include <ctime>

#include "journal/journal.h"
#include "journal/journal_format.h"
#include "util/check.h"

namespace rmemfs {

std::size_t Journal::bytes_needed(const JournalGeometry& geometry) {
  return kJournalSuperblockBytes + std::size_t{geometry.slot_bytes} * geometry.slot_count;
}

Result<void> Journal::format(PersistentMemory& memory, const Uuid& file_system, const JournalGeometry& geometry) {
  RETURN_IF_ERROR(check_geometry(geometry));
  if (memory.size() < bytes_needed(geometry)) {
    return Error(Errc::kInvalid, "journal format", "the file is too small for this many slots");
  }
  // Headers of an earlier journal of this file system, if the memory held one, must not look like this one's.
  std::memset(memory.data(), 0, kJournalSuperblockBytes);
  memory.flush(memory.data(), kJournalSuperblockBytes);
  for (std::uint32_t slot = 0; slot < geometry.slot_count; ++slot) {
    std::byte* const at = memory.data() + slot_offset(geometry, slot);
    std::memset(at, 0, kSlotHeaderBytes);
    memory.flush(at, kSlotHeaderBytes);
  }
  store_le(memory.data() + kEpochOffset, encode_epoch(1, file_system));
  memory.persist(memory.data() + kEpochOffset, sizeof(std::uint64_t));
  RETURN_IF_ERROR(memory.sync());
  encode_superblock({memory.data(), kEpochOffset}, file_system, geometry, std::time(nullptr));
  memory.persist(memory.data(), sizeof(JournalSuperblock));
  return memory.sync();
}

}  // namespace rmemfs
