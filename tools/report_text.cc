#include "tools/report_text.h"

#include <cstdio>

namespace rmemfs::cli {
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
