// Locks of flock(2), fcntl(2) and open file descriptions, between processes: who waits, who is woken, who is refused,
// and what ends a lock. It prints every answer; two file systems that lock alike print the same.
//
//   lock_check DIRECTORY
//
// Processes act in turn, told over pipes, so what is printed does not depend on who is faster: of a process that is to
// wait "waits" is printed once it is seen inside the system call, and what wakes it comes after.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

namespace {

std::string file;

const char* answer(int result) { return result < 0 ? ::strerrorname_np(errno) : "ok"; }

// What a process is told to do; it answers with a line.
struct Command {
  enum What { kOpen, kClose, kFlock, kPosix, kOfd, kFork } what;
  int slot = 0;  // one of the process's descriptors
  int how = 0;   // flock: LOCK_*; fcntl: F_*LCK
  bool wait = false, ask = false;
  off_t from = 0, length = 0;
};

int fcntl_lock(int fd, const Command& c, std::string& text) {
  struct flock lock {};
  lock.l_type = static_cast<short>(c.how);
  lock.l_whence = SEEK_SET;
  lock.l_start = c.from;
  lock.l_len = c.length;
  const bool ofd = c.what == Command::kOfd;
  const int result = ::fcntl(fd,
                             c.ask    ? (ofd ? F_OFD_GETLK : F_GETLK)
                             : c.wait ? (ofd ? F_OFD_SETLKW : F_SETLKW)
                                      : (ofd ? F_OFD_SETLK : F_SETLK),
                             &lock);
  text = answer(result);
  if (result == 0 && c.ask) {
    // Whose it is: a parent's or another's process number is no fixed text; -1 is an open file description's.
    text = lock.l_type == F_UNLCK ? "free"
                                  : std::string(lock.l_type == F_WRLCK ? "write" : "read") + " " +
                                        std::to_string(lock.l_start) + "+" + std::to_string(lock.l_len) +
                                        (lock.l_pid == -1 ? " by a description"
                                         : lock.l_pid > 0 ? " by a process"
                                                          : " by nobody");
  }
  return result;
}

[[noreturn]] void obey(int in, int out) {
  int fds[4] = {-1, -1, -1, -1};
  for (Command c{}; ::read(in, &c, sizeof c) == sizeof c;) {
    std::string text;
    int& fd = fds[c.slot];
    switch (c.what) {
      case Command::kOpen:
        // `how` 1: a copy of slot 0's descriptor; 2: for reading only.
        fd = c.how == 1 ? ::dup(fds[0]) : ::open(file.c_str(), (c.how == 2 ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        text = answer(fd);
        break;
      case Command::kClose:
        text = answer(::close(fd));
        break;
      case Command::kFlock:
        text = answer(::flock(fd, c.how | (c.wait ? 0 : LOCK_NB)));
        break;
      case Command::kPosix:
      case Command::kOfd:
        fcntl_lock(fd, c, text);
        break;
      case Command::kFork: {
        // A child tries for this process's lock through the inherited descriptor.
        const pid_t pid = ::fork();
        if (pid == 0) {
          Command own = c;
          own.what = c.how == 1 ? Command::kPosix : c.how == 2 ? Command::kOfd : Command::kFlock;
          own.how = own.what == Command::kFlock ? LOCK_EX : F_WRLCK;
          int result;
          if (own.what == Command::kFlock) {
            result = ::flock(fd, LOCK_EX | LOCK_NB);
          } else {
            own.wait = own.ask = false;
            result = fcntl_lock(fd, own, text);
          }
          ::_exit(result == 0 ? 0 : 1);
        }
        int status = 0;
        ::waitpid(pid, &status, 0);
        text = status == 0 ? "the child may" : "the child may not";
        break;
      }
    }
    text += '\n';
    if (::write(out, text.data(), text.size()) < 0) ::_exit(1);
  }
  ::_exit(0);
}

class Process {
 public:
  explicit Process(std::string name) : name_(std::move(name)) {
    int down[2], up[2];
    if (::pipe2(down, O_CLOEXEC) < 0 || ::pipe2(up, O_CLOEXEC) < 0) std::abort();
    std::fflush(stdout);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(down[1]);
      ::close(up[0]);
      obey(down[0], up[1]);
    }
    ::close(down[0]);
    ::close(up[1]);
    to_ = down[1];
    from_ = up[0];
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() { end(); }

  void tell(const std::string& what, const Command& c) {
    std::printf("%s: %s: %s\n", name_.c_str(), what.c_str(), (begin(c), hear(10000)).c_str());
  }
  // It begins to wait, or answers at once.
  void tell_to_wait(const std::string& what, const Command& c) {
    begin(c);
    std::string said;
    int seen = 0;
    for (int i = 0; i < 500 && said.empty() && seen < 3; ++i) {
      said = hear(20);
      seen = in_lock_call() ? seen + 1 : 0;
    }
    std::printf("%s: %s: %s\n", name_.c_str(), what.c_str(), said.empty() ? "waits" : said.c_str());
  }
  void woken() {
    const std::string said = hear(10000);
    std::printf("%s: woken: %s\n", name_.c_str(), said.empty() ? "NOT" : said.c_str());
  }
  void still_waits() {
    const std::string said = hear(100);
    std::printf("%s: %s\n", name_.c_str(), said.empty() ? "still waits" : said.c_str());
  }
  void die(int signal) {
    ::kill(pid_, signal);
    ::waitpid(pid_, nullptr, 0);
    std::printf("%s: dies\n", name_.c_str());
    pid_ = 0;
  }
  void end() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    if (to_ >= 0) ::close(to_);
    if (from_ >= 0) ::close(from_);
    pid_ = 0;
    to_ = from_ = -1;
  }

 private:
  bool in_lock_call() const {
    long call = -1;  // stays so while it runs
    std::ifstream("/proc/" + std::to_string(pid_) + "/syscall") >> call;
    return call == SYS_fcntl || call == SYS_flock;
  }
  void begin(const Command& c) {
    if (::write(to_, &c, sizeof c) != sizeof c) std::abort();
  }
  std::string hear(int milliseconds) {
    std::string text;
    for (;;) {
      pollfd p{from_, POLLIN, 0};
      char byte;
      if (::poll(&p, 1, milliseconds) <= 0 || ::read(from_, &byte, 1) != 1) return "";
      if (byte == '\n') return text;
      text += byte;
    }
  }

  const std::string name_;
  pid_t pid_ = 0;
  int to_ = -1, from_ = -1;
};

Command open_as(int how = 0, int slot = 0) { return {Command::kOpen, slot, how, false, false, 0, 0}; }
Command close_of(int slot = 0) { return {Command::kClose, slot, 0, false, false, 0, 0}; }
Command flock_of(int how, bool wait = false, int slot = 0) { return {Command::kFlock, slot, how, wait, false, 0, 0}; }
Command posix(int how, off_t from = 0, off_t length = 0, bool wait = false, int slot = 0) {
  return {Command::kPosix, slot, how, wait, false, from, length};
}
Command ofd(int how, off_t from = 0, off_t length = 0, bool wait = false, int slot = 0) {
  return {Command::kOfd, slot, how, wait, false, from, length};
}
Command ask(Command c) {
  c.ask = true;
  return c;
}
Command in_child(int how, off_t from = 0, off_t length = 0) {
  return {Command::kFork, 0, how, false, false, from, length};
}

void title(const char* text) { std::printf("== %s\n", text); }

void whole_files() {
  title("flock");
  Process a("a"), b("b"), c("c");
  for (Process* p : {&a, &b, &c}) p->tell("open", open_as());
  a.tell("shared", flock_of(LOCK_SH));
  b.tell("shared", flock_of(LOCK_SH));
  c.tell("exclusive", flock_of(LOCK_EX));
  c.tell_to_wait("exclusive, waiting", flock_of(LOCK_EX, true));
  a.tell("unlock", flock_of(LOCK_UN));
  c.still_waits();
  b.tell("unlock", flock_of(LOCK_UN));
  c.woken();
  a.tell("shared", flock_of(LOCK_SH));
  a.tell_to_wait("shared, waiting", flock_of(LOCK_SH, true));
  c.tell("downgrade", flock_of(LOCK_SH));
  a.woken();
  c.tell("upgrade", flock_of(LOCK_EX));
  c.tell("exclusive after a failed upgrade", flock_of(LOCK_EX));
  b.tell("shared beside them", flock_of(LOCK_SH));
  for (Process* p : {&a, &b, &c}) p->tell("unlock", flock_of(LOCK_UN));

  title("flock: what a lock belongs to");
  a.tell("exclusive", flock_of(LOCK_EX));
  a.tell("its child", in_child(0));
  a.tell("another descriptor", open_as(0, 1));
  a.tell("exclusive there", flock_of(LOCK_EX, false, 1));
  a.tell("a copy", open_as(1, 2));
  a.tell("exclusive there", flock_of(LOCK_EX, false, 2));
  a.tell("close of the other", close_of(1));
  b.tell("exclusive", flock_of(LOCK_EX));
  a.tell("close of the copy", close_of(2));
  b.tell("exclusive", flock_of(LOCK_EX));
  b.tell_to_wait("exclusive, waiting", flock_of(LOCK_EX, true));
  a.tell("close", close_of());
  b.woken();
  c.tell_to_wait("exclusive, waiting", flock_of(LOCK_EX, true));
  b.die(SIGKILL);
  c.woken();
  Process d("d");
  d.tell("open for reading", open_as(2));
  d.tell_to_wait("exclusive, waiting", flock_of(LOCK_EX, true));
  d.die(SIGKILL);  // who waits may die, too
  c.tell("unlock", flock_of(LOCK_UN));
  Process e("e");
  e.tell("open", open_as());
  e.tell("exclusive", flock_of(LOCK_EX));
}

void ranges(bool descriptions) {
  title(descriptions ? "open file descriptions" : "fcntl");
  const auto lock = [descriptions](int how, off_t from = 0, off_t length = 0, bool wait = false, int slot = 0) {
    return descriptions ? ofd(how, from, length, wait, slot) : posix(how, from, length, wait, slot);
  };
  Process a("a"), b("b"), c("c");
  for (Process* p : {&a, &b, &c}) p->tell("open", open_as());
  a.tell("write 0+10", lock(F_WRLCK, 0, 10));
  b.tell("write 10+10", lock(F_WRLCK, 10, 10));
  b.tell("write 9+1", lock(F_WRLCK, 9, 1));
  b.tell("read 0+1", lock(F_RDLCK, 0, 1));
  c.tell("who has 5", ask(lock(F_WRLCK, 5, 1)));
  c.tell("who has 5 for reading", ask(lock(F_RDLCK, 5, 100)));
  c.tell("who has 12 and more", ask(lock(F_WRLCK, 12, 0)));
  c.tell("who has 20", ask(lock(F_WRLCK, 20, 0)));
  a.tell("who has 5, asked by its owner", ask(lock(F_WRLCK, 5, 1)));
  a.tell("unlock the middle", lock(F_UNLCK, 3, 4));
  b.tell("write the middle", lock(F_WRLCK, 3, 4));
  c.tell("who has all", ask(lock(F_WRLCK, 0, 0)));
  c.tell("who has 7 and more", ask(lock(F_WRLCK, 7, 0)));
  a.tell("read over its own", lock(F_RDLCK, 0, 3));
  c.tell("read beside it", lock(F_RDLCK, 0, 3));
  c.tell("who has 0 for writing", ask(lock(F_WRLCK, 0, 1)));
  a.tell("write over what is shared", lock(F_WRLCK, 0, 3));
  for (Process* p : {&a, &b, &c}) p->tell("unlock all", lock(F_UNLCK));

  title("the largest offsets");
  a.tell("write the last byte", lock(F_WRLCK, LLONG_MAX, 1));
  a.tell("write the last byte to the end", lock(F_WRLCK, LLONG_MAX, 0));
  b.tell("who has the end", ask(lock(F_WRLCK, LLONG_MAX - 10, 0)));
  b.tell("write before it", lock(F_WRLCK, LLONG_MAX - 10, 10));
  b.tell("write over it", lock(F_WRLCK, LLONG_MAX - 10, 11));
  b.tell("write from 0 to the end", lock(F_WRLCK, 0, 0));
  a.tell("past the end", lock(F_WRLCK, LLONG_MAX, 2));
  a.tell("before the beginning", lock(F_WRLCK, -1, 1));
  a.tell("backwards", lock(F_WRLCK, 100, -50));
  b.tell("who has 0 and more", ask(lock(F_WRLCK, 0, 200)));
  a.tell("backwards past the beginning", lock(F_WRLCK, 100, -101));
  a.tell("no such type", lock(77));
  for (Process* p : {&a, &b}) p->tell("unlock all", lock(F_UNLCK));

  title("waiting");
  a.tell("write 0+10", lock(F_WRLCK, 0, 10));
  b.tell_to_wait("write 5+10, waiting", lock(F_WRLCK, 5, 10, true));
  c.tell_to_wait("read 0+5, waiting", lock(F_RDLCK, 0, 5, true));
  a.tell("unlock 0+5", lock(F_UNLCK, 0, 5));
  c.woken();
  b.still_waits();
  a.die(SIGKILL);
  b.woken();
  c.tell("who has 5", ask(lock(F_WRLCK, 5, 1)));
  for (Process* p : {&b, &c}) p->tell("unlock all", lock(F_UNLCK));

  title("what a lock belongs to");
  b.tell("write 0+10", lock(F_WRLCK, 0, 10));
  b.tell("its child", in_child(descriptions ? 2 : 1, 0, 10));
  b.tell("another descriptor", open_as(0, 1));
  b.tell("write there", lock(F_WRLCK, 0, 10, false, 1));
  b.tell("close of the other", close_of(1));
  c.tell("who has it", ask(lock(F_WRLCK, 0, 10)));  // fcntl: nobody any more, as POSIX says
  b.tell("write 0+10", lock(F_WRLCK, 0, 10));
  b.tell("a copy", open_as(1, 2));
  b.tell("close of the copy", close_of(2));
  c.tell("who has it", ask(lock(F_WRLCK, 0, 10)));
  c.tell_to_wait("write, waiting", lock(F_WRLCK, 0, 0, true));
  b.tell("close", close_of());
  if (descriptions) {
    c.woken();
  } else {
    c.still_waits();  // it was woken before, by the close of the copy
  }
  Process reader("reader");
  reader.tell("open for reading", open_as(2));
  reader.tell("write without the right to write", lock(F_WRLCK, 100, 1));
  c.tell("unlock all", lock(F_UNLCK));
  reader.tell("read", lock(F_RDLCK, 100, 1));
}

void deadlocks() {
  title("fcntl deadlocks");
  Process a("a"), b("b"), c("c");
  for (Process* p : {&a, &b, &c}) p->tell("open", open_as());
  a.tell("write 0+1", posix(F_WRLCK, 0, 1));
  b.tell("write 1+1", posix(F_WRLCK, 1, 1));
  c.tell("write 2+1", posix(F_WRLCK, 2, 1));
  a.tell_to_wait("write 1+1, waiting", posix(F_WRLCK, 1, 1, true));
  b.tell_to_wait("write 2+1, waiting", posix(F_WRLCK, 2, 1, true));
  c.tell("write 0+1, waiting", posix(F_WRLCK, 0, 1, true));  // EDEADLK
  c.tell("unlock", posix(F_UNLCK, 2, 1));
  b.woken();
  b.tell("unlock", posix(F_UNLCK, 1, 1));
  a.woken();
}

void together() {
  title("different kinds of locks");
  Process a("a"), b("b");
  for (Process* p : {&a, &b}) p->tell("open", open_as());
  a.tell("flock", flock_of(LOCK_EX));
  b.tell("fcntl beside it", posix(F_WRLCK));
  b.tell("another descriptor", open_as(0, 1));
  b.tell("a description's over the process's own", ofd(F_WRLCK, 0, 0, false, 1));
  a.tell("a description's", ofd(F_WRLCK));
  a.tell("who has it", ask(ofd(F_WRLCK)));
  b.tell("unlock", posix(F_UNLCK));
  a.tell("a description's", ofd(F_WRLCK));
  b.tell("who has it", ask(posix(F_WRLCK)));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  file = std::string(argv[1]) + "/locked";
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0 || ::write(fd, "x", 1) != 1) return 2;
  ::close(fd);
  whole_files();
  ranges(false);
  ranges(true);
  deadlocks();
  together();
  return 0;
}
