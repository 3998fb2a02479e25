// One kind of work on a directory, timed: system calls of one process, so that any two file systems can be compared.
//
// usage: bench_mount DIRECTORY WORK COUNT
//   WORK            COUNT                                       needs
//   prepare         files of 4 KiB in DIRECTORY/files
//   stat            stat of each file                           prepare
//   stat_twice      the same, the second of two passes timed    prepare
//   open_read       open, read 4 KiB, close of each             prepare
//   create          empty files in DIRECTORY/made
//   rename          each to another name                        create
//   unlink          each                                        rename
//   write           MiB written in order to DIRECTORY/big, 1 MiB at a time
//   read            MiB read in order, the page cache dropped   write
//   random_read     4 KiB O_DIRECT reads at random places       write
//   random_write    4 KiB O_DIRECT writes at random places      write
// Prints one JSON object: {"work", "operations", "bytes", "seconds"}. Exits 1 with a sentence when a call fails or when
// what is read is not what was written: the speed of a wrong answer is of no use.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>

namespace {

constexpr std::size_t kBlock = 4096;
constexpr std::size_t kPiece = 1 << 20;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "bench_mount: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}
void require(bool good, const std::string& what) {
  if (!good) fail(what);
}

// Aligned for O_DIRECT.
struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<std::uint64_t, Free>;
Buffer make_buffer(std::size_t bytes) {
  void* memory = std::aligned_alloc(kBlock, bytes);
  require(memory != nullptr, "buffer");
  std::memset(memory, 0x5a, bytes);
  return Buffer(static_cast<std::uint64_t*>(memory));
}

// Every block begins with its number, so a read can tell its own block from another's.
void stamp(std::uint64_t* block, std::uint64_t number) { *block = number * 0x9e3779b97f4a7c15u + 1; }
void check_stamp(const std::uint64_t* block, std::uint64_t number, const std::string& path) {
  std::uint64_t expected;
  stamp(&expected, number);
  errno = EILSEQ;
  require(*block == expected, path + ": wrong data in block " + std::to_string(number));
}

class Timer {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

struct Outcome {
  std::uint64_t operations = 0;
  std::uint64_t bytes = 0;
  double seconds = 0;
};

class Work {
 public:
  Work(std::string directory, std::uint64_t count) : directory_(std::move(directory)), count_(count) {}

  Outcome prepare() {
    make_directory("files");
    Buffer block = make_buffer(kBlock);
    Timer timer;
    for (std::uint64_t i = 0; i < count_; ++i) {
      const std::string path = name("files/f", i);
      const int fd = open_file(path, O_CREAT | O_WRONLY | O_TRUNC);
      stamp(block.get(), i);
      require(::write(fd, block.get(), kBlock) == static_cast<ssize_t>(kBlock), path);
      require(::close(fd) == 0, path);
    }
    return {count_, count_ * kBlock, timer.seconds()};
  }

  Outcome stat() {
    Timer timer;
    for (std::uint64_t i = 0; i < count_; ++i) stat_one(i);
    return {count_, 0, timer.seconds()};
  }
  Outcome stat_twice() {
    stat();
    return stat();
  }

  Outcome open_read() {
    Buffer block = make_buffer(kBlock);
    Timer timer;
    for (std::uint64_t i = 0; i < count_; ++i) {
      const std::string path = name("files/f", i);
      const int fd = open_file(path, O_RDONLY);
      require(::read(fd, block.get(), kBlock) == static_cast<ssize_t>(kBlock), path);
      check_stamp(block.get(), i, path);
      ::close(fd);
    }
    return {count_, count_ * kBlock, timer.seconds()};
  }

  Outcome create() {
    make_directory("made");
    Timer timer;
    for (std::uint64_t i = 0; i < count_; ++i) ::close(open_file(name("made/a", i), O_CREAT | O_EXCL | O_WRONLY));
    return {count_, 0, timer.seconds()};
  }
  Outcome rename() {
    Timer timer;
    for (std::uint64_t i = 0; i < count_; ++i) {
      require(::rename(name("made/a", i).c_str(), name("made/b", i).c_str()) == 0, name("made/a", i));
    }
    return {count_, 0, timer.seconds()};
  }
  Outcome unlink() {
    Timer timer;
    for (std::uint64_t i = 0; i < count_; ++i) require(::unlink(name("made/b", i).c_str()) == 0, name("made/b", i));
    return {count_, 0, timer.seconds()};
  }

