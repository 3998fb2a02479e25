// FailingSync: a PersistentMemory around another one whose sync() fails while it is told to, as fdatasync on a broken
// disk does. The stores themselves are there: what was committed survives the process, and nothing more is promised.
#pragma once

#include <atomic>
#include <memory>

#include "util/pmem.h"

namespace rmemfs {

class FailingSync final : public PersistentMemory {
 public:
  // `broken` outlives this object.
  FailingSync(std::unique_ptr<PersistentMemory> inner, const std::atomic<bool>& broken)
      : PersistentMemory(inner->data(), inner->size(), inner->backing()), inner_(std::move(inner)), broken_(broken) {}

  void flush(const void* address, std::size_t length) override { inner_->flush(address, length); }
  void drain() override { inner_->drain(); }
  Result<void> sync() override {
    if (broken_.load()) return Error(Errc::kLocalIo, "fdatasync", "broken on purpose");
    return inner_->sync();
  }

 private:
  const std::unique_ptr<PersistentMemory> inner_;
  const std::atomic<bool>& broken_;
};

}  // namespace rmemfs
