// A load of metadata and data operations by several processes, with a log kept outside the file system, and the check
// of a tree against that log.
//
//   crash_load run ROOT LOG SEED WORKERS SECONDS [MARK]
//     until SECONDS passed, SIGTERM came or the mount died; 0 in each case
//     MARK: a file that whoever kills the mount makes before; an operation that fails earlier fails the run
//   crash_load verify ROOT LOG
//     0: all acknowledged operations are there; 1: something is not
//
// Each worker has a directory ROOT/wI and a log LOG.I. "try" is written before the call and "ack" after it returned,
// each by one write(2): the log outlives the death of any process. Logs without acknowledged operations, of half of the
// workers, fail the check. An error while the mount is alive fails the run (status 1): I/O waits for a node that comes
// back, it does not fail.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>

#include "crash_model.h"

namespace crash {
namespace {

constexpr std::size_t kMaxFileBytes = 512 << 10;
// Of one worker's tree. A fast file system meets them soon, and must still be left with files of every age.
constexpr std::size_t kMinFiles = 20;
constexpr std::size_t kMaxFiles = 80;
constexpr std::size_t kMaxDirectories = 30;
constexpr std::size_t kMaxSymlinks = 30;

volatile sig_atomic_t stop = 0;
void on_signal(int) { stop = 1; }

class Chooser {
 public:
  Chooser(std::uint64_t seed, const Tree& tree) : random_(seed), tree_(tree) {}

  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }

  std::optional<Operation> next(std::uint64_t number) {
    Operation op;
    op.number = number;
    const std::string file = any('f');
    if (below(8) == 0) return attributes(op, below(3) ? file : any('d'));
    const std::uint64_t dice = below(100);
    const std::size_t files = count('f');
    if (files < 4 || dice < 12) {
      return files < kMaxFiles ? with(op, "create", fresh(), "-", dice % 2 ? 0644 : 0600) : with(op, "unlink", file);
    }
    if (dice < 15) return count('d') < kMaxDirectories ? with(op, "mkdir", fresh(), "-", 0755) : remove_directory(op);
    if (dice < 18) {
      return count('l') < kMaxSymlinks ? with(op, "symlink", fresh(), "../target-" + std::to_string(number))
                                       : with(op, "unlink", any('l'));
    }
    if (dice >= 82 && dice < 88) {
      const std::string name = below(4) && files > kMinFiles ? file : any('l');
      return name.empty() ? std::nullopt : with(op, "unlink", name);
    }
    if (dice >= 99) return remove_directory(op);
    if (dice >= 97) return rename_directory(op);
    if (file.empty()) return std::nullopt;
    const std::size_t size = tree_.at(file)->data.size();
    if (dice < 48) {
      std::uint64_t offset = below(std::min(size + 20000, kMaxFileBytes - 1));
      if (below(2)) offset &= ~std::uint64_t{4095};
      return with(op, "write", file, "-", offset, std::min<std::uint64_t>(length(), kMaxFileBytes - offset));
    }
    if (dice < 56) return size < kMaxFileBytes / 2 ? with(op, "append", file, "-", length()) : std::nullopt;
    if (dice < 66) return with(op, "fsync", file);
    if (dice < 71) return with(op, "truncate", file, "-", below(size + 9000));
    if (dice < 74) return with(op, "punch", file, "-", below(size + 1), 1 + below(20000));
    if (dice < 77) return with(op, "chmod", file, "-", 0600 + below(64));
    if (dice < 79) return with(op, "utime", file, "-", 1000000000 + below(500000000));
    if (dice < 82) return with(op, "link", file, fresh());
    if (dice < 92) return with(op, "rename", file, fresh());
    if (dice < 95) return two_files(op, file, "rename");
    return two_files(op, file, "exchange");
  }

 private:
  static std::optional<Operation> with(Operation op, const char* verb, std::string a, std::string b = "-",
                                       std::uint64_t x = 0, std::uint64_t y = 0) {
    op.verb = verb;
    op.a = std::move(a);
    op.b = std::move(b);
    op.x = x;
    op.y = y;
    return op;
  }

