// Does many kinds of system calls on a directory and measures the longest of each.
//
//   watchdog DIR SECONDS LIMIT_MS KINDS ALLOWED [FILE...]
//
// KINDS: "all", "io" (only read, write, fsync and mmap of files that are open), or "files": the FILEs, which are there,
// are opened, read and written in place all over, fsynced and closed again and again. ALLOWED: "none" or "errors" (EIO
// and ENOSPC may happen, but not where only names are asked for). Prints "ready" when the files are there, then waits
// for SIGUSR1 or two seconds and begins, so that a script can freeze something in between. Status 0; 1: a call took
// longer than LIMIT_MS or failed with an errno that is not allowed; 2: it could not begin. One thread per kind: a call
// that never returns is seen by the main thread.
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

thread_local sigjmp_buf on_bus;
thread_local bool bus_expected = false;
void bus_error(int) {
  if (bus_expected) siglongjmp(on_bus, 1);
  ::_exit(3);
}

std::int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch()).count();
}

struct Kind {
  std::string name;
  std::function<int(std::uint64_t)> call;  // round -> 0 or errno
  bool names_only = false;                 // no memory node is asked: it never fails
  std::atomic<std::int64_t> began{0};      // of the call under way, 0 when none is
  std::atomic<std::int64_t> longest_us{0};
  std::atomic<std::uint64_t> calls{0}, refused{0};
  std::atomic<int> bad_errno{0};

  void end_call() {
    std::int64_t took = now_us() - began.exchange(0);
    if (took > longest_us) longest_us = took;
  }
};

thread_local Kind* current = nullptr;

// Between two system calls of one kind: the limit is for each.
void next_call() {
  current->end_call();
  current->began = now_us();
}

int result(std::int64_t rc) { return rc < 0 ? errno : 0; }

int open_file(const std::string& path, int flags) { return ::open(path.c_str(), flags | O_CLOEXEC, 0644); }

