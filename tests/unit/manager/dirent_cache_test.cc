// Names in memory: what is kept, what is forgotten, and that nothing old comes in beside a change.
#include "manager/dirent_cache.h"

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace rmemfs {
namespace {

constexpr std::size_t kNames = 1024;
const InodeNumber kParent{7};

DirentCache::Name name_of(std::string_view name, InodeNumber parent = kParent) {
  return {parent, hash_name(name, 1), name};
}
Dirent dirent(std::uint64_t ino) { return {InodeNumber(ino), 8}; }

// Asks, and answers from a "store".
void read_through(DirentCache& cache, const DirentCache::Name& name, const std::optional<Dirent>& stored) {
  const auto found = cache.find(name);
  BOOST_REQUIRE(!found.known);
  cache.fill(name, found.ticket, stored);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(dirent_cache)

BOOST_AUTO_TEST_CASE(keeps_what_was_read_absence_included) {
  DirentCache cache(kNames);
  read_through(cache, name_of("there"), dirent(12));
  read_through(cache, name_of("absent"), std::nullopt);
  const auto there = cache.find(name_of("there"));
  BOOST_TEST(there.known);
  BOOST_REQUIRE(there.dirent.has_value());
  BOOST_TEST(there.dirent->ino.value() == 12u);
  BOOST_TEST(there.dirent->type == 8);
  const auto absent = cache.find(name_of("absent"));
  BOOST_TEST(absent.known);
  BOOST_TEST(!absent.dirent.has_value());
}

BOOST_AUTO_TEST_CASE(directories_and_names_of_equal_hash_are_told_apart) {
  DirentCache cache(kNames);
  read_through(cache, name_of("a"), dirent(12));
  BOOST_TEST(!cache.find(name_of("a", InodeNumber(8))).known);
  DirentCache::Name other = name_of("b");
  other.hash = name_of("a").hash;
  BOOST_TEST(!cache.find(other).known);
}

BOOST_AUTO_TEST_CASE(long_names_are_left_to_the_store) {
  DirentCache cache(kNames);
  const std::string longest(38, 'n'), longer(39, 'n');
  read_through(cache, name_of(longest), dirent(1));
  BOOST_TEST(cache.find(name_of(longest)).known);
  read_through(cache, name_of(longer), dirent(2));
  BOOST_TEST(!cache.find(name_of(longer)).known);
  DirentCache::Change change(cache, name_of(longer));
  change.done(dirent(3));
  BOOST_TEST(!cache.find(name_of(longer)).known);
}

BOOST_AUTO_TEST_CASE(a_change_hides_the_name_and_then_tells_it) {
  DirentCache cache(kNames);
  read_through(cache, name_of("a"), dirent(12));
  {
    DirentCache::Change change(cache, name_of("a"));
    BOOST_TEST(!cache.find(name_of("a")).known);
    change.done(std::nullopt);
    const auto found = cache.find(name_of("a"));
    BOOST_TEST(found.known);
    BOOST_TEST(!found.dirent.has_value());
  }
  {
    DirentCache::Change change(cache, name_of("a"));  // fails: never done
  }
  read_through(cache, name_of("a"), dirent(13));
  BOOST_TEST(cache.find(name_of("a")).known);
}

// D3
BOOST_AUTO_TEST_CASE(what_was_read_before_or_during_a_change_does_not_come_in) {
  DirentCache cache(kNames);
  const auto name = name_of("a");
  const auto before = cache.find(name).ticket;
  DirentCache::Ticket during;
  {
    DirentCache::Change change(cache, name);
    during = cache.find(name).ticket;
    cache.fill(name, before, std::nullopt);
    cache.fill(name, during, std::nullopt);
    BOOST_TEST(!cache.find(name).known);
    change.done(dirent(5));
  }
  cache.fill(name, before, std::nullopt);
  cache.fill(name, during, std::nullopt);
  const auto found = cache.find(name);
  BOOST_TEST(found.known);
  BOOST_TEST(found.dirent.has_value());
}

BOOST_AUTO_TEST_CASE(a_full_table_forgets_and_never_lies) {
  DirentCache cache(kNames);
  const std::size_t many = 8 * kNames;
  for (std::size_t i = 0; i < many; ++i) read_through(cache, name_of("n" + std::to_string(i)), dirent(i + 1));
  std::size_t known = 0;
  for (std::size_t i = 0; i < many; ++i) {
    const auto found = cache.find(name_of("n" + std::to_string(i)));
    if (!found.known) continue;
    ++known;
    BOOST_REQUIRE(found.dirent.has_value());
    BOOST_REQUIRE_EQUAL(found.dirent->ino.value(), i + 1);
  }
  BOOST_TEST(known > kNames / 2);
  BOOST_TEST(known <= kNames);
}

BOOST_AUTO_TEST_CASE(what_was_used_last_stays) {
  DirentCache cache(kNames);
  read_through(cache, name_of("used"), dirent(1));
  for (std::size_t i = 0; i < 8 * kNames; ++i) {
    const auto found = cache.find(name_of("n" + std::to_string(i)));
    cache.fill(name_of("n" + std::to_string(i)), found.ticket, dirent(i + 2));
    BOOST_REQUIRE(cache.find(name_of("used")).known);
  }
}

// A store of one name that counts upwards; readers never see it go down.
BOOST_AUTO_TEST_CASE(readers_beside_a_writer_never_see_an_older_name) {
  DirentCache cache(kNames);
  const auto name = name_of("a");
  std::atomic<std::uint64_t> stored{1};
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> backwards{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      std::uint64_t last = 0;
      while (!stop.load()) {
        const auto found = cache.find(name);
        std::uint64_t seen = 0;
        if (found.known) {
          seen = found.dirent->ino.value();
        } else {
          seen = stored.load();
          cache.fill(name, found.ticket, dirent(seen));
        }
        if (seen < last) ++backwards;
        last = seen;
      }
    });
  }
  for (std::uint64_t i = 2; i < 50000; ++i) {
    DirentCache::Change change(cache, name);
    stored.store(i);
    if (i % 3 != 0) change.done(dirent(i));
  }
  stop = true;
  for (auto& reader : readers) reader.join();
  BOOST_TEST(backwards.load() == 0u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
