// SimulatedPmem: a persistent memory that knows what a power loss may leave of it.
//
// The bytes behind data() are what the program sees. Beside them it keeps, per unit (a 64-byte line of persistent
// memory, a 4 KiB page of a file), the durable contents and every later version that could have been written back
// since:
//   - a unit may reach the medium at any time after it was stored to, without being asked; so each version is possible;
//   - flush() by a writer marks the version it saw; drain() by the same writer makes it durable (versions of kPmem);
//   - sync() makes everything durable (kFile; flush and drain only let the order of versions be seen);
//   - between two versions a unit may be torn at words of 8 bytes (lines) or sectors of 512 bytes (pages).
// Versions are taken at flush(), drain(), sync() and observe(): a store between two of those is seen with the next one.
//
// Not thread-safe: an explorer drives everything from one thread and says with set_writer() who is acting.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "util/pmem.h"

namespace rmemfs {

// What a crash may leave: per unsettled unit, the contents that it can have.
struct CrashState {
  struct Unit {
    std::size_t offset;
    std::vector<std::vector<std::byte>> choices;  // [0] is durable, the last is what the program saw
  };
  std::vector<std::byte> durable;
  std::vector<Unit> units;

  std::vector<std::byte> image(std::span<const std::uint8_t> choice) const;  // one choice per unit
  std::vector<std::byte> newest() const;
  // Calls `visit` for choices of every unit: all when they are at most `limit`, otherwise the extremes, each unit alone
  // old or new, and random ones up to `limit`. Stops when `visit` returns false.
  void for_each_choice(std::size_t limit, std::mt19937_64& random,
                       const std::function<bool(std::span<const std::uint8_t>)>& visit) const;
};

class SimulatedPmem final : public PersistentMemory {
 public:
  // `backing` kPmem or kFile. `contents` are durable.
  SimulatedPmem(std::vector<std::byte> contents, Backing backing, std::uint64_t seed);

  void flush(const void* address, std::size_t length) override;
  void drain() override;
  Result<void> sync() override;

  // Called after each flush, drain and sync: a point at which a crash is worth looking at. `what` is static text.
  std::function<void(const char* what)> on_point;
  void set_writer(unsigned writer) { writer_ = writer; }
  void observe();  // takes versions of what was stored since
  CrashState crash_state() const;
  std::uint64_t drains() const { return drains_; }
  void fail_next_sync() { fail_sync_ = true; }

 private:
  struct Version {
    std::vector<std::byte> bytes;
    std::uint64_t flushed_by = 0;  // bit per writer whose drain makes it durable
  };
  struct Unit {
    std::vector<Version> versions;  // since the durable contents, in order; the last is what the program sees
  };
  std::span<const std::byte> seen(std::size_t unit) const { return {data_ + unit * unit_bytes_, unit_bytes_}; }
  std::span<const std::byte> latest(std::size_t unit) const;
  void take_version(std::size_t unit);
  void settle(std::size_t unit, std::size_t versions);
  void point(const char* what) const {
    if (on_point) on_point(what);
  }

  struct FreeAligned {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{4096}); }
  };
  const std::size_t unit_bytes_;
  const std::size_t atom_bytes_;
  std::unique_ptr<std::byte[], FreeAligned> storage_;
  std::vector<std::byte> durable_;
  std::vector<Unit> units_;
  std::mt19937_64 random_;
  unsigned writer_ = 0;
  std::uint64_t drains_ = 0;
  bool fail_sync_ = false;
};

}  // namespace rmemfs
