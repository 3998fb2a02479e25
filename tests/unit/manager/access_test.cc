// Access times: what a read does to them, and when that is written.
#include "fixture.h"

#include <thread>

namespace rmemfs {
namespace {

using Rule = AccessTimes::Rule;

MountOptions with(Rule rule, bool directories = true) {
  MountOptions options;
  options.manager.access_times = {rule, directories};
  return options;
}

constexpr Timestamp kLongAgo{1000, 5};

// The file as if nothing had happened to it since, and was last read at `read`.
void age(Mount& m, const InodeRef& inode, Timestamp read) {
  AttributeChange change;
  change.mtime = change.ctime = kLongAgo;
  change.atime = read;
  m.must(m.manager->set_attributes(inode, change, 0));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(access_times)

BOOST_AUTO_TEST_CASE(relatime_counts_the_first_read_after_a_change_and_one_a_day) {
  Fixture fixture;
  const auto m = fixture.mount();
  const InodeRef file = m->file(m->root(), "file");
  const Attributes made = m->attributes(file);
  m->manager->accessed(file);
  const Attributes read = m->attributes(file);
  BOOST_CHECK(read.atime > made.atime);
  BOOST_CHECK(read.mtime == made.mtime && read.ctime == made.ctime);
  m->manager->accessed(file);
  BOOST_CHECK(m->attributes(file).atime == read.atime);

  // Only a change of the attributes.
  m->must(m->manager->set_attributes(file, AttributeChange{.mode = 0600}, 0));
  m->manager->accessed(file);
  const Attributes again = m->attributes(file);
  BOOST_CHECK(again.atime > read.atime);

  Timestamp recently = now_timestamp();
  recently.seconds -= 24 * 60 * 60 - 100;
  age(*m, file, recently);
  m->manager->accessed(file);
  BOOST_CHECK(m->attributes(file).atime == recently);
  recently.seconds -= 200;
  age(*m, file, recently);
  m->manager->accessed(file);
  BOOST_CHECK(m->attributes(file).atime >= again.atime);
  // A time set to the future stays, as long as it is later than the changes.
  Timestamp future = now_timestamp();
  future.seconds += 1000000;
  age(*m, file, future);
  m->manager->accessed(file);
  BOOST_CHECK(m->attributes(file).atime == future);
}

BOOST_AUTO_TEST_CASE(strictatime_counts_each_read_and_noatime_none) {
  Fixture fixture;
  for (const Rule rule : {Rule::kAlways, Rule::kNever}) {
    const auto m = fixture.mount(with(rule));
    const InodeRef file = m->file(m->root(), rule == Rule::kNever ? "never" : "always");
    Timestamp last = m->attributes(file).atime;
    for (int i = 0; i < 3; ++i) {
      m->manager->accessed(file);
      BOOST_CHECK((m->attributes(file).atime > last) == (rule == Rule::kAlways));
      last = m->attributes(file).atime;
    }
  }
}

BOOST_AUTO_TEST_CASE(nodiratime_is_about_directories) {
  Fixture fixture;
  const auto m = fixture.mount(with(Rule::kAlways, false));
  const InodeRef file = m->file(m->root(), "file"), directory = m->directory(m->root(), "directory");
  const Attributes before[] = {m->attributes(file), m->attributes(directory)};
  m->manager->accessed(file);
  m->manager->accessed(directory);
  BOOST_CHECK(m->attributes(file).atime > before[0].atime);
  BOOST_CHECK(m->attributes(directory).atime == before[1].atime);
}

BOOST_AUTO_TEST_CASE(reads_make_no_transaction_and_their_times_are_there_after_the_end) {
  Fixture fixture({.pool_bytes = 3u << 20});  // nothing is leased ahead
  constexpr int kFiles = 100;
  std::vector<Timestamp> times;
  {
    const auto m = fixture.mount(with(Rule::kAlways));
    std::vector<InodeRef> files;
    for (int i = 0; i < kFiles; ++i) files.push_back(m->file(m->root(), std::to_string(i)));
    const CommitId before = m->store.journal->last_id();
    for (int round = 0; round < 3; ++round) {
      for (const InodeRef& file : files) m->manager->accessed(file);
    }
    BOOST_CHECK(m->store.journal->last_id() == before);
    for (const InodeRef& file : files) times.push_back(m->attributes(file).atime);
    // One that is gone by then.
    m->must(m->manager->unlink(m->root(), "0", 0));
    m->must(m->manager->purge(files[0]->ino));
    const CommitId unlinked = m->store.journal->last_id();
    m->manager->close();
    // Several inodes to a transaction.
    BOOST_CHECK_LE(m->store.journal->last_id().value() - unlinked.value(), kFiles / 4u);
  }
  const auto m = fixture.mount();
  BOOST_CHECK(m->lookup_error(m->root(), "0") == Errc::kNotFound);
  for (int i = 1; i < kFiles; ++i) {
    BOOST_CHECK(m->attributes(m->find(m->root(), std::to_string(i))).atime == times[static_cast<std::size_t>(i)]);
  }
}

BOOST_AUTO_TEST_CASE(fsync_and_other_changes_write_the_time_along) {
  Fixture fixture({.pool_bytes = 3u << 20});  // nothing is leased ahead
  const auto m = fixture.mount();
  const InodeRef file = m->file(m->root(), "file");
  const auto recorded = [&] {
    const std::string key = inode_key(file->ino);
    return decode_inode(key, **m->store.metastore->get(key))->atime;
  };
  m->manager->accessed(file);
  BOOST_CHECK(recorded() < m->attributes(file).atime);
  m->must(m->manager->persist(file));
  BOOST_CHECK(recorded() == m->attributes(file).atime);
  const CommitId once = m->store.journal->last_id();
  m->must(m->manager->persist(file));
  BOOST_CHECK(m->store.journal->last_id() == once);
  m->write(file, 0, 10);
  m->manager->accessed(file);
  m->write(file, 10, 10);
  BOOST_CHECK(recorded() == m->attributes(file).atime);
}

BOOST_AUTO_TEST_CASE(many_are_written_without_waiting_for_the_end) {
  Fixture fixture;
  const auto m = fixture.mount();
  std::vector<InodeRef> files;
  for (int i = 0; i < 1100; ++i) files.push_back(m->file(m->root(), std::to_string(i)));
  const auto written = [&] {
    std::size_t count = 0;
    for (const InodeRef& file : files) {
      const std::string key = inode_key(file->ino);
      count += decode_inode(key, **m->store.metastore->get(key))->atime == m->attributes(file).atime;
    }
    return count;
  };
  for (const InodeRef& file : files) m->manager->accessed(file);
  const TimePoint limit = deadline_after_ms(10000);
  while (written() < 1024 && MonoClock::now() < limit) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  BOOST_CHECK_GE(written(), 1024u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
