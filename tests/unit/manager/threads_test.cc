// Several lanes at once: each thread has its own executor, as lanes do.
#include <malloc.h>

#include <random>
#include <thread>

#include "fixture.h"
#include "tree_check.h"

namespace rmemfs {
namespace {

// Outcomes that a race between threads explains; anything else is a failure.
bool expected(const Error& error) {
  switch (error.code) {
    case Errc::kNotFound:
    case Errc::kExists:
    case Errc::kNotEmpty:
    case Errc::kIsDirectory:
    case Errc::kNotDirectory:
    case Errc::kInvalid:
    case Errc::kNoSpace:
      return true;
    default:
      return false;
  }
}

class Worker {
 public:
  Worker(Mount& mount, unsigned seed) : manager_(*mount.manager), root_(mount.root()), random_(seed) {}

  void run(int steps) {
    for (int i = 0; i < steps; ++i) step();
  }
  std::size_t done = 0;
  std::string failure;

 private:
  InodeRef folder() {
    auto found = manager_.lookup(*root_, "d" + std::to_string(random_() % 4));
    return found.ok() && S_ISDIR(manager_.attributes(**found).mode) ? *found : root_;
  }
  std::string name() { return "n" + std::to_string(random_() % 8); }
  template <typename T>
  void note(const Result<T>& result) {
    if (result.ok())
      ++done;
    else if (!expected(result.error()) && failure.empty())
      failure = result.error().message();
  }
  void forget(Result<InodeRef> gone) {
    note(gone);
    if (gone.ok() && *gone && manager_.attributes(**gone).nlink == 0) note(loop_.run(manager_.purge((*gone)->ino)));
  }

  void step() {
    const InodeRef in = folder(), to = folder();
    const std::string a = name(), b = name();
    switch (random_() % 8) {
      case 0:
        note(loop_.run(manager_.make_node(root_, "d" + std::to_string(random_() % 4), {.mode = S_IFDIR | 0755}, 0)));
        break;
      case 1:
        note(loop_.run(manager_.make_node(in, a, {.mode = S_IFREG | 0644}, 0)));
        break;
      case 2:
        forget(loop_.run(manager_.unlink(in, a, 0)));
        break;
      case 3:
        forget(loop_.run(manager_.rename(in, a, to, b, RenameMode::kReplace, 0)));
        break;
      case 4:
        note(loop_.run(manager_.rename(in, a, to, b, RenameMode::kExchange, 0)));
        break;
      case 5:
        forget(loop_.run(manager_.rmdir(root_, "d" + std::to_string(random_() % 4), 0)));
        break;
      case 6:
        note(manager_.read_directory(*in, 0, 100));
        break;
      default:
        note(loop_.run(write(manager_.lookup(*in, a))));
        break;
    }
  }
  Task<Result<void>> write(Result<InodeRef> found) {
    if (!found.ok()) co_return found.error();
    const InodeRef inode = *found;
    if (!S_ISREG(manager_.attributes(*inode).mode)) co_return success();
    const auto guard = co_await inode->range_lock.lock(0, UINT64_MAX, RangeLock::Mode::kExclusive, kNoDeadline);
    if (manager_.attributes(*inode).nlink == 0) co_return success();
    if (random_() % 3 == 0) {
      const auto cut = co_await manager_.truncate(inode, random_() % 50000, {}, 0);
      if (!cut.ok()) co_return cut.error();
      co_return success();
    }
    const auto plan =
        co_await manager_.plan_write(inode, random_() % 100000, 1 + random_() % 20000, deadline_after_ms(10000));
    if (!plan.ok()) co_return plan.error();
    co_return co_await manager_.commit_write(inode, *plan, SetId::kKeep, 0);
  }

  Manager& manager_;
  const InodeRef root_;
  std::mt19937 random_;
  LoopExecutor loop_;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(threads)

BOOST_AUTO_TEST_CASE(lanes_that_change_the_same_directories_leave_a_consistent_tree) {
  Fixture fixture({.pool_bytes = 32u << 20, .journal = {1024, 512}});
  MountOptions options;
  options.recover.journal.apply_interval_ms = 1;
  options.manager.inode_cache_entries = 64;
  const auto m = fixture.mount(options);
  constexpr unsigned kThreads = 3;
  std::vector<std::string> failures(kThreads);
  std::vector<std::size_t> done(kThreads);
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        Worker worker(*m, i + 1);
        worker.run(2000);
        failures[i] = worker.failure;
        done[i] = worker.done;
      });
    }
  }
  for (unsigned i = 0; i < kThreads; ++i) {
    BOOST_CHECK_EQUAL(failures[i], "");
    BOOST_CHECK_GT(done[i], 500u);
  }
  m->must(m->manager->persist_all());
  check_tree(*m);
}

BOOST_AUTO_TEST_CASE(a_cached_inode_costs_less_than_a_kibibyte) {
#ifdef RMEMFS_SANITIZED
  return;  // a sanitizer's allocator counts otherwise
#endif
  constexpr int kInodes = 20000;
  Fixture fixture;
  Mount m(fixture.dir.path(), fixture.nodes);
  for (int i = 0; i < kInodes; ++i) m.file(m.root(), "file" + std::to_string(i));
  BOOST_REQUIRE(m.store.journal->checkpoint().ok());
  const std::size_t before = ::mallinfo2().uordblks;
  // What the cache holds is what its destruction gives back.
  m.manager->close();
  m.manager.reset();
  const std::size_t after = ::mallinfo2().uordblks;
  const std::size_t each = (before - after) / kInodes;
  BOOST_TEST_MESSAGE(each << " bytes for each inode; sizeof(Inode) is " << sizeof(Inode));
  BOOST_CHECK_LT(each, 1024u);
  BOOST_CHECK_GE(each, sizeof(Inode));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
