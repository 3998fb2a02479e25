// What a file's bytes must be, kept in an array beside the file system, and looked at after every operation.
//
//   byte_model run DIRECTORY STATE SEED OPERATIONS [DAEMON MILLISECONDS]
//     OPERATIONS random operations on two files of DIRECTORY. STATE is the array; what is there already goes on from
//     where it stands. DAEMON: this process, which serves the file system, is killed (SIGKILL) at a random moment
//     within MILLISECONDS; then the operation under way is noted in STATE, and the status is 0.
//   byte_model verify DIRECTORY STATE
//     looks at every byte through new descriptors; what was left open by a death is settled to what is found.
//   Status 0: all bytes are right; 1: not, with the byte, the seed and the last operations that touched it.
//
// The oracle, from the standards and from what the file system promises (README, "What a returned call survives"):
//   B1  A call that changes bytes or the size (write, truncate, fallocate, copy_file_range) is there, for every way of
//       reading, when it has returned, and survives the death of the daemon.
//   B2  What a shared mapping stores is there at once for every way of reading. It survives the death of the daemon
//       once msync or fsync has returned. Before, each byte is the one that was there or one of those stored since: the
//       kernel writes pages back when it likes.
//   B3  A call that was under way when the daemon died may have been done in part: of the bytes in its range each is
//       old or new, and the size is anywhere between; but a byte beyond the old end is new. (Or zero, of a call longer
//       than a request: the kernel sends the parts of a direct write at once, and a later one may have been done
//       alone.)
//   B4  What a private mapping stores is seen there only.
//   B5  SEEK_DATA and SEEK_HOLE: a hole reads as zeros. (What a mapping stored and the kernel has not written back
//       may lie in a hole: rmemfs(8), DIFFERENCES.)
// Nothing is stored behind the end of a file, where the page's rest is the kernel's.
//
// The two files' windows begin at an ordinary offset and at a large one. STATE is a shared mapping, so it is whole
// after the death of the process that works on it: a mapped access to a dead mount ends with SIGBUS.
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/model/expected_bytes.h"

namespace byte_model {
namespace {

// ---- the file system's side

class Side {
 public:
  explicit Side(int file) : file_(file) { open_all(); }
  Side(const Side&) = delete;
  Side& operator=(const Side&) = delete;
  ~Side() { close_all(); }

  void reopen() {
    close_all();
    open_all();
  }
  int descriptor(int way) const { return fds_[static_cast<std::size_t>(way)]; }
  int appender(bool direct) const { return direct ? append_direct_ : append_; }
  std::uint8_t* map() const { return map_; }

  // Reads [begin, end) of the window in one of the ways; the end of the file cuts it.
  void look(int way, std::uint64_t begin, std::uint64_t end) {
    const File& f = state->files[file_];
    end = std::min(end, f.size);
    if (begin >= end) return;
    const std::uint64_t length = end - begin;
    const std::uint8_t* is = map_ + begin;
    static constexpr const char* kHow[] = {"buffered", "direct", "mapped"};
    if (way != 2) {
      // Two more than there are: the end is where it must be.
      const bool at_end = end == f.size && way == 0;
      const ssize_t n = ::pread(way == 0 ? fds_[begin % 2] : fds_[2], room_, length + (at_end ? 2 : 0),
                                static_cast<off_t>(kBase[static_cast<std::size_t>(file_)] + begin));
      if (n < 0) failed("read", errno);
      if (static_cast<std::uint64_t>(n) != length) {
        if (state->killed != 0) ::_exit(0);
        std::printf("FAILED: %s read at %llu gives %zd bytes, not %llu, of %s\n", kHow[way],
                    static_cast<unsigned long long>(begin), n, static_cast<unsigned long long>(length),
                    path_of(file_).c_str());
        wrong(kHow[way], file_, std::min(begin + static_cast<std::uint64_t>(n), end - 1), 0, 0);
      }
      is = room_;
    }
    if (std::memcmp(is, f.bytes + begin, length) == 0) return;
    for (std::uint64_t i = 0; i < length; ++i) {
      if (is[i] != f.bytes[begin + i]) wrong(kHow[way], file_, begin + i, is[i], f.bytes[begin + i]);
    }
  }

  void look_at_size() const {
    struct stat st {};
    if (::fstat(fds_[0], &st) < 0) failed("fstat", errno);
    const std::uint64_t must = kBase[static_cast<std::size_t>(file_)] + state->files[file_].size;
    if (static_cast<std::uint64_t>(st.st_size) == must) return;
    std::printf("FAILED: the size is %lld and must be %llu\n", static_cast<long long>(st.st_size),
                static_cast<unsigned long long>(must));
    wrong("size", file_, std::min(state->files[file_].size, kWindow - 1), 0, 0);
  }

