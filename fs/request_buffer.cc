#include "fs/request_buffer.h"

#include <sys/mman.h>

#include "util/check.h"

namespace rmemfs {

RequestBuffers::RequestBuffers(std::uint32_t count, std::shared_ptr<LocalMemory> local_memory)
    : local_memory_(std::move(local_memory)), references_(count, 0) {
  void* memory =
      ::mmap(nullptr, count * kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED);
  memory_ = static_cast<std::byte*>(memory);
  for (std::uint32_t i = count; i-- > 0;) free_.push_back(i);
  local_memory_->announce(whole(), kBytes);
}

RequestBuffers::~RequestBuffers() {
  local_memory_->withdraw(whole());
  ::munmap(memory_, references_.size() * kBytes);
}

BufferRef RequestBuffers::take() {
  if (free_.empty()) return {};
  const std::uint32_t index = free_.back();
  free_.pop_back();
  references_[index] = 1;
  return {this, index};
}

}  // namespace rmemfs
