// Little-endian fields in byte spans, for formats on media and wire. Bounds are the caller's: load and store never
// check. ByteReader checks every step and remembers the first short read: parsers of foreign bytes use it.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace rmemfs {

static_assert(std::endian::native == std::endian::little, "formats are little-endian; a big-endian host needs swaps");

template <std::integral T>
T load_le(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <std::integral T>
void store_le(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <std::integral T>
void append_le(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
inline void append_be64(std::string& out, std::uint64_t value) { append_le(out, __builtin_bswap64(value)); }

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}
  template <std::integral T>
  T take() {
    if (rest_.size() < sizeof(T)) return fail(), T{};
    T value = load_le<T>(rest_.data());
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  std::uint64_t take_be64() { return __builtin_bswap64(take<std::uint64_t>()); }
  std::span<const std::byte> take_bytes(std::size_t size) {
    if (rest_.size() < size) return fail(), std::span<const std::byte>{};
    auto head = rest_.first(size);
    rest_ = rest_.subspan(size);
    return head;
  }
  std::size_t remaining() const { return rest_.size(); }
  bool failed() const { return failed_; }                  // something was shorter than asked for
  bool done() const { return !failed_ && rest_.empty(); }  // read to the last byte, and nothing was short

 private:
  void fail() {
    failed_ = true;
    rest_ = {};
  }
  std::span<const std::byte> rest_;
  bool failed_ = false;
};

}  // namespace rmemfs