  void look_at_holes() const;

 private:
  void open_all();
  void close_all();

  const int file_;
  std::array<int, 5> fds_{};
  int append_ = -1, append_direct_ = -1;
  std::uint8_t* map_ = nullptr;
  alignas(kPage) std::uint8_t room_[kWindow + kPage];
};

void Side::open_all() {
  const std::string path = path_of(file_);
  const auto open_one = [&](int flags) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_CREAT | flags, 0644);
    if (fd < 0) failed("open", errno);
    return fd;
  };
  fds_ = {open_one(0), open_one(0), open_one(O_DIRECT), open_one(O_SYNC), -1};
  fds_[4] = fds_[2];
  append_ = open_one(O_APPEND);
  append_direct_ = open_one(O_APPEND | O_DIRECT);
  void* map = ::mmap(nullptr, kWindow, PROT_READ | PROT_WRITE, MAP_SHARED, fds_[0],
                     static_cast<off_t>(kBase[static_cast<std::size_t>(file_)]));
  if (map == MAP_FAILED) failed("mmap", errno);
  map_ = static_cast<std::uint8_t*>(map);
}

void Side::close_all() {
  ::munmap(map_, kWindow);
  for (const int fd : {fds_[0], fds_[1], fds_[2], fds_[3], append_, append_direct_}) ::close(fd);
}

void Side::look_at_holes() const {
  const File& f = state->files[file_];
  const auto base = static_cast<off_t>(kBase[static_cast<std::size_t>(file_)]);
  const off_t end = base + static_cast<off_t>(f.size);
  for (off_t at = base; at < end;) {
    off_t data = ::lseek(fds_[0], at, SEEK_DATA);
    if (data < 0 && errno != ENXIO) failed("SEEK_DATA", errno);
    if (data < 0) data = end;
    if (data < at || data > end) failed("SEEK_DATA went back, or past the end", 0);
    for (off_t hole = at; hole < data; ++hole) {
      const auto i = static_cast<std::uint64_t>(hole - base);
      if (f.bytes[i] != 0 && f.open[i] == 0) wrong("a hole according to SEEK_DATA", file_, i, 0, f.bytes[i]);
    }
    if (data == end) return;
    const off_t hole = ::lseek(fds_[1], data, SEEK_HOLE);
    if (hole < 0) failed("SEEK_HOLE", errno);
    if (hole <= data || hole > end) failed("SEEK_HOLE finds none, or past the end", 0);
    at = hole;
  }
  if (::lseek(fds_[0], end, SEEK_DATA) >= 0 || errno != ENXIO) failed("SEEK_DATA at the end is not ENXIO", errno);
}

class Runner {
 public:
  explicit Runner(std::uint64_t seed) : random_(seed) {}

  void one() {
    Step s = next();
    state->last = s;
    state->log[s.number % kLogged] = s;
    __atomic_store_n(&state->under_way, 1, __ATOMIC_SEQ_CST);
    execute(s);
    apply(s);
    state->done = s.number;
    __atomic_store_n(&state->under_way, 0, __ATOMIC_SEQ_CST);
    // What it touched and a little around, in a way of its own choice; sometimes everything, in every way.
    Side& side = *sides_[s.file];
    const std::uint64_t begin = s.offset < 5000 ? 0 : s.offset - 5000;
    side.look(static_cast<int>(below(3)), begin, s.offset + s.length + 5000);
    if (below(4) == 0) side.look_at_size();
    if (s.number % 256 == 0) look_at_everything();
  }

  void look_at_everything() {
    for (auto& side : sides_) {
      for (const int way : {0, 2, 1}) side->look(way, 0, kWindow);
      side->look_at_size();
      side->look_at_holes();
    }
  }