  Outcome write() {
    Buffer piece = make_buffer(kPiece);
    ::unlink(big().c_str());
    Timer timer;
    const int fd = open_file(big(), O_CREAT | O_WRONLY | O_TRUNC);
    for (std::uint64_t i = 0; i < count_; ++i) {
      for (std::size_t at = 0; at < kPiece; at += kBlock) {
        stamp(piece.get() + at / sizeof(std::uint64_t), (i * kPiece + at) / kBlock);
      }
      require(::write(fd, piece.get(), kPiece) == static_cast<ssize_t>(kPiece), big());
    }
    require(::close(fd) == 0, big());
    return {count_, count_ * kPiece, timer.seconds()};
  }

  Outcome read() {
    Buffer piece = make_buffer(kPiece);
    const int fd = open_file(big(), O_RDONLY);
    ::fsync(fd);
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    Timer timer;
    for (std::uint64_t i = 0; i < count_; ++i) {
      require(::read(fd, piece.get(), kPiece) == static_cast<ssize_t>(kPiece), big());
      check_stamp(piece.get(), i * (kPiece / kBlock), big());
    }
    const double seconds = timer.seconds();
    ::close(fd);
    return {count_, count_ * kPiece, seconds};
  }

  Outcome random_read() {
    return random(O_RDONLY, [](int fd, std::uint64_t* block, std::uint64_t number, const std::string& path) {
      require(::pread(fd, block, kBlock, static_cast<off_t>(number * kBlock)) == static_cast<ssize_t>(kBlock), path);
      check_stamp(block, number, path);
    });
  }
  Outcome random_write() {
    return random(O_WRONLY, [](int fd, std::uint64_t* block, std::uint64_t number, const std::string& path) {
      stamp(block, number);
      require(::pwrite(fd, block, kBlock, static_cast<off_t>(number * kBlock)) == static_cast<ssize_t>(kBlock), path);
    });
  }

 private:
  template <typename One>
  Outcome random(int flags, One one) {
    Buffer block = make_buffer(kBlock);
    struct stat status {};
    require(::stat(big().c_str(), &status) == 0, big());
    const int fd = open_file(big(), flags | O_DIRECT);
    std::mt19937_64 next(count_);  // the same places for every file system and round
    std::uniform_int_distribution<std::uint64_t> place(0, static_cast<std::uint64_t>(status.st_size) / kBlock - 1);
    Timer timer;
    for (std::uint64_t i = 0; i < count_; ++i) one(fd, block.get(), place(next), big());
    const double seconds = timer.seconds();
    require(::close(fd) == 0, big());
    return {count_, count_ * kBlock, seconds};
  }

  std::string name(const char* prefix, std::uint64_t number) const {
    return directory_ + "/" + prefix + std::to_string(number);
  }
  std::string big() const { return directory_ + "/big"; }
  void make_directory(const char* which) const {
    const std::string path = directory_ + "/" + which;
    require(::mkdir(path.c_str(), 0777) == 0 || errno == EEXIST, path);
  }
  int open_file(const std::string& path, int flags) const {
    const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
    require(fd >= 0, path);
    return fd;
  }
  void stat_one(std::uint64_t number) const {
    struct stat status {};
    require(::stat(name("files/f", number).c_str(), &status) == 0 && status.st_size == kBlock, name("files/f", number));
  }

  const std::string directory_;
  const std::uint64_t count_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, Outcome (Work::*)()> works = {{"prepare", &Work::prepare},
                                                            {"stat", &Work::stat},
                                                            {"stat_twice", &Work::stat_twice},
                                                            {"open_read", &Work::open_read},
                                                            {"create", &Work::create},
                                                            {"rename", &Work::rename},
                                                            {"unlink", &Work::unlink},
                                                            {"write", &Work::write},
                                                            {"read", &Work::read},
                                                            {"random_read", &Work::random_read},
                                                            {"random_write", &Work::random_write}};
  const auto found = argc == 4 ? works.find(argv[2]) : works.end();
  const std::uint64_t count = argc == 4 ? std::strtoull(argv[3], nullptr, 10) : 0;
  if (found == works.end() || count == 0) {
    std::fprintf(stderr, "usage: bench_mount DIRECTORY WORK COUNT; the works are listed in bench/bench_mount.cc\n");
    return 2;
  }
  Work work(argv[1], count);
  const Outcome outcome = (work.*found->second)();
  std::printf("{\"work\": \"%s\", \"operations\": %llu, \"bytes\": %llu, \"seconds\": %.6f}\n", argv[2],
              static_cast<unsigned long long>(outcome.operations), static_cast<unsigned long long>(outcome.bytes),
              outcome.seconds);
  return 0;
}
