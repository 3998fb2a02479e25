// Times of a file that is written in place: one transaction for each clock tick, and nothing else is hidden by it.
#include <functional>
#include <thread>

#include "fixture.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kBlock = kBlockBytes;

struct Times : Fixture {
  Times() : Fixture({.pool_bytes = 3u << 20}) {}  // too little for leasing ahead: no transaction but the file's
  std::unique_ptr<Mount> m = mount();
  InodeRef f = m->file(m->root(), "f");

  WritePlan plan(std::uint64_t offset, std::uint64_t length) {
    return m->must(m->manager->plan_write(f, offset, length, deadline_after_ms(10000)));
  }
  void commit(const WritePlan& p, SetId set_id = SetId::kKeep) { m->must(m->manager->commit_write(f, p, set_id, 0)); }
  Attributes at() { return m->attributes(f); }
  // How many `work` makes.
  std::uint64_t transactions(const std::function<void()>& work) {
    const auto before = m->store.journal->last_id().value();
    work();
    return m->store.journal->last_id().value() - before;
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(write_times, Times)

BOOST_AUTO_TEST_CASE(overwriting_in_one_tick_is_one_transaction_unless_somebody_looks) {
  commit(plan(0, kBlock));
  const auto overwrite = [&] { commit(plan(0, kBlock)); };
  // A slow machine may pass a tick between two writes: of many pairs some are quick.
  int quick = 0;
  for (int i = 0; i < 50; ++i) {
    (void)at();
    BOOST_CHECK_EQUAL(transactions(overwrite), 1u);  // somebody looked
    if (transactions(overwrite) == 0) ++quick;
  }
  BOOST_CHECK_GT(quick, 0);
  for (int i = 0; i < 20; ++i) {
    const Attributes before = at();
    overwrite();
    const Attributes after = at();
    BOOST_CHECK(after.mtime > before.mtime);
    BOOST_CHECK(after.ctime > before.ctime);
  }
  overwrite();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  BOOST_CHECK_EQUAL(transactions(overwrite), 1u);  // the next tick
}

BOOST_AUTO_TEST_CASE(a_write_after_a_read_is_never_older_than_it) {
  commit(plan(0, kBlock));
  for (int i = 0; i < 20; ++i) {
    commit(plan(0, kBlock));
    m->manager->accessed(f);
    commit(plan(0, kBlock));
    const Attributes now = at();
    BOOST_CHECK(now.mtime >= now.atime);
  }
}

BOOST_AUTO_TEST_CASE(a_tick_hides_no_change_but_time) {
  commit(plan(0, 2 * kBlock));
  const auto write = [&](std::uint64_t offset, std::uint64_t length, SetId set_id = SetId::kKeep) {
    return [this, offset, length, set_id] { commit(plan(offset, length), set_id); };
  };
  commit(plan(0, kBlock));
  BOOST_CHECK_EQUAL(transactions(write(2 * kBlock, kBlock)), 1u);  // longer
  BOOST_CHECK_EQUAL(at().size, 3 * kBlock);
  m->must(m->manager->set_attributes(f, {.mode = S_IFREG | 04755}, 0));
  commit(plan(0, kBlock));
  BOOST_CHECK_EQUAL(transactions(write(0, kBlock, SetId::kClear)), 1u);
  BOOST_CHECK_EQUAL(at().mode & 07777u, 0755u);
  // A time that was set stays only until the next write.
  m->must(m->manager->set_attributes(f, {.mtime = Timestamp{1000, 0}}, 0));
  commit(plan(0, kBlock));
  BOOST_CHECK(at().mtime > (Timestamp{1000, 0}));
  m->must(m->manager->set_attributes(f, {.mtime = Timestamp{4000000000, 0}}, 0));
  commit(plan(0, kBlock));
  BOOST_CHECK(at().mtime < (Timestamp{4000000000, 0}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
