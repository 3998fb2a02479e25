// Sends truncated and random bytes to a listening socket, in ways that a careless parser does not survive.
//
//   garbage unix:PATH|tcp://HOST:PORT ROUNDS SEED
//
// Status 0 when every connection was accepted; 1 when one was refused (the listener died).
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace {

int connect_to(const std::string& where) {
  if (where.rfind("unix:", 0) == 0) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, where.c_str() + 5, sizeof address.sun_path - 1);
    int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
    return -1;
  }
  auto colon = where.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(where.c_str() + colon + 1)));
  ::inet_pton(AF_INET, where.substr(6, colon - 6).c_str(), &address.sin_addr);
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
  return -1;
}

// Sends what the peer takes within 50 ms, and reads away what it says.
void send_some(int fd, const std::string& bytes) {
  ::fcntl(fd, F_SETFL, O_NONBLOCK);
  std::size_t done = 0;
  while (done < bytes.size()) {
    pollfd p{fd, POLLOUT, 0};
    if (::poll(&p, 1, 50) <= 0) return;
    ssize_t n = ::send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (n <= 0) return;
    done += static_cast<std::size_t>(n);
  }
  pollfd p{fd, POLLIN, 0};
  char answer[4096];
  if (::poll(&p, 1, 2) > 0) {
    ssize_t n = ::recv(fd, answer, sizeof answer, 0);
    (void)n;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  std::mt19937_64 random(std::strtoull(argv[3], nullptr, 10));
  auto noise = [&](std::size_t length) {
    std::string bytes(length, '\0');
    for (auto& byte : bytes) byte = static_cast<char>(random());
    return bytes;
  };
  const std::string http = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  std::vector<int> silent;
  int status = 0;
  for (int round = 0; round < std::atoi(argv[2]); ++round) {
    int fd = connect_to(argv[1]);
    if (fd < 0) {
      std::printf("round %d: %s\n", round, std::strerror(errno));
      status = 1;
      break;
    }
    switch (round % 10) {
      case 0:
        send_some(fd, noise(random() % 64));
        break;
      case 1:
        send_some(fd, noise(1 << 16));
        break;
      case 2:
        send_some(fd, "RMEMTCP1" + noise(random() % 256));
        break;
      case 3:
        send_some(fd, "RMEMTCP1" + noise(1 << 15));
        break;
      case 4:
        send_some(fd, "RMEMSHM1" + noise(random() % 256));
        break;
      case 5:
        send_some(fd, std::string("RMEMTCP1").substr(0, random() % 8));
        break;
      case 6:
        send_some(fd, http + noise(random() % 4096));
        break;
      case 7:
        send_some(fd, http.substr(0, random() % http.size()));
        break;
      case 8:
        send_some(fd, "RMEMTCP1" + std::string(4096, '\xff'));
        break;
      case 9:
        send_some(fd, "RMEMSHM1" + std::string(4096, '\0'));
        break;
    }
    // A quarter stay open and say no more: a peer that is slow on purpose.
    if (round % 4 == 3 && silent.size() < 300)
      silent.push_back(fd);
    else
      ::close(fd);
  }
  for (int fd : silent) ::close(fd);
  return status;
}
