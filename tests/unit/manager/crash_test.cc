// Kills a mount in the middle of its work and looks at what a new one finds. The mount runs in a child process, which
// is this program again with one of the cases of `crash_children` to run (a fork alone would not do: RocksDB's threads
// would be missing in it). The oracle is the parent, which hears of each acknowledged operation through a pipe.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <random>

#include "fixture.h"
#include "tree_check.h"

namespace rmemfs {
namespace {

// What a child is told.
struct Orders {
  int pipe = -1;
  std::string directory;
  std::uint32_t first = 0;
};

// Nothing unless this process was started by run_and_kill().
std::optional<Orders> orders() {
  const char* const pipe = std::getenv("RMEMFS_TEST_PIPE");
  const char* const directory = std::getenv("RMEMFS_TEST_DIRECTORY");
  const char* const first = std::getenv("RMEMFS_TEST_FIRST");
  if (pipe == nullptr || directory == nullptr || first == nullptr) return std::nullopt;
  return Orders{std::atoi(pipe), directory, static_cast<std::uint32_t>(std::atoi(first))};
}

// Runs a case of crash_children and kills it when it has reported `operations` times (or has ended); the reports.
std::vector<std::uint32_t> run_and_kill(const std::string& directory, const std::string& name, std::size_t operations,
                                        std::uint32_t first = 0) {
  int ends[2];
  BOOST_REQUIRE(::pipe(ends) == 0);
  const std::string pipe = std::to_string(ends[1]), start = std::to_string(first),
                    run = "--run_test=crash_children/" + name;
  const pid_t child = ::fork();
  BOOST_REQUIRE(child >= 0);
  if (child == 0) {
    ::close(ends[0]);
    ::setenv("RMEMFS_TEST_PIPE", pipe.c_str(), 1);
    ::setenv("RMEMFS_TEST_DIRECTORY", directory.c_str(), 1);
    ::setenv("RMEMFS_TEST_FIRST", start.c_str(), 1);
    ::execl("/proc/self/exe", "unit_manager", run.c_str(), "--log_level=error", nullptr);
    ::_exit(1);
  }
  ::close(ends[1]);
  std::vector<std::uint32_t> reports;
  std::uint32_t report;
  while (reports.size() < operations && ::read(ends[0], &report, sizeof report) == sizeof report) {
    reports.push_back(report);
  }
  ::kill(child, SIGKILL);
  while (::read(ends[0], &report, sizeof report) == sizeof report) reports.push_back(report);
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  return reports;
}

void say(int pipe, std::uint32_t what) {
  if (::write(pipe, &what, sizeof what) != sizeof what) ::_exit(1);
}

}  // namespace

// Not tests by themselves: the cases of `crash` below run them in child processes; otherwise they do nothing.
BOOST_AUTO_TEST_SUITE(crash_children)

BOOST_AUTO_TEST_CASE(create_and_write) {
  const std::optional<Orders> given = orders();
  if (!given) return;
  const Orders& o = *given;
  MountOptions options;
  options.recover.journal.durable_interval_ms = 20;  // so that the kill hits each stage of a slot's life
  options.recover.journal.apply_interval_ms = 1;
  Mount m(o.directory, make_nodes({.pool_bytes = 32u << 20}), options);
  for (std::uint32_t i = o.first; i < o.first + 1000; ++i) {
    const auto f = m.file(m.root(), std::to_string(i));
    m.write(f, 0, 1 + i % 20000);
    if (i % 3 == 0) {
      const auto gone = m.must(m.manager->unlink(m.root(), std::to_string(i), 0));
      if (i % 2 == 0) m.must(m.manager->purge(gone->ino));
    }
    say(o.pipe, i);
  }
}

BOOST_AUTO_TEST_CASE(truncate_and_purge) {
  const std::optional<Orders> given = orders();
  if (!given) return;
  const Orders& o = *given;
  Mount m(o.directory, make_nodes({.pool_bytes = 16u << 20}));
  const auto f = m.file(m.root(), "f");
  for (std::uint64_t i = 0; i < 1500; ++i) m.write(f, i * 2 * kBlockBytes, 1);
  say(o.pipe, 1);
  m.must(m.manager->truncate(f, 0, {}, 0));
  m.must(m.manager->purge(m.must(m.manager->unlink(m.root(), "f", 0))->ino));
}

BOOST_AUTO_TEST_CASE(rename_to_and_fro) {
  const std::optional<Orders> given = orders();
  if (!given) return;
  const Orders& o = *given;
  MountOptions options;
  options.recover.journal.durable_interval_ms = 10;
  Mount m(o.directory, make_nodes({}), options);
  const auto a = m.directory(m.root(), "a"), b = m.directory(m.root(), "b");
  m.directory(a, "x");
  for (std::uint32_t i = 0; i < 2000; ++i) {
    m.must(m.manager->rename(i % 2 == 0 ? a : b, "x", i % 2 == 0 ? b : a, "x", RenameMode::kReplace, 0));
    say(o.pipe, i);
  }
}

BOOST_AUTO_TEST_CASE(make_and_forget) {
  const std::optional<Orders> given = orders();
  if (!given) return;
  const Orders& o = *given;
  Mount m(o.directory, make_nodes({}));
  for (int i = 0; i < 5000; ++i) {
    const std::string name = std::to_string(i);
    say(o.pipe, static_cast<std::uint32_t>(m.file(m.root(), name)->ino.value()));
    m.must(m.manager->purge(m.must(m.manager->unlink(m.root(), name, 0))->ino));
  }
}

BOOST_AUTO_TEST_CASE(write_and_wait) {
  const std::optional<Orders> given = orders();
  if (!given) return;
  const Orders& o = *given;
  MountOptions options;
  options.recover.journal.durable_interval_ms = 3600000;
  Mount m(o.directory, make_nodes({}), options);
  for (std::uint32_t i = 0; i < 20; ++i) {
    m.write(m.file(m.root(), std::to_string(i)), 0, 5000);
    say(o.pipe, i);
  }
  for (;;) ::pause();  // never closed: nothing reaches the store
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(crash)

BOOST_AUTO_TEST_CASE(every_acknowledged_creation_and_write_is_there_after_a_kill) {
  std::mt19937 random(11);
  Fixture fixture({.pool_bytes = 32u << 20, .journal = {1024, 256}});
  std::uint32_t next = 0;
  std::size_t acknowledged = 0;
  for (int round = 0; round < 6; ++round) {
    const auto reports = run_and_kill(fixture.dir.path(), "create_and_write", 100 + random() % 300, next);
    BOOST_REQUIRE(!reports.empty());
    acknowledged += reports.size();
    // Recovery twice: what the first does, the second finds done.
    auto first = recover(fixture.dir.path(), {.raise_epoch = false});
    BOOST_REQUIRE_MESSAGE(first.ok(), why(first));
    BOOST_REQUIRE(first->journal->close().ok());
    first->journal.reset();
    first->metastore.reset();
    const auto m = fixture.mount();
    for (const std::uint32_t i : reports) {
      auto found = m->manager->lookup(*m->root(), std::to_string(i));
      BOOST_REQUIRE_EQUAL(found.ok(), i % 3 != 0);
      if (found.ok()) BOOST_REQUIRE_EQUAL(m->attributes(*found).size, 1 + i % 20000);
    }
    check_tree(*m);
    m->must(m->manager->purge_orphans());
    BOOST_REQUIRE(m->store.journal->checkpoint().ok());
    BOOST_REQUIRE(!m->store.metastore->iterate("O")->valid());
    // Makes room for the next round.
    for (const auto& entry : m->list(m->root())) {
      if (entry.name[0] == '.') continue;
      m->must(m->manager->purge(m->must(m->manager->unlink(m->root(), entry.name, 0))->ino));
    }
    check_tree(*m);
    next = reports.back() + 2;
  }
  BOOST_REQUIRE(acknowledged > 100);
}

BOOST_AUTO_TEST_CASE(a_kill_in_a_long_truncate_leaves_a_whole_file) {
  for (int round = 0; round < 4; ++round) {
    Fixture fixture({.pool_bytes = 16u << 20});
    const auto reports = run_and_kill(fixture.dir.path(), "truncate_and_purge", 1);
    BOOST_REQUIRE_EQUAL(reports.size(), 1u);
    const auto m = fixture.mount();
    check_tree(*m);
    auto found = m->manager->lookup(*m->root(), "f");
    if (!found.ok()) continue;
    // Nothing lies beyond the end: it would come to light when the file grows.
    const std::uint64_t size = m->attributes(*found).size;
    const auto beyond = m->manager->map(**found, (size + kBlockBytes - 1) / kBlockBytes * kBlockBytes, 1u << 30);
    for (const Piece& piece : *beyond) BOOST_REQUIRE(piece.chunk == nullptr);
  }
}

BOOST_AUTO_TEST_CASE(renames_between_directories_are_never_half_done) {
  Fixture fixture({.journal = {1024, 128}});
  const auto reports = run_and_kill(fixture.dir.path(), "rename_to_and_fro", 400);
  BOOST_REQUIRE(reports.size() >= 400);
  const auto m = fixture.mount();
  check_tree(*m);
  const auto a = m->find(m->root(), "a"), b = m->find(m->root(), "b");
  const bool in_a = m->manager->lookup(*a, "x").ok(), in_b = m->manager->lookup(*b, "x").ok();
  BOOST_CHECK(in_a != in_b);
}

BOOST_AUTO_TEST_CASE(numbers_given_before_a_kill_are_not_given_again) {
  Fixture fixture;
  const auto reports = run_and_kill(fixture.dir.path(), "make_and_forget", 5000);
  const auto m = fixture.mount();
  BOOST_CHECK_GT(m->file(m->root(), "new")->ino.value(), *std::max_element(reports.begin(), reports.end()));
}

BOOST_AUTO_TEST_CASE(reading_a_crashed_directory_shows_the_journal_and_changes_nothing) {
  Fixture fixture;
  const auto reports = run_and_kill(fixture.dir.path(), "write_and_wait", 20);
  BOOST_REQUIRE(reports.size() == 20);
  const auto before = load_superblock(fixture.dir.path())->epoch;
  for (int twice = 0; twice < 2; ++twice) {
    const auto r = recover(fixture.dir.path(), {.read_only = true});
    BOOST_REQUIRE_MESSAGE(r.ok(), why(r));
    BOOST_CHECK(r->journal == nullptr);
    BOOST_CHECK(r->report.replayed >= 40);
    std::size_t names = 0;
    for (const auto it = r->metastore->iterate("D"); it->valid(); it->next()) ++names;
    BOOST_CHECK_EQUAL(names, 20u);
    BOOST_CHECK_EQUAL(*decode_number(**r->metastore->get("Minodes")), 21u);
  }
  BOOST_CHECK(load_superblock(fixture.dir.path())->epoch == before);
}

BOOST_AUTO_TEST_CASE(each_mount_has_a_higher_epoch) {
  Fixture fixture;
  std::uint64_t last = 0;
  for (int i = 0; i < 3; ++i) {
    const auto m = fixture.mount();
    BOOST_CHECK_GT(m->store.superblock.epoch.value(), last);
    last = m->store.superblock.epoch.value();
    BOOST_CHECK(load_superblock(fixture.dir.path())->epoch.value() == last);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
