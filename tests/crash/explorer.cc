#include "tests/crash/explorer.h"

#include <algorithm>
#include <string_view>

#include "journal/journal_reader.h"
#include "util/bytes.h"

namespace rmemfs {
namespace {

constexpr int kMaxDepth = 2;                  // a crash in the recovery from a crash in recovery
constexpr std::size_t kRemembered = 2000000;  // images, so that memory stays bounded

void mix(std::uint64_t& hash, std::uint64_t value) { hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL + (hash >> 29); }

std::string describe(const Keys& keys) {
  std::string text;
  for (const auto& [key, value] : keys) text += key + "=" + value.substr(0, 48) + " ";
  return text;
}

}  // namespace

bool Explorer::seen_before(const std::vector<std::byte>& image, const SimulatedHome::Contents& contents,
                           const Expectation& expected, int depth) {
  const std::hash<std::string_view> hash_text;
  std::uint64_t hash = hash_text(as_text(image));
  for (const auto& [key, value] : contents.keys) {
    mix(hash, hash_text(key));
    mix(hash, hash_text(value));
  }
  for (const std::uint64_t number : {contents.watermark.value(), expected.at_least.value(), expected.at_most.value(),
                                     static_cast<std::uint64_t>(depth)}) {
    mix(hash, number);
  }
  if (seen_.size() >= kRemembered) seen_.clear();
  return !seen_.insert(hash).second;
}

void Explorer::explore(const CrashMoment& moment, const History& history, int generation) {
  const std::size_t limit = generation == 0 ? limits_.choices : limits_.recovery_choices;
  for (const SimulatedHome::Contents& contents : moment.home) {
    moment.memory.for_each_choice(limit, random_, [&](std::span<const std::uint8_t> choice) {
      recover(moment.memory.image(choice), contents, {moment.what, moment.acknowledged, moment.started}, history, 0,
              generation);
      return !violation_;
    });
    if (violation_) return;
    recover(moment.memory.newest(), contents, {moment.what, moment.committed, moment.started}, history, 0, generation);
    if (violation_) return;
  }
}

void Explorer::recover(std::vector<std::byte> image, const SimulatedHome::Contents& contents,
                       const Expectation& expected, const History& history, int depth, int generation) {
  if (violation_ || seen_before(image, contents, expected, depth)) return;
  ++images_;
  SimulatedPmem memory(std::move(image), backing_, random_());
  SimulatedHome home(contents);
  std::vector<CrashMoment> moments;
  if (depth < kMaxDepth && random_() % limits_.recovery_every == 0) {
    const auto take = [&](const char* what) {
      moments.push_back({what, memory.crash_state(), home.crash_choices(), {}, {}, {}});
    };
    memory.on_point = take;
    home.on_point = take;
  }

  const auto report = recover_journal(memory, file_system_, home, false);
  const std::string where =
      std::string("crash at \"") + expected.what + "\", " + (depth == 0 ? "" : "again in recovery, ");
  if (!report.ok()) return violation(where + "recovery refuses: " + report.error().message());
  const SimulatedHome::Contents& left = home.crash_choices().front();
  if (home.crash_choices().size() != 1) return violation(where + "recovery leaves the home not durable");
  const std::string range = std::to_string(expected.at_least.value()) + ".." + std::to_string(expected.at_most.value());
  if (left.watermark < expected.at_least || left.watermark > expected.at_most || !history.knows(left.watermark)) {
    return violation(where + "recovered to transaction " + std::to_string(left.watermark.value()) + ", expected " +
                     range);
  }
  if (left.keys != history.state(left.watermark)) {
    return violation(where + "the state is not that of transaction " + std::to_string(left.watermark.value()) +
                     ": found " + describe(left.keys) + "expected " + describe(history.state(left.watermark)));
  }

  memory.on_point = nullptr;
  home.on_point = nullptr;
  for (const CrashMoment& moment : moments) {
    ++recovery_crashes_;
    for (const SimulatedHome::Contents& choice : moment.home) {
      moment.memory.for_each_choice(limits_.recovery_choices, random_, [&](std::span<const std::uint8_t> versions) {
        recover(moment.memory.image(versions), choice, {moment.what, expected.at_least, expected.at_most}, history,
                depth + 1, generation);
        return !violation_;
      });
    }
  }
  if (generation == 0 && !violation_ && on_recovered && random_() % limits_.continue_every == 0) {
    ++continuations_;
    on_recovered(memory, home, random_());
  }
}

}  // namespace rmemfs
