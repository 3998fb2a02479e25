// Which bytes of a pool are free: first fit by offset, in multiples of 4 KiB. Runs of 2 MiB and more begin on a
// multiple of 2 MiB, so that huge pages can back them. Plain data, not thread-safe.
//
// Invariants: free runs are disjoint, not empty and not adjacent; they and the taken runs make up the whole.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

namespace rmemfs {

class RegionAllocator {
 public:
  struct Run {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
  };

  RegionAllocator(std::uint64_t size, std::uint64_t page, std::uint64_t huge_page);

  // A run of `length`, or of as much as there is in one place but at least `minimum`; multiples of a page, not 0.
  std::optional<Run> take(std::uint64_t length, std::uint64_t minimum);
  // Takes exactly this run (when a pool is found again). False when any of it is not free.
  bool take_exactly(Run run);
  // Gives back a run that was taken.
  void give(Run run);

  std::uint64_t free_bytes() const { return free_bytes_; }
  std::uint64_t largest_free() const;

 private:
  std::uint64_t aligned_begin(std::uint64_t offset, std::uint64_t length) const;
  void cut(std::map<std::uint64_t, std::uint64_t>::iterator run, Run piece);

  const std::uint64_t page_;
  const std::uint64_t huge_page_;
  std::map<std::uint64_t, std::uint64_t> free_;  // offset -> length
  std::uint64_t free_bytes_;
};

}  // namespace rmemfs
