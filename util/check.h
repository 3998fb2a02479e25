// CHECK(condition): stops the program on a programmer's error, in release too. Never on bytes from media, wire or user.
#pragma once

namespace rmemfs {
[[noreturn]] void check_failed(const char* file, int line, const char* condition);
}  // namespace rmemfs

#define CHECK(condition) \
  (__builtin_expect(static_cast<bool>(condition), 1) ? void() : ::rmemfs::check_failed(__FILE__, __LINE__, #condition))