  // Extended attributes and access lists, and files that get their name last.
  std::optional<Operation> attributes(const Operation& op, const std::string& path) {
    if (below(5) == 0) {
      return count('f') < kMaxFiles ? with(op, "tmpfile", fresh(), "-", below(2) ? 0644 : 0600, below(10000))
                                    : std::nullopt;
    }
    if (path.empty()) return std::nullopt;
    const Object& object = *tree_.at(path);
    const std::uint64_t name = below(3);
    if (object.attributes.count("user.n" + std::to_string(name)) && below(2))
      return with(op, "delattr", path, "-", name);
    if (below(2)) return with(op, "setattr", path, "-", name, below(10) ? below(100) : below(900));
    if (object.kind == 'd' && below(4)) {
      return object.default_user >= 0 && below(4) == 0 ? with(op, "nodefault", path)
                                                       : with(op, "default", path, "-", below(8));
    }
    if (object.access_user >= 0 && below(3) == 0) return with(op, "noaccess", path);
    return with(op, "access", path, "-", below(8), (object.kind == 'd' ? 0700 : 0600) + below(64));
  }

  std::optional<Operation> rename_directory(const Operation& op) {
    const std::string dir = any('d');
    if (dir.empty()) return std::nullopt;
    return with(op, "rename", dir, "d" + std::to_string(op.number));
  }

  std::optional<Operation> remove_directory(const Operation& op) {
    std::vector<std::string> found;
    for (const auto& [path, object] : tree_) {
      if (object->kind != 'd') continue;
      const std::string inside = path + "/";
      const auto next = tree_.lower_bound(inside);
      if (next == tree_.end() || next->first.compare(0, inside.size(), inside) != 0) found.push_back(path);
    }
    if (found.empty()) return std::nullopt;
    return with(op, "rmdir", found[below(found.size())]);
  }

  std::optional<Operation> two_files(const Operation& op, const std::string& file, const char* verb) {
    std::string second = any('f');
    if (second == file) return std::nullopt;
    return with(op, verb, file, second);
  }

  std::uint64_t length() {
    std::uint64_t dice = below(100);
    return 1 + below(dice < 60 ? 8192 : dice < 92 ? 65536 : 400000);
  }

  std::size_t count(char kind) const {
    return static_cast<std::size_t>(
        std::count_if(tree_.begin(), tree_.end(), [kind](const auto& entry) { return entry.second->kind == kind; }));
  }

  std::string any(char kind) {
    std::vector<const std::string*> found;
    for (const auto& [path, object] : tree_)
      if (object->kind == kind) found.push_back(&path);
    return found.empty() ? "" : *found[below(found.size())];
  }

  std::string fresh() {
    std::string dir = below(3) ? any('d') : "";
    if (std::count(dir.begin(), dir.end(), '/') > 3) dir.clear();
    return (dir.empty() ? "" : dir + "/") + "n" + std::to_string(below(1u << 30));
  }

  std::mt19937_64 random_;
  const Tree& tree_;
};

void put(int fd, const std::string& line) {
  if (::write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) std::abort();
}

// What a call may end with when the mount dies under it.
bool is_death(int error) { return error == ENOTCONN || error == ECONNABORTED || error == EIO; }

// Dead means that the whole mount is: one failed operation on a live mount is a finding.
bool mount_is_dead(const std::string& root) {
  for (int i = 0; i < 40; ++i) {
    struct statfs st {};
    if (::statfs(root.c_str(), &st) < 0 && (errno == ENOTCONN || errno == ECONNABORTED)) return true;
    ::usleep(50000);
  }
  return false;
}

int work(const std::string& root, const std::string& log, std::uint64_t seed, unsigned worker, double until,
         const std::string& mark) {
  const std::string base = root + "/w" + std::to_string(worker);
  int fd =
      ::open((log + "." + std::to_string(worker)).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return 1;
  // Looked at before anything else: a mark that is made later does not excuse what failed already.
  const auto excused = [&](int error) {
    const bool killed = mark.empty() || ::access(mark.c_str(), F_OK) == 0;
    return killed && is_death(error) && mount_is_dead(root);
  };
  if (::mkdir(base.c_str(), 0755) < 0) {
    const int error = errno;
    if (excused(error)) return 0;
    std::fprintf(stderr, "mkdir %s: %s\n", base.c_str(), std::strerror(error));
    return 1;
  }
  Tree tree;
  Chooser chooser(seed * 1000 + worker, tree);
  for (std::uint64_t number = 1; !stop; ++number) {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    if (static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9 > until) break;
    auto op = chooser.next(number);
    if (!op) continue;
    put(fd, "try " + to_line(*op) + "\n");
    int error = execute(base, *op, worker);
    if (error != 0) {
      if (excused(error)) return 0;
      std::fprintf(stderr, "worker %u: %s: %s\n", worker, to_line(*op).c_str(), std::strerror(error));
      return 1;
    }
    put(fd, "ack " + std::to_string(number) + "\n");
    apply(tree, *op, worker);
  }
  return 0;
}

int run(const std::string& root, const std::string& log, std::uint64_t seed, unsigned workers, double seconds,
        const std::string& mark) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigaction(SIGTERM, &action, nullptr);
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const double until = static_cast<double>(now.tv_sec) + seconds;
  if (::mkdir(root.c_str(), 0755) < 0 && errno != EEXIST) return mount_is_dead(root) ? 0 : 1;
  std::vector<pid_t> children;
  for (unsigned worker = 0; worker < workers; ++worker) {
    pid_t pid = ::fork();
    if (pid == 0) ::_exit(work(root, log, seed, worker, until, mark));
    children.push_back(pid);
  }
  int failed = 0;
  for (pid_t pid : children) {
    int status = 0;
    bool told = false;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
      for (pid_t child : children)
        if (!told) ::kill(child, SIGTERM);
      told = true;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) failed = 1;
  }
  return failed;
}

