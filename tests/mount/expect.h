// What the programs that check a mount with system calls expect.
#pragma once

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

// A failed expectation ends its case; this program is a test and has no other errors.
struct Failure : std::runtime_error {
  using runtime_error::runtime_error;
};

#define EXPECT(condition)                                                                      \
  do {                                                                                         \
    errno = 0;                                                                                 \
    if (!(condition))                                                                          \
      throw Failure("line " + std::to_string(__LINE__) + ": " #condition +                     \
                    (errno ? std::string(" (") + std::strerror(errno) + ")" : std::string())); \
  } while (false)
