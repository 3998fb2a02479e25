// The real rmemd: killed, restarted, frozen, and told nonsense.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <thread>

#include "control/unix_socket.h"
#include "tests/unit/memnode/fixture.h"
#include "transport/connection.h"
#include "util/unique_fd.h"

namespace rmemfs::test {
namespace {

// A started program; killed when it goes. `output` reads what it writes to both standard streams.
class Process {
 public:
  explicit Process(std::vector<std::string> words) {
    int ends[2];
    BOOST_REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    output_.reset(ends[0]);
    const UniqueFd write_end(ends[1]);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    BOOST_REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      ::dup2(write_end.get(), 1);
      ::dup2(write_end.get(), 2);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
  }
  ~Process() {
    if (pid_ > 0) (void)end(SIGKILL);
  }
  pid_t pid() const { return pid_; }
  std::string read_line() {
    std::string line;
    char c;
    while (::read(output_.get(), &c, 1) == 1 && c != '\n') line += c;
    return line;
  }
  // Its wait status after `signal` (0: none, it ends by itself).
  int end(int signal) {
    if (signal != 0) ::kill(pid_, signal);
    int status = 0;
    BOOST_REQUIRE(::waitpid(pid_, &status, 0) == pid_);
    pid_ = -1;
    return status;
  }
  // Every thread has stopped when it returns: the signal alone only begins it.
  void freeze() {
    ::kill(pid_, SIGSTOP);
    int status = 0;
    BOOST_REQUIRE(::waitpid(pid_, &status, WUNTRACED) == pid_);
    BOOST_REQUIRE(WIFSTOPPED(status));
  }
  int exit_status() {
    const int status = end(0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = -1;
  UniqueFd output_;
};

struct Place {
  ShmDirectory directory;
  std::string pool = directory / "pool";
  std::string socket = directory / "node.sock";
  std::vector<std::string> command(const std::string& size = "8M") const {
    return {RMEMD_PROGRAM, "--size", size, "--pool", pool, "--listen", "unix:" + socket};
  }
  std::unique_ptr<NodeClient> client() const { return std::move(*NodeClient::make("unix:" + socket)); }
};

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Waits for the line that says that it serves.
std::string ready(Process& node) {
  const std::string line = node.read_line();
  BOOST_REQUIRE_MESSAGE(contains(line, "rmemd: lending "), line);
  return line;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(rmemd_process)

BOOST_AUTO_TEST_CASE(killed_and_restarted_it_has_the_same_regions_generation_and_bytes) {
  Place place;
  const auto who = identity(3);
  const auto client = place.client();
  LeasedRegion region;
  {
    Process node(place.command());
    BOOST_TEST(contains(ready(node), "new, generation "));
    const auto leased = client->lease(who, 1 << 20, 1 << 20, 11, 5000);
    BOOST_REQUIRE_MESSAGE(leased.ok(), (leased.ok() ? "" : leased.error().message()));
    region = *leased;
    UniqueFd file(::open(place.pool.c_str(), O_RDWR | O_CLOEXEC));
    BOOST_REQUIRE(::pwrite(file.get(), "precious", 8, static_cast<off_t>(region.address)) == 8);
    BOOST_TEST(WTERMSIG(node.end(SIGKILL)) == SIGKILL);
  }
  for (int round = 0; round < 3; ++round) {
    Process node(place.command());
    const std::string line = ready(node);
    BOOST_TEST(contains(line, "re-adopted, generation " + std::to_string(region.generation.value()) + ", 1 region"));
    const auto list = client->list(who, 5000);
    BOOST_REQUIRE_MESSAGE(list.ok(), (list.ok() ? "" : list.error().message()));
    BOOST_REQUIRE(list->size() == 1u);
    BOOST_TEST((list->front().id == region.id));
    BOOST_TEST(list->front().key.matches(region.key));
    BOOST_TEST(list->front().tag == 11u);
    char bytes[8];
    UniqueFd file(::open(place.pool.c_str(), O_RDONLY | O_CLOEXEC));
    BOOST_REQUIRE(::pread(file.get(), bytes, 8, static_cast<off_t>(region.address)) == 8);
    BOOST_TEST(std::string(bytes, 8) == "precious");
    // The epoch is remembered, too.
    FileSystemIdentity older = who;
    older.epoch = MountEpoch(2);
    const auto fenced = client->fence(older, 5000);
    BOOST_TEST((!fenced.ok() && fenced.error().code == Errc::kFenced));
    if (round == 1)
      BOOST_TEST(node.end(SIGTERM) == 0);
    else
      BOOST_TEST(WTERMSIG(node.end(SIGKILL)) == SIGKILL);
  }
  BOOST_REQUIRE(::unlink(place.pool.c_str()) == 0);
  Process node(place.command());
  ready(node);
  const auto generation = client->heartbeat(5000);
  BOOST_REQUIRE(generation.ok());
  BOOST_TEST((*generation != region.generation));
  BOOST_TEST(client->list(who, 5000)->empty());
}

BOOST_AUTO_TEST_CASE(frozen_it_gives_deadlines_and_thawed_it_answers) {
  Place place;
  Process node(place.command());
  ready(node);
  const auto client = place.client();
  BOOST_REQUIRE(client->heartbeat(5000).ok());
  node.freeze();
  const auto start = std::chrono::steady_clock::now();
  const auto late = client->heartbeat(300);
  BOOST_TEST((!late.ok() && late.error().code == Errc::kDeadline));
  Process ctl({RMEMCTL_PROGRAM, "node", "describe", "unix:" + place.socket, "--timeout", "400"});
  BOOST_TEST(contains(ctl.read_line(), "deadline"));
  BOOST_TEST(ctl.exit_status() == 4);
  BOOST_TEST((std::chrono::steady_clock::now() - start < std::chrono::seconds(5)));
  ::kill(node.pid(), SIGCONT);
  BOOST_TEST(client->heartbeat(5000).ok());
}

BOOST_AUTO_TEST_CASE(a_bad_command_line_or_place_gets_one_sentence_and_changes_nothing) {
  Place place;
  std::ofstream(place.directory / "precious") << "data";
  struct Row {
    std::vector<std::string> words;
    int status;
    const char* sentence;
  };
  const std::string listen = "unix:" + place.socket;
  const Row rows[] = {
      {{RMEMD_PROGRAM, "--size", "4Q"}, 2, "unknown suffix \"Q\""},
      {{RMEMD_PROGRAM, "--size", "G"}, 2, "is not a size"},
      {{RMEMD_PROGRAM, "--size", "99999999999T"}, 2, "too large"},
      {{RMEMD_PROGRAM, "--bogus"}, 2, "unknown option \"--bogus\""},
      {{RMEMD_PROGRAM, "--size", "1M", "extra"}, 2, "unexpected argument \"extra\""},
      {{RMEMD_PROGRAM, "--size", "1M", "--socket-mode", "9"}, 2, "octal"},
      {{RMEMD_PROGRAM, "--listen", listen}, 2, "give --size"},
      {{RMEMD_PROGRAM, "--size", "1M", "--listen", "tcp://0.0.0.0:0"}, 1, "--insecure"},
      {{RMEMD_PROGRAM, "--size", "1M", "--listen", "bogus"}, 1, "is not unix:PATH"},
      {{RMEMD_PROGRAM, "--size", "1M", "--listen", "rdma://host"}, 1, "the port is missing"},
      {{RMEMD_PROGRAM, "--size", "1M", "--hugepages", "3M"}, 2, "--hugepages"},
      {{RMEMD_PROGRAM, "--size", "1M", "--hugepages", "1G", "--pool", place.pool, "--listen", listen}, 1, "hugetlbfs"},
      {{RMEMD_PROGRAM, "--size", "64G", "--hugepages", "1G", "--listen", listen}, 1, "free huge pages of 1024 MiB"},
      {{RMEMD_PROGRAM, "--size", "1M", "--listen", "unix:" + (place.directory / "precious")}, 1, "not a socket"},
      {{RMEMD_PROGRAM, "--size", "1M", "--pool", place.directory / "precious", "--listen", listen}, 1, "is not a pool"},
      {{RMEMD_PROGRAM, "--size", "16T", "--pool", place.pool, "--listen", listen}, 1, "asked"},
      {{RMEMD_PROGRAM, "--size", "1M", "--listen", listen, "--log", "/nonexistent/log"}, 1, "/nonexistent/log"},
  };
  for (const Row& row : rows) {
    Process node(row.words);
    const std::string line = node.read_line();
    BOOST_TEST_CONTEXT(line) {
      BOOST_TEST(line.starts_with("rmemd: "));
      BOOST_TEST(contains(line, row.sentence));
      BOOST_TEST(node.read_line().empty());
      BOOST_TEST(node.exit_status() == row.status);
    }
  }
  std::string content;
  BOOST_TEST((std::ifstream(place.directory / "precious") >> content && content == "data"));
}

BOOST_AUTO_TEST_CASE(a_second_node_on_the_same_pool_or_socket_is_refused) {
  Place place;
  Process node(place.command());
  ready(node);
  Process second({RMEMD_PROGRAM, "--size", "8M", "--pool", place.pool, "--listen", "unix:" + place.socket + "2"});
  BOOST_TEST(contains(second.read_line(), "held by another rmemd"));
  BOOST_TEST(second.exit_status() == 1);
  Process third({RMEMD_PROGRAM, "--size", "8M", "--listen", "unix:" + place.socket});
  BOOST_TEST(contains(third.read_line(), "served by another process"));
  BOOST_TEST(third.exit_status() == 1);
  BOOST_TEST(place.client()->heartbeat(5000).ok());
}

BOOST_AUTO_TEST_CASE(daemonized_it_returns_once_it_serves_and_ends_on_sigterm) {
  Place place;
  std::vector<std::string> words = place.command();
  const std::string pid_file = place.directory / "pid";
  for (const char* word : {"--daemonize", "--log"}) words.emplace_back(word);
  words.push_back(place.directory / "log");
  words.emplace_back("--pid-file");
  words.push_back(pid_file);
  {
    Process starter(words);
    BOOST_REQUIRE(starter.exit_status() == 0);
  }
  BOOST_TEST(place.client()->heartbeat(5000).ok());
  pid_t pid = 0;
  BOOST_REQUIRE((std::ifstream(pid_file) >> pid && pid > 1));
  {
    Process again(words);  // what the child says and its status reach the one who waits
    BOOST_TEST(contains(again.read_line(), "held by another rmemd"));
    BOOST_TEST(again.exit_status() == 1);
  }
  ::kill(pid, SIGTERM);
  for (int i = 0; i < 200 && ::kill(pid, 0) == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  BOOST_TEST(::kill(pid, 0) != 0);
  BOOST_TEST(::access(pid_file.c_str(), F_OK) != 0);
  BOOST_TEST(::access(place.socket.c_str(), F_OK) != 0);
}

BOOST_AUTO_TEST_CASE(the_ready_descriptor_gets_its_line) {
  Place place;
  int ends[2];
  BOOST_REQUIRE(::pipe(ends) == 0);
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  std::vector<std::string> words = place.command();
  words.emplace_back("--ready-fd");
  words.push_back(std::to_string(write_end.get()));
  Process node(words);
  write_end.reset();
  std::string line;
  char c;
  while (::read(read_end.get(), &c, 1) == 1) line += c;  // to its end: the node closes it
  BOOST_TEST(contains(line, "rmemd: lending 8.0 MiB on unix:"));
  BOOST_TEST(line.back() == '\n');
}

BOOST_AUTO_TEST_CASE(rmemctl_says_what_is_wrong_and_how_it_ended) {
  Place place;
  struct Row {
    std::vector<std::string> words;
    int status;
    const char* sentence;
  };
  const Row rows[] = {
      {{RMEMCTL_PROGRAM}, 2, "say what to ask"},
      {{RMEMCTL_PROGRAM, "status", "--bogus"}, 2, "unknown option \"--bogus\""},
      {{RMEMCTL_PROGRAM, "node", "describe"}, 2, "needs the node's address"},
      {{RMEMCTL_PROGRAM, "node", "describe", "bogus"}, 2, "is not shm:PATH"},
      {{RMEMCTL_PROGRAM, "node", "describe", "unix:" + place.socket}, 4, "cannot be reached"},
      {{RMEMCTL_PROGRAM, "status", place.directory.path()}, 3, "nothing is mounted from here"},
      {{RMEMCTL_PROGRAM, "nodes", place.directory / "none"}, 3, "nothing is mounted from here"},
  };
  for (const Row& row : rows) {
    Process ctl(row.words);
    const std::string line = ctl.read_line();
    BOOST_TEST_CONTEXT(line) {
      BOOST_TEST(line.starts_with("rmemctl: "));
      BOOST_TEST(contains(line, row.sentence));
      BOOST_TEST(ctl.exit_status() == row.status);
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
