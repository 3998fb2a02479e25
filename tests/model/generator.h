// Random system calls. What was answered so far makes the paths likely ones; everything else is the seed's.
#pragma once

#include <random>
#include <set>
#include <string>
#include <vector>

#include "system_call.h"

namespace rmemfs::difference {

struct GeneratorOptions {
  std::set<std::string> skip;  // kinds of calls not to make, by name
  bool zero_range = true;      // the reference has FALLOC_FL_ZERO_RANGE
  bool temporary = true;       // O_TMPFILE
};

class Generator {
 public:
  Generator(std::uint64_t seed, const GeneratorOptions& options);
  Call next();
  void learn(const Call& call, const Answer& reference);

 private:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  bool chance(unsigned percent) { return below(100) < percent; }
  std::string fresh_name();
  std::string directory();
  std::string existing();
  std::string any_path();
  std::string new_path();
  std::int64_t offset();
  std::int64_t length();
  std::int64_t seconds();
  std::uint32_t permissions();
  void choose_slot(Call& call);
  void arguments(Call& call);
  void open_arguments(Call& call);
  void attribute_arguments(Call& call);

  std::mt19937_64 random_;
  const GeneratorOptions options_;
  std::vector<Kind> calls_;                       // each as often as it is likely
  std::vector<std::string> known_, directories_;  // paths that were there when they were last heard of
  bool open_[kProcesses][kSlots] = {};
  bool mapped_[kProcesses][kMaps] = {};
};

}  // namespace rmemfs::difference
