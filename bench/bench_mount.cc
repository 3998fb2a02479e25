// One kind of work on a directory, timed: system calls of one or more processes, so that any two file systems can be
// compared.
//
// usage: bench_mount [-p PROCESSES] [-q DEPTH] [-n TOTAL] [-u] DIRECTORY WORK COUNT
//   -p   processes that share COUNT, each in a directory of its own (1); for works marked *
//   -q   requests in flight of random_read and random_write (1: plain system calls, more: Linux's asynchronous I/O)
//   -u   what is read is not compared with what was written: for a file system that keeps nothing
//
//   WORK            COUNT                                       needs
//   prepare*        files of 4 KiB in files/
//   stat*           stat of each                                prepare
//   stat_warm*      the same, the second of two passes timed    prepare
//   open_read*      open, read 4 KiB, close of each             prepare
//   create*         empty files in made/
//   rename*         each to another name                        create
//   unlink*         each                                        rename
//   stat_made*      stat of COUNT files out of TOTAL, evenly    create of TOTAL with as many processes
//   make_many       empty files in many/
//   readdir         all names of many/, so many                 make_many, or as many files made by somebody else
//   append          4 KiB at the end of log, then fsync
//   write           MiB written in order to sequential, 1 MiB at a time, then fsync
//   read            MiB read in order, the page cache dropped   write
//   prepare_big     MiB written to big
//   random_read     4 KiB O_DIRECT reads at random places       prepare_big
//   random_write    4 KiB O_DIRECT writes at random places      prepare_big
//   mmap_read       pages of a mapping touched at random, each the first time   prepare_big
// Prints one JSON object: {"work", "operations", "bytes", "seconds", "p50_us", "p99_us", "cpu_s"}; cpu_s is what the
// working processes used. Exits 1 with a sentence when a call fails or when what is read is not what was written: the
// speed of a wrong answer is of no use.
#include <dirent.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr std::size_t kBlock = 4096;
constexpr std::size_t kPiece = 1 << 20;
constexpr unsigned kMostProcesses = 64, kMostDepth = 256;

using Clock = std::chrono::steady_clock;

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

double processor_seconds() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

// How long each operation took, in nanoseconds, and the clock that says so: it is read once per operation.
class Stopwatch {
 public:
  explicit Stopwatch(std::span<std::uint32_t> laps) : laps_(laps) {}
  void start() {
    processor_ = processor_seconds();
    began_ = last_ = Clock::now();
  }
  void lap() {
    const Clock::time_point now = Clock::now();
    record(now - last_);
    last_ = now;
  }
  // Operations that overlap bring their own beginning.
  void lap_since(Clock::time_point from) { record(Clock::now() - from); }
  void stop() {
    ended_ = Clock::now();
    processor_ = processor_seconds() - processor_;
  }
  Clock::time_point began() const { return began_; }
  Clock::time_point ended() const { return ended_; }
  double processor() const { return processor_; }
  std::size_t laps() const { return count_; }

 private:
  void record(Clock::duration time) {
    if (count_ == laps_.size()) return;
    laps_[count_++] =
        static_cast<std::uint32_t>(std::min<std::int64_t>(std::chrono::nanoseconds(time).count(), UINT32_MAX));
  }
  std::span<std::uint32_t> laps_;
  std::size_t count_ = 0;
  Clock::time_point began_, last_, ended_;
  double processor_ = 0;
};

// What one process does. prepare() and finish() are not timed.
class Work {
 public:
  struct Options {
    std::string root;       // of the works that all processes share
    std::string directory;  // this process's own
    std::uint64_t count = 0;
    std::uint64_t total = 0;
    unsigned depth = 1;
    bool unchecked = false;
  };
  explicit Work(Options options) : options_(std::move(options)), count_(options_.count) {}

  void prepare_files(Stopwatch& watch) {
    make_directories("files");
    Buffer block = make_buffer(kBlock);
    watch.start();
    for (std::uint64_t i = 0; i < count_; ++i) {
      const std::string path = name("files/f", i);
      const int fd = open_file(path, O_CREAT | O_WRONLY | O_TRUNC);
      stamp(block.get(), i);
      require(::write(fd, block.get(), kBlock) == static_cast<ssize_t>(kBlock), path);
      require(::close(fd) == 0, path);
      watch.lap();
    }
    watch.stop();
  }

