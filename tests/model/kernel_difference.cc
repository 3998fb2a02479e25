// Random system calls of several processes and users, made on rmemfs and on a file system of the kernel, compared after
// every step. A sequence that shows a difference is made as short as it can be and printed with its seed.
//
//   kernel_difference [--steps N] [--seed S] [--episode N] [--skip KIND,KIND...] [--keep-going N] [--self-test]
//                     [--no-zero-range] [--no-temporary] [--attributes] TESTED REFERENCE
//   kernel_difference --accepted      the differences that are known and accepted, one a line
//
// TESTED and REFERENCE are directories. Each episode works in fresh ones below them and depends on its seed alone:
// `--episode N --seed S` with what a failure printed repeats it. Status: 0, or 1 after a difference.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>

#include "accepted.h"
#include "generator.h"
#include "observer.h"
#include "system_call.h"

namespace rmemfs::difference {
namespace {

constexpr std::size_t kTreeInterval = 100;  // steps between two comparisons of the whole tree

struct Options {
  std::string tested, reference;
  std::uint64_t steps = 50000, seed = 0, episode = 400, keep_going = 1;
  bool self_test = false, attributes = false;
  GeneratorOptions generator;
};

// Two directories, tested and reference, that are empty at first and gone at the end. Each is alone in a directory of
// its own: a call may leave it (a symbolic link to "." and ".." behind it), and has to find the same there.
class Directories {
 public:
  explicit Directories(const Options& options) {
    static std::uint64_t number = 0;
    ++number;
    for (const int side : {kTested, kReference}) {
      paths_[side] = (side == kTested ? options.tested : options.reference) + "/d" + std::to_string(number);
      const std::string root = paths_[side] + "/d";
      for (const std::string& path : {paths_[side], root}) {
        if (::mkdir(path.c_str(), 0777) != 0 || ::chmod(path.c_str(), 0777) != 0) {
          std::perror(path.c_str());
          std::exit(2);
        }
      }
      roots_[side] = ::open(root.c_str(), O_RDONLY | O_DIRECTORY);
    }
  }
  ~Directories() {
    for (const int side : {kTested, kReference}) {
      ::close(roots_[side]);
      std::error_code ignored;
      std::filesystem::remove_all(paths_[side], ignored);
    }
  }
  Directories(const Directories&) = delete;
  Directories& operator=(const Directories&) = delete;
  int operator[](int side) const { return roots_[side]; }

 private:
  std::string paths_[2];
  int roots_[2];
};

class Episode {
 public:
  explicit Episode(const Options& options)
      : options_(options),
        processes_(directories_[kTested], directories_[kReference]),
        observer_(directories_[kTested], directories_[kReference], {options.attributes, ::time(nullptr)}) {
    for (auto& side : descriptors_) {
      for (auto& process : side) process.fill(-1);
    }
  }

  std::optional<Difference> step(const Call& call);
  std::optional<Difference> compare_trees() const { return observer_.compare_trees(); }
  const Answer& reference(const Call& call) const { return processes_.answer(call.process, kReference); }

 private:
  std::vector<Watched> watched(const Call& call) const;
  void add_descriptor(std::vector<Watched>& list, std::size_t process, std::size_t slot) const;
  std::optional<Difference> compare_answers(const Call& call) const;

