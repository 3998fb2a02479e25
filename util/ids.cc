#include "util/ids.h"

#include <sys/random.h>

#include <cctype>

#include "util/check.h"

namespace rmemfs {

void fill_random(std::byte* data, std::size_t size) {
  std::size_t done = 0;
  while (done < size) {
    const ssize_t n = ::getrandom(data + done, size - done, 0);
    if (n > 0)
      done += static_cast<std::size_t>(n);
    else
      CHECK(errno == EINTR);
  }
}

Uuid Uuid::random() {
  Uuid uuid;
  fill_random(uuid.bytes.data(), uuid.bytes.size());
  uuid.bytes[6] = (uuid.bytes[6] & std::byte{0x0f}) | std::byte{0x40};
  uuid.bytes[8] = (uuid.bytes[8] & std::byte{0x3f}) | std::byte{0x80};
  return uuid;
}

std::string Uuid::to_string() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kDigits[std::to_integer<unsigned>(bytes[i]) >> 4];
    text += kDigits[std::to_integer<unsigned>(bytes[i]) & 15];
  }
  return text;
}

Result<Uuid> Uuid::parse(std::string_view text) {
  Uuid uuid;
  std::size_t digits = 0;
  for (char c : text) {
    if (c == '-') continue;
    if (std::isxdigit(static_cast<unsigned char>(c)) == 0 || digits >= 32) {
      return Error(Errc::kInvalid, "uuid", std::string(text));
    }
    const int lower = std::tolower(static_cast<unsigned char>(c));
    const unsigned value = static_cast<unsigned>(lower <= '9' ? lower - '0' : lower - 'a' + 10);
    uuid.bytes[digits / 2] = (uuid.bytes[digits / 2] << 4) | static_cast<std::byte>(value);
    ++digits;
  }
  if (digits != 32) return Error(Errc::kInvalid, "uuid", std::string(text));
  return uuid;
}

AccessKey AccessKey::random() {
  AccessKey key;
  fill_random(key.bytes.data(), key.bytes.size());
  return key;
}

bool AccessKey::matches(const AccessKey& other) const {
  unsigned difference = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    difference |= std::to_integer<unsigned>(bytes[i] ^ other.bytes[i]);
  }
  return difference == 0;
}

}  // namespace rmemfs
