// Files whose every byte is known, and what became of them.
//
//   pattern write PATH LENGTH SEED            writes and fsyncs; status 1 and the errno's name on an error
//   pattern check PATH LENGTH SEED [STRIDE]   reads 4 KiB of every STRIDE bytes (4096: all) and prints
//                                             "good=N eio=N wrong=N zero=N"; zero counts those of the wrong that are
//                                             zeros. Status 0: all good; 1: something wrong; 4: only EIO; 5: good and
//                                             EIO
//   pattern blocks IMAGE LENGTH SEED          prints how many 4 KiB blocks of such a file IMAGE (a pool) holds
// Status 3: the file is not there or has another length.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unordered_map>

namespace {

constexpr std::size_t kBlock = 4096;

void fill(char* block, std::uint64_t seed, std::uint64_t offset) {
  for (std::size_t i = 0; i < kBlock; i += 8) {
    std::uint64_t z = (seed << 40) + offset + i + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    std::memcpy(block + i, &z, 8);
  }
}

int write_file(const char* path, std::uint64_t length, std::uint64_t seed) {
  int fd = ::open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  int error = fd < 0 ? errno : 0;
  std::string buffer(64 * kBlock, '\0');
  for (std::uint64_t offset = 0; !error && offset < length;) {
    for (std::size_t at = 0; at < buffer.size(); at += kBlock) fill(buffer.data() + at, seed, offset + at);
    auto want = static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), length - offset));
    for (std::size_t done = 0; !error && done < want;) {
      ssize_t n = ::write(fd, buffer.data() + done, want - done);
      if (n < 0)
        error = errno;
      else
        done += static_cast<std::size_t>(n);
    }
    offset += want;
  }
  if (!error && ::fsync(fd) < 0) error = errno;
  if (fd >= 0 && ::close(fd) < 0 && !error) error = errno;
  if (error) std::printf("%s\n", ::strerrorname_np(error));
  return error ? 1 : 0;
}

int check_file(const char* path, std::uint64_t length, std::uint64_t seed, std::uint64_t stride) {
  int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  struct stat st {};
  if (fd < 0 || ::fstat(fd, &st) < 0 || static_cast<std::uint64_t>(st.st_size) != length) {
    std::printf("%s\n", fd < 0 ? ::strerrorname_np(errno) : "wrong length");
    return 3;
  }
  std::uint64_t good = 0, eio = 0, wrong = 0, zero = 0;
  for (std::uint64_t offset = 0; offset < length; offset += stride) {
    char is[kBlock], must[kBlock];
    fill(must, seed, offset);
    auto want = static_cast<std::size_t>(std::min<std::uint64_t>(kBlock, length - offset));
    ssize_t n = ::pread(fd, is, want, static_cast<off_t>(offset));
    if (n < 0 && errno == EIO) {
      ++eio;
    } else if (n == static_cast<ssize_t>(want) && std::memcmp(is, must, want) == 0) {
      ++good;
    } else {
      ++wrong;
      if (n > 0 && std::all_of(is, is + n, [](char c) { return c == 0; })) ++zero;
    }
  }
  ::close(fd);
  std::printf("good=%llu eio=%llu wrong=%llu zero=%llu\n", static_cast<unsigned long long>(good),
              static_cast<unsigned long long>(eio), static_cast<unsigned long long>(wrong),
              static_cast<unsigned long long>(zero));
  return wrong ? 1 : eio == 0 ? 0 : good ? 5 : 4;
}

int count_blocks(const char* image, std::uint64_t length, std::uint64_t seed) {
  std::unordered_map<std::string, std::uint64_t> wanted;  // first bytes of each block -> its offset
  char must[kBlock];
  for (std::uint64_t offset = 0; offset + kBlock <= length; offset += kBlock) {
    fill(must, seed, offset);
    wanted.emplace(std::string(must, 16), offset);
  }
  const int fd = ::open(image, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 3;
  std::uint64_t found = 0;
  std::string buffer(256 * kBlock, '\0');
  for (ssize_t n; (n = ::read(fd, buffer.data(), buffer.size())) > 0;) {
    for (std::size_t at = 0; at + kBlock <= static_cast<std::size_t>(n); at += kBlock) {
      const auto it = wanted.find(std::string(buffer.data() + at, 16));
      if (it == wanted.end()) continue;
      fill(must, seed, it->second);
      if (std::memcmp(must, buffer.data() + at, kBlock) == 0) ++found;
    }
  }
  ::close(fd);
  std::printf("%llu\n", static_cast<unsigned long long>(found));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc >= 5 ? argv[1] : "";
  auto number = [&](int i) { return std::strtoull(argv[i], nullptr, 10); };
  if (verb == "write") return write_file(argv[2], number(3), number(4));
  if (verb == "check") return check_file(argv[2], number(3), number(4), argc > 5 ? number(5) : kBlock);
  if (verb == "blocks") return count_blocks(argv[2], number(3), number(4));
  std::fprintf(stderr, "usage: pattern write|check|blocks PATH LENGTH SEED [STRIDE]\n");
  return 2;
}