int verify(const std::string& root, const std::string& log) {
  std::uint64_t acknowledged = 0, pending = 0, bad = 0, idle = 0, workers = 0;
  for (unsigned worker = 0;; ++worker) {
    std::ifstream in(log + "." + std::to_string(worker));
    if (!in) break;
    ++workers;
    Tree tree;
    Operation last;
    bool open = false;
    std::uint64_t acks = 0;
    for (std::string line; std::getline(in, line);) {
      if (line.rfind("try ", 0) == 0) {
        if (!from_line(line.substr(4), last)) return 2;
        open = true;
      } else if (line.rfind("ack ", 0) == 0) {
        apply(tree, last, worker);
        open = false;
        ++acks;
      }
    }
    acknowledged += acks;
    if (acks == 0) ++idle;
    const std::string base = root + "/w" + std::to_string(worker);
    struct stat st {};
    if (acks == 0 && ::lstat(base.c_str(), &st) < 0 && errno == ENOENT) continue;
    std::vector<std::string> problems;
    if (open) {
      ++pending;
      Tree after = deep_copy(tree);
      apply(after, last, worker);
      // A write in flight may be there in part; everything else is there as a whole or not at all.
      const bool data =
          last.verb == "write" || last.verb == "append" || last.verb == "truncate" || last.verb == "punch";
      const std::string torn = data ? last.a : "";
      problems = differences(base, tree, torn, after);
      if (!problems.empty()) {
        auto second = differences(base, after, torn, tree);
        if (second.size() < problems.size()) problems = second;
      }
    } else {
      problems = differences(base, tree, "", {});
    }
    for (const auto& problem : problems)
      std::printf("worker %u: %s%s\n", worker, problem.c_str(),
                  open ? (" [in flight: " + to_line(last) + "]").c_str() : "");
    bad += problems.size();
  }
  std::printf("acknowledged=%llu in_flight=%llu problems=%llu\n", static_cast<unsigned long long>(acknowledged),
              static_cast<unsigned long long>(pending), static_cast<unsigned long long>(bad));
  // The processors are few: a worker may not have had its turn when the mount was killed early. Most must have.
  const bool proves = acknowledged > 0 && 2 * idle < workers;
  if (!proves) {
    std::printf("%llu of %llu workers had no operation acknowledged: this proves nothing\n",
                static_cast<unsigned long long>(idle), static_cast<unsigned long long>(workers));
  }
  return bad == 0 && proves ? 0 : 1;
}

}  // namespace
}  // namespace crash

int main(int argc, char** argv) {
  ::umask(0);
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "run" && (argc == 7 || argc == 8))
    return crash::run(argv[2], argv[3], std::strtoull(argv[4], nullptr, 10), static_cast<unsigned>(std::atoi(argv[5])),
                      std::atof(argv[6]), argc == 8 ? argv[7] : "");
  if (verb == "verify" && argc == 4) return crash::verify(argv[2], argv[3]);
  std::fprintf(stderr, "usage: crash_load run ROOT LOG SEED WORKERS SECONDS [MARK] | crash_load verify ROOT LOG\n");
  return 2;
}
