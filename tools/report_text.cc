#include "tools/report_text.h"

#include <cstdio>

namespace rmemfs::cli {
namespace {

// Length of the well-formed UTF-8 sequence at the front (RFC 3629: no overlong forms, no surrogates); 0: none.
std::size_t sequence_length(std::string_view s) {
  const auto at = [&](std::size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  const auto tail = [&](std::size_t i) { return (at(i) & 0xc0) == 0x80; };
  const unsigned first = at(0), second = at(1);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const bool bad = (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f);
    return !bad && tail(1) && tail(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const bool bad = (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f);
    return !bad && tail(1) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

std::string json_string(std::string_view bytes) {
  std::string out = "\"";
  char escape[8];
  while (!bytes.empty()) {
    const auto c = static_cast<unsigned char>(bytes[0]);
    std::size_t length = sequence_length(bytes);
    if (length == 0) {
      std::snprintf(escape, sizeof escape, "\\udc%02x", c);
      out += escape;
      length = 1;
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += bytes[0];
    } else if (c < 0x20 || c == 0x7f) {
      std::snprintf(escape, sizeof escape, "\\u%04x", c);
      out += escape;
    } else {
      out += bytes.substr(0, length);
    }
    bytes.remove_prefix(length);
  }
  return out += '"';
}

std::string printable(std::string_view bytes) {
  std::string out;
  char escape[8];
  for (const char character : bytes) {
    const auto c = static_cast<unsigned char>(character);
    if (c < 0x20 || c == 0x7f) {
      std::snprintf(escape, sizeof escape, "\\%03o", c);
      out += escape;
    } else if (c == '\\') {
      out += "\\\\";
    } else {
      out += character;
    }
  }
  return out;
}

}  // namespace rmemfs::cli
