// PersistentMemory: a mapped run of bytes whose stores become durable by flush() + drain(). The one seam to libpmem.
//
// Three kinds of backing (`Backing`):
//   kPmem   DAX: drain() makes flushed lines survive the host's power loss (clwb + sfence)
//   kFile   an ordinary file: flush()/drain() order stores for the process's own death only; sync() (fdatasync) makes
//           everything stored before it survive power loss
//   kForced DRAM treated as pmem (for measurement and tests): costs as kPmem, survives nothing
// Words: "visible" is seen by other processes mapping it; "persistent" survives power loss. Never mixed.
// Thread-safety: as memory; sync() may be called by any thread and blocks.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "util/result.h"

namespace rmemfs {

class PersistentMemory {
 public:
  enum class Backing { kPmem, kFile, kForced };
  virtual ~PersistentMemory() = default;

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  Backing backing() const { return backing_; }
  // drain() alone makes flushed stores persistent (kPmem; kForced claims it for measurement).
  bool drain_is_persistent() const { return backing_ != Backing::kFile; }

  // Starts writing back the lines of [address, address + length).
  virtual void flush(const void* address, std::size_t length) = 0;
  // Waits for flushed lines of this thread.
  virtual void drain() = 0;
  // For kFile: fdatasync. For the others: nothing. Error: kLocalIo.
  virtual Result<void> sync() = 0;

  void persist(const void* address, std::size_t length) {
    flush(address, length);
    drain();
  }

 protected:
  PersistentMemory(std::byte* data, std::size_t size, Backing backing) : data_(data), size_(size), backing_(backing) {}
  std::byte* data_;
  std::size_t size_;
  Backing backing_;
};

struct PmemOptions {
  bool create = false;   // make the file with `size`; fails with kExists if it is there
  std::size_t size = 0;  // for create; otherwise the file's size
  bool read_only = false;
  bool force_pmem = false;  // kForced on an ordinary file
};

// Maps `path` by libpmem (pmem_map_file). Errors: kNotFound, kExists, kNoSpace, kAccess, kLocalIo, with the path.
Result<std::unique_ptr<PersistentMemory>> map_persistent(const std::string& path, const PmemOptions& options);

}  // namespace rmemfs
