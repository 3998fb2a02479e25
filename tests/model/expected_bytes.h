// The array that byte_model compares a file system with: two windows of bytes as they must be, what each operation does
// to them, and what one that a death cut off may have left. The invariants B1 to B5 are in byte_model.cc.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace byte_model {

inline constexpr std::uint64_t kWindow = 2560 << 10;  // bytes of each file: more than two of the longest requests
inline constexpr std::uint64_t kPage = 4096;
inline constexpr std::uint64_t kRequest = 1 << 20;  // the longest
inline constexpr std::array<std::uint64_t, 2> kBase = {0, (std::uint64_t{1} << 41) + 3 * kPage};
inline constexpr std::uint64_t kMagic = 0x6c65646f6d657462u + sizeof(kWindow);
inline constexpr std::uint64_t kLogged = 1 << 16;  // operations that can be shown

enum class Kind : std::uint8_t {
  kNone,
  kWrite,
  kAppend,
  kTruncate,
  kStore,
  kPunch,
  kZero,
  kAllocate,
  kReserve,
  kCopy,
  kMsync,
  kFsync,
  kSeek,
  kPrivate,
  kReopen
};

struct Step {
  std::uint64_t number = 0;
  std::uint64_t offset = 0, length = 0;  // in the window
  std::uint64_t from = 0;                // copy: offset in the source's window
  std::uint64_t old_size = 0;
  Kind kind = Kind::kNone;
  std::uint8_t file = 0, source = 0;  // copy: the source file
  std::uint8_t way = 0;
};

using Values = std::array<std::uint64_t, 4>;  // one bit per value of a byte

// One file as it must be. `open` bytes may after a death be any of `values`.
struct File {
  std::uint64_t size;
  std::uint8_t bytes[kWindow];
  std::uint8_t open[kWindow];
  Values values[kWindow];
};

struct State {
  std::uint64_t magic;
  std::uint64_t seed;
  std::uint64_t done;       // operations
  std::uint32_t killed;     // set before the daemon is
  std::uint32_t under_way;  // `last` has begun and not ended
  Step last;
  std::uint64_t opened, settled_old, settled_new, torn;  // what deaths left to settle, and to what it was
  Step log[kLogged];
  File files[2];
};

extern State* state;           // a shared mapping
extern std::string directory;  // of the two files

const char* name_of(Kind kind);
std::string path_of(int file);

// What operation `number` writes at byte `at`. Never zero, which is what holes, gaps and punches are.
std::uint8_t content(std::uint64_t number, std::uint64_t at);

// Both print and end the process.
[[noreturn]] void wrong(const char* how, int file, std::uint64_t at, unsigned is, unsigned must);
[[noreturn]] void failed(const char* what, int error);  // with 0 when the mount was killed

void set(File& f, std::uint64_t at, std::uint8_t value);
void add_value(File& f, std::uint64_t at, std::uint8_t value);  // it may be that one, too
bool may_be(const File& f, std::uint64_t at, std::uint8_t value);
void settle(File& f, std::uint64_t begin, std::uint64_t end);
// What byte `at` is once the step is done; for bytes in its range.
std::uint8_t value_of(const Step& s, std::uint64_t at);
void apply(const Step& s);

}  // namespace byte_model
