#include "util/oom_score.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>

#include "util/unique_fd.h"

namespace rmemfs {
namespace {
constexpr const char* kFile = "/proc/self/oom_score_adj";
}

Result<void> set_oom_score(int score) {
  const UniqueFd file(::open(kFile, O_WRONLY | O_CLOEXEC));
  const std::string text = std::to_string(score);
  if (!file.valid() || ::write(file.get(), text.data(), text.size()) < 0) {
    return Error(errc_from_errno(errno), "oom_score_adj", text);
  }
  return success();
}

void protect_from_oom() {
  const UniqueFd file(::open(kFile, O_RDONLY | O_CLOEXEC));
  char text[16] = {};
  if (!file.valid() || ::read(file.get(), text, sizeof text - 1) <= 0 || std::atoi(text) != 0) return;
  // Ordinary users may not, and their daemons take their chance as their programs do.
  [[maybe_unused]] const bool lowered = set_oom_score(kProtectedOomScore).ok();
}

}  // namespace rmemfs
