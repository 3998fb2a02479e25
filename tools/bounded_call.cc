#include "tools/bounded_call.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "util/clock.h"
#include "util/unique_fd.h"

namespace rmemfs {

Result<std::optional<int>> bounded_call(const std::function<int()>& call, std::uint32_t timeout_ms) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return Error(errc_from_errno(errno), "pipe");
  UniqueFd from_child(ends[0]), to_parent(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return Error(errc_from_errno(errno), "fork");
  if (child == 0) {
    const int answer = call();
    ::_exit(::write(to_parent.get(), &answer, sizeof answer) == sizeof answer ? 0 : 1);
  }
  to_parent.reset();
  std::optional<int> answer;
  const TimePoint deadline = deadline_after_ms(timeout_ms);
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - MonoClock::now()).count();
    pollfd pipe{from_child.get(), POLLIN, 0};
    const int ready = ::poll(&pipe, 1, left > 0 ? static_cast<int>(left) : 0);
    if (ready < 0 && errno == EINTR) continue;
    int given = 0;
    if (ready > 0 && ::read(from_child.get(), &given, sizeof given) == sizeof given) answer = given;
    break;
  }
  // A child that has answered ends at once. One that has not is killed, as far as the kernel lets it be; whoever adopts
  // it reaps it.
  if (!answer) ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, answer ? 0 : WNOHANG);
  return answer;
}

}  // namespace rmemfs