 private:
  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }

  std::uint64_t length() {
    const std::uint64_t dice = below(100);
    const std::uint64_t most = dice < 55 ? 3 * kPage : dice < 90 ? 32 << 10 : dice < 99 ? 160 << 10 : kWindow;
    const std::uint64_t n = 1 + below(most);
    return below(3) == 0 ? std::max(n / kPage * kPage, kPage) : n;
  }

  Step next() {
    Step s;
    s.number = state->done + 1;
    s.file = static_cast<std::uint8_t>(below(2));
    const std::uint64_t size = state->files[s.file].size;
    s.old_size = size;
    s.length = length();
    s.offset = below(std::min(size + 3 * kPage, kWindow));
    if (below(3) == 0) s.offset = s.offset / kPage * kPage;
    s.length = std::min(s.length, kWindow - s.offset);
    const std::uint64_t dice = below(100);
    if (dice < 30) {
      s.kind = Kind::kWrite;
      s.way = static_cast<std::uint8_t>(below(5));
      if (s.way == 4) {
        s.offset = s.offset / kPage * kPage;
        s.length = std::min((s.length + kPage - 1) / kPage * kPage, kWindow - s.offset);
      }
      if (s.way == 3 && below(4) != 0) s.way = 0;
    } else if (dice < 35) {
      s.kind = Kind::kAppend;
      s.offset = size;
      s.length = std::min(s.length, kWindow - size);
      s.way = below(2) == 0 ? 0 : 2;
      if (s.length == 0) s.kind = Kind::kReopen;
    } else if (dice < 45) {
      s.kind = Kind::kTruncate;
      // Mostly near where the end is, so that files keep their bytes.
      s.offset = below(8) == 0   ? below(kWindow)
                 : below(2) == 0 ? std::min(size + below(4 * kPage), kWindow)
                                 : size - std::min(size, below(6 * kPage));
      s.length = 0;
    } else if (dice < 62) {
      s.kind = Kind::kStore;
      if (s.offset >= size) {
        s.kind = Kind::kFsync;
      } else {
        s.length = std::min(s.length, size - s.offset);
      }
    } else if (dice < 67) {
      s.kind = Kind::kPunch;
    } else if (dice < 71) {
      s.kind = Kind::kZero;
    } else if (dice < 73) {
      s.kind = below(2) == 0 ? Kind::kAllocate : Kind::kReserve;
    } else if (dice < 83) {
      s.kind = Kind::kCopy;
      s.source = static_cast<std::uint8_t>(below(2));
      const File& from = state->files[s.source];
      s.from = from.size == 0 ? 0 : below(from.size);
      s.length = std::min({s.length, from.size - s.from, kWindow - s.offset});
      const bool overlaps = s.source == s.file && s.from < s.offset + s.length && s.offset < s.from + s.length;
      if (overlaps || s.length == 0) s.kind = Kind::kMsync;
    } else if (dice < 87) {
      s.kind = Kind::kMsync;
    } else if (dice < 90) {
      s.kind = Kind::kFsync;
    } else if (dice < 95) {
      s.kind = Kind::kSeek;
    } else if (dice < 98) {
      s.kind = Kind::kPrivate;
    } else {
      s.kind = Kind::kReopen;
    }
    if (s.kind == Kind::kMsync) {
      s.length = std::min(s.length, size - std::min(size, s.offset));
      if (s.length == 0) s.kind = Kind::kFsync;
    }
    return s;
  }

  static void whole(const char* what, ssize_t n, std::uint64_t length) {
    if (n < 0) failed(what, errno);
    if (static_cast<std::uint64_t>(n) != length) failed(what, ENODATA);
  }

  void execute(const Step& s) {
    Side& side = *sides_[s.file];
    const auto at = static_cast<off_t>(kBase[s.file] + s.offset);
    const auto length = static_cast<off_t>(s.length);
    const int any = side.descriptor(static_cast<int>(below(3)));
    switch (s.kind) {
      case Kind::kWrite:
      case Kind::kAppend: {
        // Direct writes come from memory on a page, as databases do it, and from anywhere.
        std::uint8_t* from = room_ + (s.way == 4 ? 0 : below(64));
        for (std::uint64_t i = 0; i < s.length; ++i) from[i] = content(s.number, s.offset + i);
        const ssize_t n = s.kind == Kind::kWrite ? ::pwrite(side.descriptor(s.way), from, s.length, at)
                                                 : ::write(side.appender(s.way == 2), from, s.length);
        whole(name_of(s.kind), n, s.length);
        break;
      }
      case Kind::kTruncate:
        if (::ftruncate(any, at) < 0) failed("ftruncate", errno);
        break;
      case Kind::kStore:
        for (std::uint64_t i = 0; i < s.length; ++i) side.map()[s.offset + i] = content(s.number, s.offset + i);
        break;
      case Kind::kPunch:
        if (::fallocate(any, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length) < 0) failed("punch", errno);
        break;
      case Kind::kZero:
        if (::fallocate(any, FALLOC_FL_ZERO_RANGE, at, length) < 0) failed("zero range", errno);
        break;
      case Kind::kAllocate:
        if (::fallocate(any, 0, at, length) < 0) failed("fallocate", errno);
        break;
      case Kind::kReserve:
        if (::fallocate(any, FALLOC_FL_KEEP_SIZE, at, length) < 0) failed("fallocate", errno);
        break;
      case Kind::kCopy: {
        auto from = static_cast<off64_t>(kBase[s.source] + s.from);
        off64_t to = at;
        for (std::uint64_t left = s.length; left > 0;) {
          const ssize_t n =
              ::copy_file_range(sides_[s.source]->descriptor(static_cast<int>(below(2))), &from, any, &to, left, 0);
          if (n <= 0) failed("copy_file_range", n < 0 ? errno : ENODATA);
          left -= static_cast<std::uint64_t>(n);
        }
        break;
      }
      case Kind::kMsync: {
        const std::uint64_t begin = s.offset / kPage * kPage;
        if (::msync(side.map() + begin, s.offset + s.length - begin, MS_SYNC) < 0) failed("msync", errno);
        break;
      }
      case Kind::kFsync:
        if ((below(2) == 0 ? ::fsync(any) : ::fdatasync(any)) < 0) failed("fsync", errno);
        break;
      case Kind::kSeek:
        side.look_at_holes();
        break;
      case Kind::kPrivate:
        store_privately(s, side);
        break;
      case Kind::kReopen:
        side.reopen();
        break;
      case Kind::kNone:
        break;
    }
  }

  void store_privately(const Step& s, Side& side) {
    const File& f = state->files[s.file];
    void* map = ::mmap(nullptr, kWindow, PROT_READ | PROT_WRITE, MAP_PRIVATE, side.descriptor(1),
                       static_cast<off_t>(kBase[s.file]));
    if (map == MAP_FAILED) failed("mmap", errno);
    auto* bytes = static_cast<std::uint8_t*>(map);
    const std::uint64_t end = std::min(s.offset + s.length, f.size);
    for (std::uint64_t at = s.offset; at < end; ++at) {
      if (bytes[at] != f.bytes[at]) wrong("private mapping", s.file, at, bytes[at], f.bytes[at]);
      bytes[at] = static_cast<std::uint8_t>(~f.bytes[at]);
    }
    side.look(static_cast<int>(below(3)), s.offset, end);
    for (std::uint64_t at = s.offset; at < end; ++at) {
      if (bytes[at] != static_cast<std::uint8_t>(~f.bytes[at])) {
        wrong("private mapping after a store", s.file, at, bytes[at], 0xffu & ~f.bytes[at]);
      }
    }
    ::munmap(map, kWindow);
  }

  std::mt19937_64 random_;
  std::unique_ptr<Side> sides_[2] = {std::make_unique<Side>(0), std::make_unique<Side>(1)};
  alignas(kPage) std::uint8_t room_[kWindow + kPage];
};

