#include "tools/json.h"

#include <cmath>
#include <cstdio>

namespace rmemfs {
namespace {

// Length of the well-formed UTF-8 sequence at the head of `text` (RFC 3629); 0 when there is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char head = byte(0);
  if (head < 0x80) return 1;
  const std::size_t length = head >= 0xc2 && head <= 0xdf   ? 2
                             : (head & 0xf0) == 0xe0        ? 3
                             : head >= 0xf0 && head <= 0xf4 ? 4
                                                            : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (head == 0xe0 && byte(1) < 0xa0) || (head == 0xf0 && byte(1) < 0x90);
  const bool surrogate = head == 0xed && byte(1) > 0x9f;
  const bool beyond = head == 0xf4 && byte(1) > 0x8f;
  return overlong || surrogate || beyond ? 0 : length;
}

}  // namespace

void Json::separate() {
  if (!first_ && !after_key_) text_ += ',';
  first_ = after_key_ = false;
}

Json& Json::begin_object() {
  separate();
  text_ += '{';
  first_ = true;
  return *this;
}
Json& Json::end_object() {
  text_ += '}';
  first_ = false;
  return *this;
}
Json& Json::begin_array() {
  separate();
  text_ += '[';
  first_ = true;
  return *this;
}
Json& Json::end_array() {
  text_ += ']';
  first_ = false;
  return *this;
}

Json& Json::key(std::string_view name) {
  value(name);
  text_ += ':';
  after_key_ = true;
  return *this;
}

Json& Json::value(std::string_view text) {
  separate();
  text_ += '"';
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const char c = text[0];
    if (length == 0) {
      text_ += "\\ufffd";
    } else if (c == '"' || c == '\\') {
      text_ += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
      text_ += escaped;
    } else {
      text_ += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  text_ += '"';
  return *this;
}

Json& Json::value(std::uint64_t number) {
  separate();
  text_ += std::to_string(number);
  return *this;
}

Json& Json::value(double number) {
  separate();
  if (!std::isfinite(number)) {
    text_ += "null";
    return *this;
  }
  char digits[40];
  std::snprintf(digits, sizeof digits, "%.15g", number);
  text_ += digits;
  return *this;
}

Json& Json::value(bool truth) {
  separate();
  text_ += truth ? "true" : "false";
  return *this;
}

}  // namespace rmemfs