  const Options& options_;
  const Directories directories_{options_};
  Processes processes_;
  Observer observer_;
  std::array<std::array<std::int32_t, kSlots>, kProcesses> descriptors_[2];
  std::array<std::array<std::size_t, kMaps>, kProcesses> map_slots_{};
};

void Episode::add_descriptor(std::vector<Watched>& list, std::size_t process, std::size_t slot) const {
  Watched file;
  for (const int side : {kTested, kReference}) {
    const std::int32_t descriptor = descriptors_[side][process][slot % kSlots];
    if (descriptor < 0) return;
    file.path[side] = "/proc/" + std::to_string(processes_.pid(process)) + "/fd/" + std::to_string(descriptor);
  }
  file.follow = true;
  list.push_back(file);
}

// What the call may change, or should not: the files it names, what they lead to, and their directories.
std::vector<Watched> Episode::watched(const Call& call) const {
  std::vector<Watched> list;
  const auto add = [&](const std::string& path) {
    list.push_back({{path, path}, false});
    list.push_back({{path, path}, true});
    std::string above = path;
    while (above.size() > 1 && above.back() == '/') above.pop_back();
    const std::size_t slash = above.rfind('/');
    above = slash == std::string::npos ? "." : above.substr(0, slash);
    if (above != path) list.push_back({{above, above}, true});
  };
  if (call.path[0] != '\0' && call.kind != Kind::kSymlink) add(call.path);
  const bool attribute =
      call.kind == Kind::kSetxattr || call.kind == Kind::kGetxattr || call.kind == Kind::kRemovexattr;
  if (call.path2[0] != '\0' && !attribute) add(call.path2);
  if (uses_slot(call.kind)) add_descriptor(list, call.process, call.slot);
  if (uses_slot2(call.kind)) add_descriptor(list, call.process, call.slot2);
  return list;
}

std::optional<Difference> Episode::compare_answers(const Call& call) const {
  const Answer& tested = processes_.answer(call.process, kTested);
  const Answer& reference = processes_.answer(call.process, kReference);
  std::int64_t value = tested.value;
  // The self-test's mistake: a long write says that it wrote one byte more.
  if (options_.self_test && call.kind == Kind::kPwrite && value > 1000) ++value;
  const auto text = [](std::int64_t result, std::int32_t error) {
    return std::to_string(result) + (result == -1 ? std::string(" (") + std::strerror(error) + ")" : std::string());
  };
  if (value != reference.value || tested.error != reference.error) {
    if (is_accepted(call, tested, reference)) return std::nullopt;
    const std::string errors =
        value == -1 || reference.value == -1
            ? std::string(" ") + std::strerror(tested.error) + " instead of " + std::strerror(reference.error)
            : std::string();
    return Difference{
        std::string(name(call.kind)) + " answers" + errors,
        "it answered " + text(value, tested.error) + " instead of " + text(reference.value, reference.error)};
  }
  if (tested.length != reference.length || std::memcmp(tested.data, reference.data, tested.length) != 0) {
    std::size_t at = 0;
    while (at < std::min(tested.length, reference.length) && tested.data[at] == reference.data[at]) ++at;
    return Difference{std::string(name(call.kind)) + " gives other bytes",
                      "it gave other bytes from byte " + std::to_string(at) + " on, " + std::to_string(tested.length) +
                          " and " + std::to_string(reference.length) + " in all"};
  }
  return std::nullopt;
}

std::optional<Difference> Episode::step(const Call& call) {
  std::vector<Watched> files = watched(call);
  std::vector<std::array<Look, 2>> before;
  for (const Watched& file : files) {
    before.push_back({observer_.look(kTested, file, false), observer_.look(kReference, file, false)});
  }
  if (!processes_.perform(call))
    return Difference{"a process died", "process " + std::to_string(call.process) + " died"};
  for (const int side : {kTested, kReference}) {
    descriptors_[side][call.process] = processes_.answer(call.process, side).descriptors;
  }
  if (auto d = compare_answers(call)) return d;

  const bool fresh = (call.fill & 1) != 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    // A descriptor that was closed may be another file's by now.
    if (call.kind == Kind::kClose || (call.kind == Kind::kOpen && files[i].path[0][0] == '/')) continue;
    const Look after[2] = {observer_.look(kTested, files[i], fresh), observer_.look(kReference, files[i], false)};
    auto d = observer_.compare(files[i], after[kTested], after[kReference]);
    if (!d) d = observer_.compare_changes(files[i], before[i].data(), after);
    if (!d && changes_bytes(call.kind) && after[kReference].error == 0 && S_ISREG(after[kReference].status.stx_mode)) {
      d = observer_.compare_bytes(files[i], (call.fill & 6) == 0);
    }
    if (d) {
      d->signature = std::string(name(call.kind)) + ": " + d->signature;
      return d;
    }
  }
  if (call.kind == Kind::kMap) map_slots_[call.process][call.slot2 % kMaps] = call.slot;
  return std::nullopt;
}

// Runs a sequence in fresh directories: the first difference, and after how many steps.
std::optional<std::pair<Difference, std::size_t>> replay(const Options& options, const std::vector<Call>& calls) {
  Episode episode(options);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if (auto d = episode.step(calls[i])) return std::pair{*d, i + 1};
  }
  if (auto d = episode.compare_trees()) return std::pair{*d, calls.size()};
  return std::nullopt;
}

// Delta debugging: removes ever smaller parts as long as a difference of the same kind is left.
std::vector<Call> shrink(const Options& options, std::vector<Call> calls, Difference& difference) {
  const std::string signature = difference.signature;
  for (std::size_t part = std::max<std::size_t>(calls.size() / 2, 1);;) {
    bool smaller = false;
    for (std::size_t at = 0; at < calls.size();) {
      std::vector<Call> rest(calls.begin(), calls.begin() + static_cast<std::ptrdiff_t>(at));
      if (at + part < calls.size()) {
        rest.insert(rest.end(), calls.begin() + static_cast<std::ptrdiff_t>(at + part), calls.end());
      }
      const auto found = rest.empty() ? std::nullopt : replay(options, rest);
      if (found && found->first.signature == signature) {
        rest.resize(found->second);
        calls = std::move(rest);
        difference = found->first;
        smaller = true;
      } else {
        at += part;
      }
    }
    if (part == 1 && !smaller) return calls;
    part = std::max<std::size_t>(std::min(part / 2, calls.size() / 2), 1);
  }
}

void report(const Options& options, std::uint64_t seed, std::vector<Call> calls, Difference difference) {
  const std::size_t length = calls.size();
  const auto again = replay(options, calls);
  if (again && again->first.signature == difference.signature) {
    calls.resize(again->second);
    calls = shrink(options, std::move(calls), difference);
  } else {
    std::printf("the next difference did not come again when its %zu calls were repeated\n", length);
  }
  std::printf("DIFFERENCE: %s\n  %s\n  seed %lu: %zu of %zu calls:\n", difference.signature.c_str(),
              difference.text.c_str(), seed, calls.size(), length);
  for (const Call& call : calls) std::printf("    %s\n", describe(call).c_str());
  std::fflush(stdout);
}