// ---- after a remount or a death

// B3: what the operation under way may have left.
void settle_under_way(const std::array<std::uint64_t, 2>& sizes) {
  const Step& s = state->last;
  if (s.kind >= Kind::kMsync) return;  // changes nothing
  File& f = state->files[s.file];
  const std::uint64_t end = s.offset + s.length, found = sizes[s.file];
  std::uint64_t low = f.size, high = f.size;
  switch (s.kind) {
    case Kind::kTruncate:
      low = std::min(low, s.offset);
      high = std::max(high, s.offset);
      break;
    case Kind::kWrite:
    case Kind::kAppend:
    case Kind::kCopy:
    case Kind::kZero:
    case Kind::kAllocate:
      high = std::max(high, end);
      break;
    default:
      break;
  }
  if (found < low || found > high) {
    std::printf("FAILED: the size is %llu and must be between %llu and %llu\n", static_cast<unsigned long long>(found),
                static_cast<unsigned long long>(low), static_cast<unsigned long long>(high));
    wrong("size after a death", s.file, std::min(low, kWindow - 1), 0, 0);
  }
  const bool changes = s.kind != Kind::kTruncate && s.kind != Kind::kAllocate && s.kind != Kind::kReserve;
  for (std::uint64_t at = s.offset; changes && at < std::min(end, f.size); ++at) add_value(f, at, value_of(s, at));
  for (std::uint64_t at = f.size; at < found; ++at) {
    set(f, at, changes ? value_of(s, at) : std::uint8_t{0});
    if (s.length > kRequest) add_value(f, at, 0);
  }
  f.size = found;
  ++state->torn;
}

