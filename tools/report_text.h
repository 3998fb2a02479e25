// Text for reports of fsck.rmemfs and rmemfs-dump: JSON strings, and names that are safe on a terminal.
// Thread-safety: plain functions.
#pragma once

#include <string>
#include <string_view>

namespace rmemfs::cli {

// A JSON string with its quotes. Names are bytes: one that is not part of valid UTF-8 becomes the lone surrogate U+DCxx,
// as Python's surrogateescape reads it back.
std::string json_string(std::string_view bytes);
// Control characters and backslashes as \ooo and "\\".
std::string printable(std::string_view bytes);

}  // namespace rmemfs::cli
