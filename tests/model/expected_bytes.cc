#include "tests/model/expected_bytes.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

namespace byte_model {
namespace {

constexpr const char* kNames[] = {
    "none", "write", "append", "truncate", "store",         "punch", "zero range", "allocate", "allocate, keep size",
    "copy", "msync", "fsync",  "seek",     "private store", "reopen"};
constexpr const char* kWays[] = {"buffered", "a second descriptor", "direct", "O_SYNC", "direct, aligned"};

std::string to_text(const Step& s) {
  char text[256];
  int n = std::snprintf(text, sizeof text, "%llu: %s of %s", static_cast<unsigned long long>(s.number),
                        kNames[static_cast<int>(s.kind)], s.file == 0 ? "low" : "high");
  std::string out(text, static_cast<std::size_t>(n));
  std::snprintf(text, sizeof text, ", %llu bytes at %llu", static_cast<unsigned long long>(s.length),
                static_cast<unsigned long long>(s.offset));
  if (s.kind == Kind::kTruncate) {
    std::snprintf(text, sizeof text, " to %llu", static_cast<unsigned long long>(s.offset));
  }
  out += text;
  if (s.kind == Kind::kCopy) {
    std::snprintf(text, sizeof text, " from %llu of %s", static_cast<unsigned long long>(s.from),
                  s.source == 0 ? "low" : "high");
    out += text;
  }
  if (s.kind == Kind::kWrite || s.kind == Kind::kAppend) out += std::string(", ") + kWays[s.way];
  std::snprintf(text, sizeof text, " (size before: %llu)", static_cast<unsigned long long>(s.old_size));
  return out + text;
}

// Whether an operation could have changed a byte of a file.
bool touches(const Step& s, int file, std::uint64_t at) {
  if (s.file != file || s.kind == Kind::kNone) return false;
  if (s.kind == Kind::kTruncate) return at >= std::min(s.offset, s.old_size);
  if (s.kind == Kind::kFsync) return true;
  if (s.kind == Kind::kReopen) return false;
  if (at >= s.offset && at < s.offset + s.length) return true;
  return s.offset + s.length > s.old_size && at >= s.old_size && at < s.offset;  // the gap
}

}  // namespace

State* state;
std::string directory;

const char* name_of(Kind kind) { return kNames[static_cast<int>(kind)]; }

std::string path_of(int file) { return directory + (file == 0 ? "/low" : "/high"); }

std::uint8_t content(std::uint64_t number, std::uint64_t at) {
  std::uint64_t z = number * 0x9e3779b97f4a7c15u + at;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<std::uint8_t>(1 + (z >> 33) % 255);
}

[[noreturn]] void wrong(const char* how, int file, std::uint64_t at, unsigned is, unsigned must) {
  std::printf(
      "FAILED: %s, seed %llu, after operation %llu: byte %llu of %s is %02x and must be %02x (size %llu, page %llu)\n",
      how, static_cast<unsigned long long>(state->seed), static_cast<unsigned long long>(state->done),
      static_cast<unsigned long long>(at), path_of(file).c_str(), is, must,
      static_cast<unsigned long long>(state->files[file].size), static_cast<unsigned long long>(at / kPage));
  int shown = 0;
  if (state->under_way != 0) std::printf("  under way %s\n", to_text(state->last).c_str());
  for (std::uint64_t n = state->done; n > 0 && n + kLogged > state->done && shown < 12; --n) {
    const Step& s = state->log[n % kLogged];
    if (s.number != n || !touches(s, file, at)) continue;
    const bool would = s.kind != Kind::kCopy && content(n, at) == is;
    std::printf("  %s%s\n", to_text(s).c_str(), would ? "  <- this byte is from here" : "");
    ++shown;
  }
  std::fflush(stdout);
  ::_exit(1);
}

[[noreturn]] void failed(const char* what, int error) {
  if (state->killed != 0) ::_exit(0);  // the mount is dead
  std::printf("FAILED: %s: %s, seed %llu, in operation %s\n", what, std::strerror(error),
              static_cast<unsigned long long>(state->seed), to_text(state->last).c_str());
  std::fflush(stdout);
  ::_exit(1);
}

void set(File& f, std::uint64_t at, std::uint8_t value) {
  f.bytes[at] = value;
  f.open[at] = 0;
}
static void grow(File& f, std::uint64_t size) {
  for (std::uint64_t at = f.size; at < size; ++at) set(f, at, 0);
  f.size = std::max(f.size, size);
}
void add_value(File& f, std::uint64_t at, std::uint8_t value) {
  if (f.open[at] == 0) {
    f.values[at] = {};
    f.values[at][f.bytes[at] / 64] |= std::uint64_t{1} << f.bytes[at] % 64;
    f.open[at] = 1;
  }
  f.values[at][value / 64] |= std::uint64_t{1} << value % 64;
}
bool may_be(const File& f, std::uint64_t at, std::uint8_t value) {
  if (f.open[at] == 0) return f.bytes[at] == value;
  return (f.values[at][value / 64] >> value % 64 & 1) != 0;
}
void settle(File& f, std::uint64_t begin, std::uint64_t end) { std::memset(f.open + begin, 0, end - begin); }
std::uint8_t value_of(const Step& s, std::uint64_t at) {
  switch (s.kind) {
    case Kind::kWrite:
    case Kind::kAppend:
    case Kind::kStore:
      return at < s.offset ? std::uint8_t{0} : content(s.number, at);
    case Kind::kCopy:
      return at < s.offset ? std::uint8_t{0} : state->files[s.source].bytes[s.from + (at - s.offset)];
    default:
      return 0;
  }
}

void apply(const Step& s) {
  File& f = state->files[s.file];
  const std::uint64_t end = s.offset + s.length;
  switch (s.kind) {
    case Kind::kWrite:
    case Kind::kAppend:
    case Kind::kCopy: {
      // The source may overlap nothing (EINVAL), but it may be the same file.
      std::vector<std::uint8_t> bytes(s.length);
      for (std::uint64_t i = 0; i < s.length; ++i) bytes[i] = value_of(s, s.offset + i);
      grow(f, end);
      for (std::uint64_t i = 0; i < s.length; ++i) set(f, s.offset + i, bytes[i]);
      break;
    }
    case Kind::kStore:
      for (std::uint64_t at = s.offset; at < end; ++at) {
        add_value(f, at, content(s.number, at));
        f.bytes[at] = content(s.number, at);
      }
      break;
    case Kind::kTruncate:
      if (s.offset < f.size)
        f.size = s.offset;
      else
        grow(f, s.offset);
      break;
    case Kind::kPunch:
      for (std::uint64_t at = s.offset; at < std::min(end, f.size); ++at) set(f, at, 0);
      break;
    case Kind::kZero:
      grow(f, end);
      for (std::uint64_t at = s.offset; at < end; ++at) set(f, at, 0);
      break;
    case Kind::kAllocate:
      grow(f, end);
      break;
    case Kind::kMsync:
      settle(f, s.offset / kPage * kPage, std::min((end + kPage - 1) / kPage * kPage, f.size));
      break;
    case Kind::kFsync:
      settle(f, 0, f.size);
      break;
    default:
      break;
  }
}

}  // namespace byte_model
