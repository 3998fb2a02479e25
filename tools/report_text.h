// Names of files, which are bytes, as text that is safe on a terminal. Thread-safety: plain functions.
#pragma once

#include <string>
#include <string_view>

namespace rmemfs::cli {

// Control characters and backslashes as \ooo and "\\".
std::string printable(std::string_view bytes);

}  // namespace rmemfs::cli
