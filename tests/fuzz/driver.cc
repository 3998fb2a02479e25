// Drives a fuzz target that clang cannot compile (coroutines in its headers): g++ compiles it with
// -fsanitize=address -fsanitize-coverage=trace-pc, and this file is the rest of a small coverage-guided fuzzer.
//
// It understands what run.sh gives to libFuzzer: -max_total_time=SECONDS, -artifact_prefix=PATH, -seed=NUMBER, and
// folders with examples; other options are ignored. An input that reaches an edge of the code for the first time is
// kept and changed further. The input that crashes is written to PATHcrash-input.
#include <fcntl.h>
#include <sanitizer/common_interface_defs.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "util/log.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

constexpr std::size_t kMapEntries = 1u << 16;
constexpr std::size_t kMaxInputBytes = 4096;

// What a crash handler and the compiler's callback can reach is global.
std::uint8_t g_edges[kMapEntries];
std::uintptr_t g_previous = 0;
std::string g_input;
std::string g_artifact;

void save_input() {
  const int fd = ::open(g_artifact.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return;
  if (::write(fd, g_input.data(), g_input.size()) < 0) std::perror("the input could not be saved");
  ::close(fd);
}

void on_signal(int number) {
  save_input();
  ::signal(number, SIG_DFL);
  ::raise(number);
}

using Random = std::mt19937_64;

class Corpus {
 public:
  explicit Corpus(std::uint64_t seed) : random_(seed) {}

  // True when it reached something new.
  bool run(std::string input) {
    g_input = std::move(input);
    std::memset(g_edges, 0, sizeof g_edges);
    g_previous = 0;
    ::alarm(10);
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(g_input.data()), g_input.size());
    ::alarm(0);
    ++runs_;
    bool fresh = false;
    for (std::size_t i = 0; i < kMapEntries; ++i) {
      if (g_edges[i] == 0) continue;
      // Counts in powers of two: a loop that goes round once more is no news, twice as often is.
      const auto bucket = static_cast<std::uint8_t>(1u << (31 - __builtin_clz(g_edges[i])));
      if ((seen_[i] & bucket) != 0) continue;
      seen_[i] |= bucket;
      fresh = true;
    }
    if (fresh) inputs_.push_back(g_input);
    return fresh;
  }

  std::string next() {
    std::string input = inputs_.empty() ? std::string() : inputs_[random_() % inputs_.size()];
    for (std::uint64_t i = random_() % 5 + 1; i > 0; --i) change(input);
    if (input.size() > kMaxInputBytes) input.resize(kMaxInputBytes);
    return input;
  }

  std::uint64_t runs() const { return runs_; }
  std::size_t kept() const { return inputs_.size(); }
  std::size_t edges() const {
    return static_cast<std::size_t>(std::count_if(seen_.begin(), seen_.end(), [](auto s) { return s != 0; }));
  }

 private:
  void change(std::string& input) {
    const std::size_t at = input.empty() ? 0 : random_() % input.size();
    switch (random_() % 8) {
      case 0:
      case 1:
        if (!input.empty()) input[at] ^= static_cast<char>(1u << random_() % 8);
        break;
      case 2:
        if (!input.empty()) input[at] = static_cast<char>(random_());
        break;
      case 3: {
        static constexpr std::uint64_t kTelling[] = {0, 1, 2, 4095, 4096, 4097, 0x7fffffff, 0xffffffff, UINT64_MAX};
        const std::uint64_t value = kTelling[random_() % std::size(kTelling)];
        const std::size_t width = std::size_t{1} << random_() % 4;
        if (input.size() >= width) std::memcpy(&input[random_() % (input.size() - width + 1)], &value, width);
        break;
      }
      case 4: {
        std::string more(random_() % 16 + 1, '\0');
        for (char& c : more) c = static_cast<char>(random_());
        input.insert(at, more);
        break;
      }
      case 5:
        if (!input.empty()) input.erase(at, random_() % 16 + 1);
        break;
      default: {
        if (inputs_.empty()) break;
        const std::string& other = inputs_[random_() % inputs_.size()];
        if (other.empty()) break;
        const std::size_t from = random_() % other.size();
        input.insert(at, other.substr(from, random_() % 64 + 1));
        break;
      }
    }
  }

  Random random_;
  std::vector<std::string> inputs_;
  std::vector<std::uint8_t> seen_ = std::vector<std::uint8_t>(kMapEntries);
  std::uint64_t runs_ = 0;
};

}  // namespace

// Called by the compiled code at each edge.
extern "C" __attribute__((no_sanitize_address)) void __sanitizer_cov_trace_pc() {
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  std::uint8_t& count = g_edges[(here ^ g_previous) % kMapEntries];
  if (count != 255) ++count;
  g_previous = here >> 1;
}

int main(int argc, char** argv) {
  std::uint64_t seconds = 10;
  std::uint64_t seed = std::random_device()();
  std::vector<std::string> folders;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto value = [&](const char* name) { return argument.substr(std::strlen(name)); };
    if (argument.starts_with("-max_total_time="))
      seconds = std::stoull(value("-max_total_time="));
    else if (argument.starts_with("-seed="))
      seed = std::stoull(value("-seed="));
    else if (argument.starts_with("-artifact_prefix="))
      g_artifact = value("-artifact_prefix=");
    else if (!argument.starts_with("-"))
      folders.push_back(argument);
  }
  g_artifact += "crash-input";
  rmemfs::log::set_level(rmemfs::log::Level::kOff);  // damaged input is what every run is made of
  std::fprintf(stderr, "seed %llu\n", static_cast<unsigned long long>(seed));
  for (int number : {SIGABRT, SIGALRM}) ::signal(number, on_signal);
  __sanitizer_set_death_callback(save_input);

  Corpus corpus(seed);
  for (const std::string& folder : folders) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (!entry.is_regular_file()) continue;
      std::ifstream file(entry.path(), std::ios::binary);
      corpus.run(std::string(std::istreambuf_iterator<char>(file), {}));
    }
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (std::chrono::steady_clock::now() < end) corpus.run(corpus.next());
  std::fprintf(stderr, "stat::number_of_executed_units: %llu\nstat::edges: %zu\nstat::kept: %zu\n",
               static_cast<unsigned long long>(corpus.runs()), corpus.edges(), corpus.kept());
  return 0;
}