struct Outcome {
  std::uint64_t steps = 0, failed = 0;  // failed: calls that both sides refused
  std::set<std::string> signatures;
  std::vector<Call> shortest;
};

std::optional<std::pair<Difference, std::vector<Call>>> run_episode(const Options& options, std::uint64_t seed,
                                                                    Outcome& outcome) {
  Episode episode(options);
  Generator generator(seed, options.generator);
  std::vector<Call> calls;
  for (std::uint64_t i = 0; i < options.episode; ++i) {
    calls.push_back(generator.next());
    ++outcome.steps;
    auto d = episode.step(calls.back());
    if (!d && i % kTreeInterval == kTreeInterval - 1) d = episode.compare_trees();
    if (d) return std::pair{*d, std::move(calls)};
    const Answer& answer = episode.reference(calls.back());
    outcome.failed += answer.value == -1 ? 1 : 0;
    generator.learn(calls.back(), answer);
  }
  if (auto d = episode.compare_trees()) return std::pair{*d, std::move(calls)};
  return std::nullopt;
}

int run(const Options& options) {
  std::printf("%lu steps, seed %lu, against %s\n", options.steps, options.seed, options.reference.c_str());
  const auto began = std::chrono::steady_clock::now();
  Outcome outcome;
  for (std::uint64_t seed = options.seed; outcome.steps < options.steps; ++seed) {
    auto found = run_episode(options, seed, outcome);
    if (!found) continue;
    if (!outcome.signatures.insert(found->first.signature).second) continue;
    report(options, seed, std::move(found->second), found->first);
    if (outcome.signatures.size() >= options.keep_going) break;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::printf("%lu steps in %.1f s, %lu of them refused by both; %zu differences\n", outcome.steps, took.count(),
              outcome.failed, outcome.signatures.size());
  return outcome.signatures.empty() ? 0 : 1;
}

// A test that cannot fail proves nothing: with a mistake put in, it is found, and made as short as can be.
int self_test(const Options& options) {
  Outcome outcome;
  for (std::uint64_t seed = options.seed; seed < options.seed + 100; ++seed) {
    auto found = run_episode(options, seed, outcome);
    if (!found) continue;
    if (found->first.signature != "Pwrite answers") {
      std::printf("FAILED: the mistake was not the first difference: %s\n", found->first.text.c_str());
      return 1;
    }
    const std::vector<Call> calls = shrink(options, std::move(found->second), found->first);
    for (const Call& call : calls) std::printf("    %s\n", describe(call).c_str());
    if (calls.size() > 2 || calls.back().kind != Kind::kPwrite) {
      std::printf("FAILED: it was shrunk to %zu calls, and needs 2: an open and a pwrite\n", calls.size());
      return 1;
    }
    std::printf("the mistake was found after %lu steps and shrunk to %zu calls\n", outcome.steps, calls.size());
    return 0;
  }
  std::printf("FAILED: the mistake was not found in %lu steps\n", outcome.steps);
  return 1;
}

std::set<std::string> split(const char* list) {
  std::set<std::string> out;
  for (std::string rest = list; !rest.empty();) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    out.insert(rest.substr(0, comma));
    rest.erase(0, comma + 1);
  }
  return out;
}

int usage() {
  std::fprintf(stderr, "kernel_difference [options] TESTED REFERENCE\n");
  return 2;
}

int main_of(int argc, char** argv) {
  Options options;
  options.seed = std::random_device{}();
  std::vector<std::string> directories;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto number = [&]() -> std::uint64_t { return i + 1 < argc ? std::strtoull(argv[++i], nullptr, 10) : 0; };
    if (argument == "--accepted") {
      print_accepted();
      return 0;
    }
    if (argument == "--steps")
      options.steps = number();
    else if (argument == "--seed")
      options.seed = number();
    else if (argument == "--episode")
      options.episode = number();
    else if (argument == "--keep-going")
      options.keep_going = number();
    else if (argument == "--skip" && i + 1 < argc)
      options.generator.skip = split(argv[++i]);
    else if (argument == "--self-test")
      options.self_test = true;
    else if (argument == "--attributes")
      options.attributes = true;
    else if (argument == "--no-zero-range")
      options.generator.zero_range = false;
    else if (argument == "--no-temporary")
      options.generator.temporary = false;
    else if (argument.starts_with("--"))
      return usage();
    else
      directories.push_back(argument);
  }
  if (directories.size() != 2) return usage();
  options.tested = directories[0];
  options.reference = directories[1];
  ::umask(0);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  return options.self_test ? self_test(options) : run(options);
}

}  // namespace
}  // namespace rmemfs::difference

int main(int argc, char** argv) { return rmemfs::difference::main_of(argc, argv); }