  void stat(Stopwatch& watch) {
    watch.start();
    for (std::uint64_t i = 0; i < count_; ++i) {
      stat_one(i);
      watch.lap();
    }
    watch.stop();
  }
  void stat_warm(Stopwatch& watch) {
    for (std::uint64_t i = 0; i < count_; ++i) stat_one(i);
    stat(watch);
  }

  void open_read(Stopwatch& watch) {
    Buffer block = make_buffer(kBlock);
    watch.start();
    for (std::uint64_t i = 0; i < count_; ++i) {
      const std::string path = name("files/f", i);
      const int fd = open_file(path, O_RDONLY);
      require(::read(fd, block.get(), kBlock) == static_cast<ssize_t>(kBlock), path);
      check_stamp(block.get(), i, path);
      ::close(fd);
      watch.lap();
    }
    watch.stop();
  }

  void create(Stopwatch& watch) {
    make_directories("made");
    create_in("made/a", watch);
  }
  void stat_made(Stopwatch& watch) {
    const std::uint64_t step = std::max<std::uint64_t>(options_.total / count_, 1);
    watch.start();
    for (std::uint64_t i = 0; i < count_; ++i) {
      struct stat status {};
      const std::string path = name("made/a", i * step);
      require(::stat(path.c_str(), &status) == 0, path);
      watch.lap();
    }
    watch.stop();
  }
  void rename(Stopwatch& watch) {
    watch.start();
    for (std::uint64_t i = 0; i < count_; ++i) {
      require(::rename(name("made/a", i).c_str(), name("made/b", i).c_str()) == 0, name("made/a", i));
      watch.lap();
    }
    watch.stop();
  }
  void unlink(Stopwatch& watch) {
    watch.start();
    for (std::uint64_t i = 0; i < count_; ++i) {
      require(::unlink(name("made/b", i).c_str()) == 0, name("made/b", i));
      watch.lap();
    }
    watch.stop();
  }

  void make_many(Stopwatch& watch) {
    make_directory(options_.root + "/many");
    options_.directory = options_.root;
    create_in("many/f", watch);
  }
  void readdir(Stopwatch& watch) {
    const std::string path = options_.root + "/many";
    DIR* const directory = ::opendir(path.c_str());
    require(directory != nullptr, path);
    watch.start();
    std::uint64_t names = 0;
    while (const dirent* entry = ::readdir(directory)) {
      if (entry->d_name[0] != '.') ++names;
      watch.lap();
    }
    watch.stop();
    ::closedir(directory);
    errno = EILSEQ;
    require(names == count_, path + ": " + std::to_string(names) + " names");
  }

  void append(Stopwatch& watch) {
    Buffer block = make_buffer(kBlock);
    const std::string path = options_.root + "/log";
    ::unlink(path.c_str());
    const int fd = open_file(path, O_CREAT | O_WRONLY | O_APPEND);
    require(::fsync(fd) == 0, path);
    watch.start();
    for (std::uint64_t i = 0; i < count_; ++i) {
      require(::write(fd, block.get(), kBlock) == static_cast<ssize_t>(kBlock), path);
      require(::fsync(fd) == 0, path);
      watch.lap();
    }
    watch.stop();
    require(::close(fd) == 0, path);
  }

  void write(Stopwatch& watch) { write_file(options_.root + "/sequential", watch); }
  void prepare_big(Stopwatch& watch) { write_file(big(), watch); }

  void read(Stopwatch& watch) {
    const std::string path = options_.root + "/sequential";
    Buffer piece = make_buffer(kPiece);
    const int fd = open_file(path, O_RDONLY);
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    watch.start();
    for (std::uint64_t i = 0; i < count_; ++i) {
      require(::read(fd, piece.get(), kPiece) == static_cast<ssize_t>(kPiece), path);
      check_stamp(piece.get(), i * (kPiece / kBlock), path);
      watch.lap();
    }
    watch.stop();
    ::close(fd);
  }

  void random_read(Stopwatch& watch) { random(watch, false); }
  void random_write(Stopwatch& watch) { random(watch, true); }