constexpr std::size_t kFileBytes = 4u << 20;

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) return 2;
  const std::vector<std::string> files(argv + 6, argv + argc);
  if ((std::string(argv[4]) == "files") == files.empty()) return 2;
  const std::string dir = argv[1], kinds_wanted = argv[4];
  const double seconds = std::atof(argv[2]);
  const std::int64_t limit_us = std::atoll(argv[3]) * 1000;
  const bool errors_allowed = std::string(argv[5]) == "errors";

  struct sigaction action {};
  action.sa_handler = bus_error;
  action.sa_flags = SA_NODEFER;
  ::sigaction(SIGBUS, &action, nullptr);
  sigset_t start_signal;
  sigemptyset(&start_signal);
  sigaddset(&start_signal, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &start_signal, nullptr);

  ::mkdir(dir.c_str(), 0755);
  std::vector<char> bytes(kFileBytes, 'w');
  std::vector<int> fds;
  for (const char* name : {"r", "w", "s", "m", "t"}) {
    int fd = open_file(dir + "/" + name, O_RDWR | O_CREAT);
    if (fd < 0 || ::pwrite(fd, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()) ||
        ::fsync(fd) < 0) {
      std::perror(name);
      return 2;
    }
    fds.push_back(fd);
  }
  const int fr = fds[0], fw = fds[1], fs = fds[2], fm = fds[3];
  void* map = ::mmap(nullptr, kFileBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fm, 0);
  if (map == MAP_FAILED) return 2;

  std::vector<std::unique_ptr<Kind>> kinds;
  auto add = [&](const char* name, std::function<int(std::uint64_t)> call) {
    kinds.push_back(std::make_unique<Kind>());
    kinds.back()->name = name;
    kinds.back()->call = std::move(call);
  };
  auto add_of_names = [&](const char* name, std::function<int(std::uint64_t)> call) {
    add(name, std::move(call));
    kinds.back()->names_only = true;
  };
  auto offset = [](std::uint64_t i) { return static_cast<off_t>(i * 7919 % (kFileBytes / 4096) * 4096); };

  for (const std::string& path : files) {
    add(path.substr(path.rfind('/') + 1).c_str(), [&bytes, path](std::uint64_t i) {
      const int fd = open_file(path, O_RDWR);
      if (fd < 0) return errno;
      int error = 0;
      char page[4096];
      for (std::uint64_t k = 0; k < 16 && error == 0; ++k) {
        const auto at = static_cast<off_t>((i * 16 + k) * 7919 % (kFileBytes / sizeof page) * sizeof page);
        next_call();
        ::posix_fadvise(fd, at, sizeof page, POSIX_FADV_DONTNEED);
        const ssize_t got = ::pread(fd, page, sizeof page, at);
        error = got == sizeof page ? 0 : got < 0 ? errno : ENODATA;
        next_call();
        if (error == 0) error = result(::pwrite(fd, bytes.data(), sizeof page, at));
      }
      next_call();
      if (error == 0) error = result(::fsync(fd));
      next_call();
      return ::close(fd) < 0 && error == 0 ? errno : error;
    });
  }
  if (kinds_wanted != "files") {
    add("read", [&](std::uint64_t i) {
      char page[4096];
      ::posix_fadvise(fr, offset(i), 4096, POSIX_FADV_DONTNEED);  // or the kernel's cache would answer
      return result(::pread(fr, page, sizeof page, offset(i)));
    });
    add("write",
        [&](std::uint64_t i) { return result(::pwrite(fw, bytes.data(), 4096 + i % 3 * 100000, offset(i) / 2)); });
    add("write+fsync", [&](std::uint64_t i) {
      int error = result(::pwrite(fs, bytes.data(), 4096, offset(i)));
      next_call();
      return error ? error : result(::fsync(fs));
    });
    add("mmap", [&](std::uint64_t i) {
      auto* page = static_cast<volatile char*>(map) + offset(i);
      ::madvise(const_cast<char*>(page), 4096, MADV_DONTNEED);
      ::posix_fadvise(fm, offset(i), 4096, POSIX_FADV_DONTNEED);
      bus_expected = true;
      if (sigsetjmp(on_bus, 1) != 0) return EIO;
      page[0] = static_cast<char>(i);
      bus_expected = false;
      next_call();
      return result(::msync(const_cast<char*>(page), 4096, MS_SYNC));
    });
  }
  if (kinds_wanted == "all") {
    auto name = [dir](const char* kind, std::uint64_t i) { return dir + "/" + kind + std::to_string(i); };
    add_of_names("create+unlink", [=](std::uint64_t i) {
      int fd = open_file(name("c", i), O_CREAT | O_EXCL | O_WRONLY);
      if (fd < 0) return errno;
      next_call();
      ::close(fd);
      next_call();
      return result(::unlink(name("c", i).c_str()));
    });
    add("new file+write", [=, &bytes](std::uint64_t i) {  // needs new space, so perhaps a lease
      int fd = open_file(name("f", i % 8), O_CREAT | O_TRUNC | O_WRONLY);
      if (fd < 0) return errno;
      next_call();
      int error = result(::write(fd, bytes.data(), bytes.size() / 2));
      next_call();
      return ::close(fd) < 0 && !error ? errno : error;
    });
    add_of_names("stat", [=](std::uint64_t) {
      struct stat st {};
      return result(::stat((dir + "/r").c_str(), &st));
    });
    add_of_names("rename", [=](std::uint64_t i) {
      if (i == 0) return result(::mkdir(name("d", 0).c_str(), 0755));
      return result(::rename(name("d", i - 1).c_str(), name("d", i).c_str()));
    });
    add_of_names("readdir", [=](std::uint64_t) {
      DIR* d = ::opendir(dir.c_str());
      if (!d) return errno;
      errno = 0;
      while (::readdir(d)) next_call();
      int error = errno;
      ::closedir(d);
      return error;
    });
    add_of_names("statfs", [=](std::uint64_t) {
      struct statvfs st {};
      return result(::statvfs(dir.c_str(), &st));
    });
    add("truncate",
        [=](std::uint64_t i) { return result(::truncate((dir + "/t").c_str(), static_cast<off_t>(i % 1000))); });
    add("fallocate", [&, dir](std::uint64_t i) {
      int mode = i % 2 ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0;
      return result(::fallocate(fw, mode, static_cast<off_t>(kFileBytes), 65536));
    });
    add("syncfs", [&](std::uint64_t) { return result(::syncfs(fw)); });
  }

  std::printf("ready\n");
  std::fflush(stdout);
  timespec two{2, 0};
  sigtimedwait(&start_signal, nullptr, &two);

  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (auto& kind : kinds)
    threads.emplace_back([&stop, k = kind.get()] {
      current = k;
      for (std::uint64_t i = 0; !stop;) {
        k->began = now_us();
        int error = k->call(i);
        k->end_call();
        ++k->calls;
        if (error == 0) {
          ++i;  // a rename that failed is tried again from where it stood
        } else if (error == EIO || error == ENOSPC) {
          ++k->refused;
        } else {
          k->bad_errno = error;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    });

  auto stuck = [&](Kind& kind) {
    std::int64_t began = kind.began;
    return began != 0 ? now_us() - began : 0;
  };
  const std::int64_t end = now_us() + static_cast<std::int64_t>(seconds * 1e6);
  while (now_us() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    for (auto& kind : kinds)
      if (stuck(*kind) > limit_us + 5000000) goto finished;  // it is lost already; do not wait for ever
  }
finished:
  stop = true;
  for (std::int64_t patience = now_us() + limit_us + 1000000; now_us() < patience;) {
    bool waiting = false;
    for (auto& kind : kinds) waiting = waiting || kind->began != 0;
    if (!waiting) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  int status = 0;
  for (auto& kind : kinds) {
    std::int64_t longest = std::max<std::int64_t>(kind->longest_us, stuck(*kind));
    bool bad = longest > limit_us || kind->bad_errno != 0 ||
               (kind->refused > 0 && (!errors_allowed || kind->names_only)) || kind->calls == 0;
    std::printf("%-16s calls %7llu  EIO/ENOSPC %6llu  longest %9.1f ms%s%s%s\n", kind->name.c_str(),
                static_cast<unsigned long long>(kind->calls), static_cast<unsigned long long>(kind->refused),
                static_cast<double>(longest) / 1000, stuck(*kind) ? "  STILL IN IT" : "",
                kind->bad_errno ? (std::string("  errno ") + std::strerror(kind->bad_errno)).c_str() : "",
                bad ? "  BAD" : "");
    if (bad) status = 1;
  }
  std::fflush(stdout);
  ::_exit(status);  // a thread may be in a call that does not return
}
