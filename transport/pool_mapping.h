// PoolMapping: a same-host node's pool in this process. Unmapped with its last owner. Immutable; the memory is shared.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "util/result.h"
#include "util/unique_fd.h"

namespace rmemfs {

class PoolMapping {
 public:
  // Maps `size` bytes of the file. kProtocol when the file is shorter (touching what is missing would end the process
  // by SIGBUS) or the epoch word is not inside; kNoMemory, kLocalIo.
  static Result<std::shared_ptr<PoolMapping>> map(const UniqueFd& file, std::uint64_t size, std::uint64_t epoch_offset);
  ~PoolMapping();
  PoolMapping(const PoolMapping&) = delete;
  PoolMapping& operator=(const PoolMapping&) = delete;

  std::byte* data() const { return data_; }
  std::uint64_t size() const { return size_; }
  std::uint64_t* epoch_word() const { return reinterpret_cast<std::uint64_t*>(data_ + epoch_offset_); }
  bool same_file(const PoolMapping& other) const {
    return device_ == other.device_ && inode_ == other.inode_ && size_ == other.size_ &&
           epoch_offset_ == other.epoch_offset_;
  }

 private:
  PoolMapping() = default;
  std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
  std::uint64_t epoch_offset_ = 0;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace rmemfs