  void mmap_read(Stopwatch& watch) {
    const int fd = open_file(big(), O_RDONLY);
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    const std::uint64_t blocks = big_blocks();
    void* const mapping = ::mmap(nullptr, blocks * kBlock, PROT_READ, MAP_SHARED, fd, 0);
    require(mapping != MAP_FAILED, big());
    ::madvise(mapping, blocks * kBlock, MADV_RANDOM);
    std::vector<std::uint64_t> order(blocks);
    std::iota(order.begin(), order.end(), std::uint64_t{0});
    std::shuffle(order.begin(), order.end(), std::mt19937_64(count_));
    order.resize(std::min(count_, blocks));
    watch.start();
    for (const std::uint64_t number : order) {
      check_stamp(static_cast<const std::uint64_t*>(mapping) + number * (kBlock / sizeof(std::uint64_t)), number,
                  big());
      watch.lap();
    }
    watch.stop();
    ::munmap(mapping, blocks * kBlock);
    ::close(fd);
  }

 private:
  // Every block begins with its number, so a read can tell its own block from another's.
  static void stamp(std::uint64_t* block, std::uint64_t number) { *block = number * 0x9e3779b97f4a7c15u + 1; }
  void check_stamp(const std::uint64_t* block, std::uint64_t number, const std::string& path) const {
    std::uint64_t expected;
    stamp(&expected, number);
    // Read in any case, as the page of a mapping must be.
    if (*static_cast<const volatile std::uint64_t*>(block) == expected || options_.unchecked) return;
    errno = EILSEQ;
    fail(path + ": wrong data in block " + std::to_string(number));
  }

  void create_in(const char* prefix, Stopwatch& watch) {
    watch.start();
    for (std::uint64_t i = 0; i < count_; ++i) {
      ::close(open_file(name(prefix, i), O_CREAT | O_EXCL | O_WRONLY));
      watch.lap();
    }
    watch.stop();
  }

  void write_file(const std::string& path, Stopwatch& watch) {
    Buffer piece = make_buffer(kPiece);
    ::unlink(path.c_str());
    const int fd = open_file(path, O_CREAT | O_WRONLY | O_TRUNC);
    watch.start();
    for (std::uint64_t i = 0; i < count_; ++i) {
      for (std::size_t at = 0; at < kPiece; at += kBlock) {
        stamp(piece.get() + at / sizeof(std::uint64_t), (i * kPiece + at) / kBlock);
      }
      require(::write(fd, piece.get(), kPiece) == static_cast<ssize_t>(kPiece), path);
      watch.lap();
    }
    require(::fsync(fd) == 0, path);
    watch.stop();
    require(::close(fd) == 0, path);
  }

  void random(Stopwatch& watch, bool writes) {
    const std::uint64_t blocks = big_blocks();
    const int fd = open_file(big(), (writes ? O_WRONLY : O_RDONLY) | O_DIRECT);
    std::mt19937_64 next(count_);  // the same places for every file system and round
    std::uniform_int_distribution<std::uint64_t> place(0, blocks - 1);
    if (options_.depth > 1) {
      random_overlapping(watch, fd, writes, [&] { return place(next); });
    } else {
      Buffer block = make_buffer(kBlock);
      watch.start();
      for (std::uint64_t i = 0; i < count_; ++i) {
        const std::uint64_t number = place(next);
        const auto offset = static_cast<off_t>(number * kBlock);
        if (writes) {
          stamp(block.get(), number);
          require(::pwrite(fd, block.get(), kBlock, offset) == static_cast<ssize_t>(kBlock), big());
        } else {
          require(::pread(fd, block.get(), kBlock, offset) == static_cast<ssize_t>(kBlock), big());
          check_stamp(block.get(), number, big());
        }
        watch.lap();
      }
      watch.stop();
    }
    require(::close(fd) == 0, big());
  }