int verify() {
  std::array<std::uint64_t, 2> sizes{};
  std::array<int, 2> fds{};
  for (int file = 0; file < 2; ++file) {
    const auto i = static_cast<std::size_t>(file);
    fds[i] = ::open(path_of(file).c_str(), O_RDONLY | O_CLOEXEC);
    struct stat st {};
    if (fds[i] < 0 || ::fstat(fds[i], &st) < 0) failed("open", errno);
    sizes[i] = static_cast<std::uint64_t>(st.st_size) - kBase[i];
  }
  // An end in order leaves nothing open: the kernel has written everything back.
  const bool died = std::exchange(state->killed, 0) != 0;
  if (state->under_way != 0) settle_under_way(sizes);
  state->under_way = 0;
  for (int file = 0; file < 2; ++file) {
    const auto i = static_cast<std::size_t>(file);
    File& f = state->files[file];
    if (sizes[i] != f.size) {
      std::printf("FAILED: the size is %llu and must be %llu\n", static_cast<unsigned long long>(sizes[i]),
                  static_cast<unsigned long long>(f.size));
      wrong("size", file, std::min(f.size, kWindow - 1), 0, 0);
    }
    static std::uint8_t is[kWindow + 1];
    const ssize_t n = ::pread(fds[i], is, kWindow + 1, static_cast<off_t>(kBase[i]));
    if (n < 0 || static_cast<std::uint64_t>(n) != f.size) failed("read of the whole", n < 0 ? errno : ENODATA);
    for (std::uint64_t at = 0; at < f.size; ++at) {
      if (died ? !may_be(f, at, is[at]) : is[at] != f.bytes[at]) {
        wrong(died && f.open[at] != 0 ? "none of the values it may have" : "through new descriptors", file, at, is[at],
              f.bytes[at]);
      }
      if (died && f.open[at] != 0) {
        ++state->opened;
        ++(is[at] == f.bytes[at] ? state->settled_new : state->settled_old);
      }
      f.bytes[at] = is[at];
    }
    settle(f, 0, kWindow);
    ::close(fds[i]);
  }
  std::printf(
      "%llu operations, all bytes are right; deaths left %llu bytes open (%llu new, %llu older) and %llu calls under "
      "way\n",
      static_cast<unsigned long long>(state->done), static_cast<unsigned long long>(state->opened),
      static_cast<unsigned long long>(state->settled_new), static_cast<unsigned long long>(state->settled_old),
      static_cast<unsigned long long>(state->torn));
  return 0;
}

int work(std::uint64_t seed, std::uint64_t operations) {
  auto runner = std::make_unique<Runner>(seed + state->done);
  for (std::uint64_t i = 0; i < operations; ++i) runner->one();
  runner->look_at_everything();
  return 0;
}

// The daemon is killed while a child works, which a mapped access may end with SIGBUS.
int work_until_killed(std::uint64_t seed, pid_t daemon, std::uint64_t milliseconds) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work(seed, UINT64_MAX));
  ::usleep(static_cast<useconds_t>(std::mt19937_64(seed ^ state->done)() % (milliseconds * 1000)));
  int status = 0;
  if (::waitpid(child, &status, WNOHANG) == child) return 1;  // it has said why
  __atomic_store_n(&state->killed, 1, __ATOMIC_SEQ_CST);
  ::kill(daemon, SIGKILL);
  if (::waitpid(child, &status, 0) != child) return 1;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) return 0;
  std::printf("FAILED: the work ended with status %x\n", static_cast<unsigned>(status));
  return 1;
}

void open_state(const char* path, std::uint64_t seed) {
  const int fd = ::open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0 || ::ftruncate(fd, sizeof(State)) < 0) std::abort();
  void* map = ::mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) std::abort();
  ::close(fd);
  state = static_cast<State*>(map);
  if (state->magic == kMagic) return;
  state->magic = kMagic;
  state->seed = seed;
  for (int file = 0; file < 2; ++file) {
    const int made = ::open(path_of(file).c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (made < 0 || ::ftruncate(made, static_cast<off_t>(kBase[static_cast<std::size_t>(file)])) < 0) {
      std::perror(path_of(file).c_str());
      ::_exit(1);
    }
    ::close(made);
  }
}

}  // namespace
}  // namespace byte_model

int main(int argc, char** argv) {
  const std::string verb = argc > 3 ? argv[1] : "";
  const auto number = [&](int i) { return std::strtoull(argv[i], nullptr, 10); };
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if ((verb == "run" && (argc == 6 || argc == 8)) || (verb == "verify" && argc == 4)) {
    byte_model::directory = argv[2];
    byte_model::open_state(argv[3], argc > 4 ? number(4) : 0);
    if (verb == "verify") return byte_model::verify();
    if (argc == 8) return byte_model::work_until_killed(number(4), static_cast<pid_t>(number(6)), number(7));
    return byte_model::work(number(4), number(5));
  }
  std::fprintf(
      stderr, "usage: byte_model run DIRECTORY STATE SEED OPERATIONS [DAEMON MILLISECONDS] | verify DIRECTORY STATE\n");
  return 2;
}
