#include "transport/pool_mapping.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

namespace rmemfs {

Result<std::shared_ptr<PoolMapping>> PoolMapping::map(const UniqueFd& file, std::uint64_t size,
                                                      std::uint64_t epoch_offset) {
  if (!file.valid()) return Error(Errc::kProtocol, "pool mapping", "the node passed no descriptor");
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return Error(errc_from_errno(errno), "pool mapping");
  if (size == 0 || status.st_size < 0 || size > static_cast<std::uint64_t>(status.st_size)) {
    return Error(Errc::kProtocol, "pool mapping", "the pool's file is shorter than the pool");
  }
  if (epoch_offset % 8 != 0 || size < 8 || epoch_offset > size - 8) {
    return Error(Errc::kProtocol, "pool mapping", "the epoch word is not in the pool");
  }
  void* const data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) return Error(errc_from_errno(errno), "pool mapping");
  // Fewer faults where the kernel has huge pages for it; a refusal changes nothing.
  (void)::madvise(data, size, MADV_HUGEPAGE);
  std::shared_ptr<PoolMapping> mapping(new PoolMapping);
  mapping->data_ = static_cast<std::byte*>(data);
  mapping->size_ = size;
  mapping->epoch_offset_ = epoch_offset;
  mapping->device_ = status.st_dev;
  mapping->inode_ = status.st_ino;
  return mapping;
}

PoolMapping::~PoolMapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace rmemfs