  // Always `depth` requests in flight: each that is done is replaced by the next.
  template <typename Place>
  void random_overlapping(Stopwatch& watch, int fd, bool writes, Place place) {
    struct Slot {
      iocb control{};
      Buffer block = make_buffer(kBlock);
      std::uint64_t number = 0;
      Clock::time_point began;
    };
    std::vector<Slot> slots(options_.depth);
    std::vector<iocb*> ready;
    std::vector<io_event> events(options_.depth);
    aio_context_t context = 0;
    require(::syscall(SYS_io_setup, options_.depth, &context) == 0, "io_setup");
    std::uint64_t given = 0, done = 0;
    const auto give = [&](Slot& slot) {
      if (given == count_) return;
      ++given;
      slot.number = place();
      if (writes) stamp(slot.block.get(), slot.number);
      slot.control = {};
      slot.control.aio_data = static_cast<std::uint64_t>(&slot - slots.data());
      slot.control.aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
      slot.control.aio_fildes = static_cast<std::uint32_t>(fd);
      slot.control.aio_buf = reinterpret_cast<std::uint64_t>(slot.block.get());
      slot.control.aio_nbytes = kBlock;
      slot.control.aio_offset = static_cast<std::int64_t>(slot.number * kBlock);
      ready.push_back(&slot.control);
    };
    watch.start();
    for (Slot& slot : slots) give(slot);
    while (done < count_) {
      for (std::size_t sent = 0; sent < ready.size();) {
        const Clock::time_point now = Clock::now();
        for (std::size_t i = sent; i < ready.size(); ++i) slots[ready[i]->aio_data].began = now;
        const long taken =
            ::syscall(SYS_io_submit, context, static_cast<long>(ready.size() - sent), ready.data() + sent);
        require(taken > 0, "io_submit");
        sent += static_cast<std::size_t>(taken);
      }
      ready.clear();
      const long got =
          ::syscall(SYS_io_getevents, context, 1L, static_cast<long>(events.size()), events.data(), nullptr);
      require(got > 0, "io_getevents");
      for (long i = 0; i < got; ++i) {
        const io_event& event = events[static_cast<std::size_t>(i)];
        Slot& slot = slots[event.data];
        errno = event.res < 0 ? static_cast<int>(-event.res) : EIO;
        require(event.res == static_cast<std::int64_t>(kBlock), big());
        if (!writes) check_stamp(slot.block.get(), slot.number, big());
        watch.lap_since(slot.began);
        ++done;
        give(slot);
      }
    }
    watch.stop();
    ::syscall(SYS_io_destroy, context);
  }

