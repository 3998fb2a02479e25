#include "util/check.h"

#include <cstdio>
#include <cstdlib>

namespace rmemfs {

void check_failed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "rmemfs: %s:%d: CHECK failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace rmemfs