  std::string name(const char* prefix, std::uint64_t number) const {
    return options_.directory + "/" + prefix + std::to_string(number);
  }
  std::string big() const { return options_.root + "/big"; }
  std::uint64_t big_blocks() const {
    struct stat status {};
    require(::stat(big().c_str(), &status) == 0 && status.st_size > 0, big());
    return static_cast<std::uint64_t>(status.st_size) / kBlock;
  }
  static void make_directory(const std::string& path) {
    require(::mkdir(path.c_str(), 0777) == 0 || errno == EEXIST, path);
  }
  void make_directories(const char* which) const {
    make_directory(options_.directory);
    make_directory(options_.directory + "/" + which);
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

  Options options_;
  const std::uint64_t count_;
};

struct Kind {
  void (Work::*run)(Stopwatch&);
  std::size_t bytes;  // of one operation
  bool shared;        // many processes may do it together
};

// What a process tells the one that started it; in memory that both see.
struct Told {
  Clock::time_point began, ended;  // one clock for all processes
  double processor = 0;
  std::uint64_t laps = 0;
  bool finished = false;
};

template <typename T>
T* shared_array(std::size_t count) {
  void* const memory = ::mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  require(memory != MAP_FAILED, "memory");
  return static_cast<T*>(memory);
}

int run(const std::string& name, const Kind& kind, const Work::Options& options, unsigned processes) {
  const std::uint64_t each = options.count / processes;
  // readdir has laps for "." and ".." as well.
  const std::size_t room = static_cast<std::size_t>(each) + 2;
  std::uint32_t* const laps = shared_array<std::uint32_t>(room * processes);
  std::memset(laps, 0, room * processes * sizeof *laps);  // now, not within the time that is measured
  Told* const told = shared_array<Told>(processes);

  const auto work = [&](unsigned process) {
    Work::Options own = options;
    own.count = each;
    own.total = options.total / processes;
    own.directory = options.root + "/p" + std::to_string(processes) + "." + std::to_string(process);
    Stopwatch watch({laps + room * process, room});
    Work one(own);
    (one.*kind.run)(watch);
    told[process] = {watch.began(), watch.ended(), watch.processor(), watch.laps(), true};
  };
  if (processes == 1) {
    work(0);
  } else {
    // They start together when the last end of this pipe is closed.
    int gate[2];
    require(::pipe(gate) == 0, "pipe");
    std::vector<pid_t> children;
    for (unsigned i = 0; i < processes; ++i) {
      const pid_t child = ::fork();
      require(child >= 0, "fork");
      if (child == 0) {
        ::close(gate[1]);
        char byte;
        [[maybe_unused]] auto got = ::read(gate[0], &byte, 1);
        work(i);
        std::exit(0);
      }
      children.push_back(child);
    }
    ::close(gate[0]);
    ::close(gate[1]);
    for (const pid_t child : children) {
      int status = 0;
      require(::waitpid(child, &status, 0) == child && status == 0, "a process of " + name);
    }
  }

  std::vector<std::uint32_t> all;
  double processor = 0;
  Clock::time_point began = Clock::time_point::max(), ended = Clock::time_point::min();
  for (unsigned i = 0; i < processes; ++i) {
    if (!told[i].finished) return 1;
    began = std::min(began, told[i].began);
    ended = std::max(ended, told[i].ended);
    all.insert(all.end(), laps + room * i, laps + room * i + told[i].laps);
    processor += told[i].processor;
  }
  const auto percentile = [&all](double part) {
    if (all.empty()) return 0.0;
    const auto at = all.begin() + static_cast<std::ptrdiff_t>(part * static_cast<double>(all.size() - 1));
    std::nth_element(all.begin(), at, all.end());
    return *at / 1e3;
  };
  const double seconds = std::chrono::duration<double>(ended - began).count();
  const unsigned long long operations = each * processes;
  const unsigned long long bytes = operations * kind.bytes;
  std::printf(
      "{\"work\": \"%s\", \"operations\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"p50_us\": %.3f, "
      "\"p99_us\": %.3f, \"cpu_s\": %.6f}\n",
      name.c_str(), operations, bytes, seconds, percentile(0.5), percentile(0.99), processor);
  return 0;
}

int usage() {
  std::fprintf(
      stderr,
      "usage: bench_mount [-p PROCESSES] [-q DEPTH] [-n TOTAL] [-u] DIRECTORY WORK COUNT; the works are listed in "
      "bench/bench_mount.cc\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, Kind> kinds = {{"prepare", {&Work::prepare_files, kBlock, true}},
                                             {"stat", {&Work::stat, 0, true}},
                                             {"stat_warm", {&Work::stat_warm, 0, true}},
                                             {"open_read", {&Work::open_read, kBlock, true}},
                                             {"create", {&Work::create, 0, true}},
                                             {"rename", {&Work::rename, 0, true}},
                                             {"unlink", {&Work::unlink, 0, true}},
                                             {"stat_made", {&Work::stat_made, 0, true}},
                                             {"make_many", {&Work::make_many, 0, false}},
                                             {"readdir", {&Work::readdir, 0, false}},
                                             {"append", {&Work::append, kBlock, false}},
                                             {"write", {&Work::write, kPiece, false}},
                                             {"read", {&Work::read, kPiece, false}},
                                             {"prepare_big", {&Work::prepare_big, kPiece, false}},
                                             {"random_read", {&Work::random_read, kBlock, false}},
                                             {"random_write", {&Work::random_write, kBlock, false}},
                                             {"mmap_read", {&Work::mmap_read, kBlock, false}}};
  Work::Options options;
  unsigned processes = 1;
  for (int letter; (letter = ::getopt(argc, argv, "p:q:n:u")) != -1;) {
    if (letter == '?') return usage();
    if (letter == 'u') {
      options.unchecked = true;
      continue;
    }
    if (letter == 'n') {
      options.total = std::strtoull(optarg, nullptr, 10);
      continue;
    }
    const unsigned value = static_cast<unsigned>(std::strtoul(optarg, nullptr, 10));
    if (value == 0 || value > (letter == 'p' ? kMostProcesses : kMostDepth)) return usage();
    (letter == 'p' ? processes : options.depth) = value;
  }
  if (argc - optind != 3) return usage();
  const auto found = kinds.find(argv[optind + 1]);
  options.root = argv[optind];
  options.count = std::strtoull(argv[optind + 2], nullptr, 10);
  if (found == kinds.end() || options.count < processes || (processes > 1 && !found->second.shared)) return usage();
  return run(found->first, found->second, options, processes);
}
