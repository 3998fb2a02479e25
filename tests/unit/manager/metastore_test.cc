#include "manager/metastore.h"

#include <fstream>
#include <random>

#include "fixture.h"

namespace rmemfs {
namespace {

struct Store {
  TempDir dir;
  Uuid uuid = Uuid::random();
  std::unique_ptr<Metastore> store;

  Store() { open(Metastore::Mode::kCreate); }
  void open(Metastore::Mode mode) {
    store.reset();
    auto opened = Metastore::open(dir.path() + "/db", mode, uuid, {});
    BOOST_REQUIRE_MESSAGE(opened.ok(), why(opened));
    store = std::move(*opened);
  }
  void apply(std::vector<Modification> modifications, std::uint64_t id) {
    BOOST_REQUIRE(store->apply(modifications, CommitId(id)).ok());
  }
  std::optional<std::string> get(std::string_view key) {
    auto value = store->get(key);
    BOOST_REQUIRE(value.ok());
    return *value;
  }
  std::string keys(std::string_view prefix) {
    std::string out;
    const auto it = store->iterate(prefix);
    for (; it->valid(); it->next()) out += std::string(it->key()) + "=" + std::string(it->value()) + " ";
    BOOST_REQUIRE(it->status().ok());
    return out;
  }
};

TransactionBuilder puts(std::initializer_list<std::pair<std::string, std::string>> pairs) {
  TransactionBuilder builder;
  for (const auto& [key, value] : pairs) builder.put(key, value);
  return builder;
}

std::map<std::string, std::string> files_of(const std::string& directory) {
  std::map<std::string, std::string> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    out[entry.path()] = std::string(std::istreambuf_iterator<char>(in), {});
  }
  return out;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(metastore)

BOOST_AUTO_TEST_CASE(what_was_made_durable_is_there_again) {
  Store s;
  s.apply({{ModificationKind::kPut, "Ia", "1"}, {ModificationKind::kPut, "Ib", "2"}}, 5);
  BOOST_CHECK(*s.store->make_durable() == CommitId(5));
  s.apply({{ModificationKind::kPut, "Ic", "3"}}, 6);  // never made durable
  s.open(Metastore::Mode::kReadWrite);
  BOOST_CHECK(s.store->durable_watermark() == CommitId(5));
  BOOST_CHECK_EQUAL(s.keys("I"), "Ia=1 Ib=2 ");
}

BOOST_AUTO_TEST_CASE(it_is_opened_by_its_file_system_only) {
  Store s;
  s.store.reset();
  const auto other = Metastore::open(s.dir.path() + "/db", Metastore::Mode::kReadWrite, Uuid::random(), {});
  BOOST_CHECK(other.error().code == Errc::kWrongFileSystem);
  const auto none = Metastore::open(s.dir.path() + "/none", Metastore::Mode::kReadWrite, s.uuid, {});
  BOOST_CHECK(none.error().code == Errc::kNotFound);
  const auto twice = Metastore::open(s.dir.path() + "/db", Metastore::Mode::kCreate, s.uuid, {});
  BOOST_CHECK(twice.error().code == Errc::kExists);
}

BOOST_AUTO_TEST_CASE(the_overlay_stands_over_the_store_until_it_is_dropped) {
  Store s;
  s.apply({{ModificationKind::kPut, "Ia", "old"}, {ModificationKind::kPut, "Ib", "old"}}, 1);
  TransactionBuilder t = puts({{"Ia", "new"}, {"Ic", "new"}});
  t.erase("Ib");
  s.store->overlay_insert(t, CommitId(2));
  BOOST_CHECK(s.get("Ia") == "new");
  BOOST_CHECK(!s.get("Ib"));
  BOOST_CHECK_EQUAL(s.keys("I"), "Ia=new Ic=new ");
  s.store->overlay_drop(CommitId(1));
  BOOST_CHECK_EQUAL(s.store->overlay_entries(), 3u);
  s.apply({{ModificationKind::kPut, "Ia", "new"},
           {ModificationKind::kErase, "Ib", {}},
           {ModificationKind::kPut, "Ic", "new"}},
          2);
  s.store->overlay_drop(CommitId(2));
  BOOST_CHECK_EQUAL(s.store->overlay_entries(), 0u);
  BOOST_CHECK_EQUAL(s.keys("I"), "Ia=new Ic=new ");
}

BOOST_AUTO_TEST_CASE(the_newest_transaction_wins_whatever_the_order_of_insertion) {
  Store s;
  s.store->overlay_insert(puts({{"Ik", "third"}}), CommitId(3));
  s.store->overlay_insert(puts({{"Ik", "second"}}), CommitId(2));
  BOOST_CHECK(s.get("Ik") == "third");
  s.store->overlay_drop(CommitId(2));
  BOOST_CHECK(s.get("Ik") == "third");
  s.store->overlay_insert(puts({{"Ik", "fourth"}, {"Ik", "again"}}), CommitId(4));
  s.store->overlay_drop(CommitId(3));
  BOOST_CHECK(s.get("Ik") == "again");
  s.store->overlay_drop(CommitId(4));
  BOOST_CHECK_EQUAL(s.store->overlay_entries(), 0u);
}

BOOST_AUTO_TEST_CASE(a_walk_starts_where_it_is_told_and_stays_in_its_prefix) {
  Store s;
  s.apply({{ModificationKind::kPut, "Da1", ""},
           {ModificationKind::kPut, "Da3", ""},
           {ModificationKind::kPut, "Db1", ""},
           {ModificationKind::kPut, "D", ""}},
          1);
  s.store->overlay_insert(puts({{"Da2", ""}, {"Da4", ""}, {"Db0", ""}, {"C", ""}}), CommitId(2));
  BOOST_CHECK_EQUAL(s.keys("Da"), "Da1= Da2= Da3= Da4= ");
  const auto it = s.store->iterate("Da");
  it->seek("Da2x");
  BOOST_CHECK_EQUAL(it->key(), "Da3");
  it->seek("A");
  BOOST_CHECK_EQUAL(it->key(), "Da1");
  it->seek("Db");
  BOOST_CHECK(!it->valid());
  it->seek("Da4");
  it->next();
  BOOST_CHECK(!it->valid());
}

BOOST_AUTO_TEST_CASE(random_walks_agree_with_a_map_while_the_overlay_drains) {
  std::mt19937_64 random(99);
  Store s;
  std::map<std::string, std::string> model;
  std::vector<std::pair<std::string, std::optional<std::string>>> waiting;  // committed, not applied
  std::uint64_t id = 0;
  const auto drain = [&] {
    std::vector<Modification> batch;
    for (const auto& [key, value] : waiting) {
      if (value)
        batch.push_back({ModificationKind::kPut, key, *value});
      else
        batch.push_back({ModificationKind::kErase, key, {}});
    }
    s.apply(batch, id);
    s.store->overlay_drop(CommitId(id));
    waiting.clear();
  };
  for (int step = 0; step < 3000; ++step) {
    TransactionBuilder t;
    ++id;
    for (int i = 0; i < 3; ++i) {
      const std::string key = "D" + std::to_string(1000 + random() % 900);
      if (random() % 3 == 0) {
        t.erase(key);
        model.erase(key);
        waiting.emplace_back(key, std::nullopt);
      } else {
        const std::string value = std::to_string(id);
        t.put(key, value);
        model[key] = value;
        waiting.emplace_back(key, value);
      }
    }
    s.store->overlay_insert(t, CommitId(id));
    if (random() % 300 == 0) drain();
    if (random() % 100 != 0) continue;
    // Walks while the overlay is dropped in the middle: nothing is lost or doubled.
    const auto it = s.store->iterate("D");
    auto expected = model.begin();
    const auto stop = random() % 600;
    for (std::size_t n = 0; it->valid(); it->next(), ++expected, ++n) {
      BOOST_REQUIRE(expected != model.end());
      BOOST_REQUIRE_EQUAL(it->key(), expected->first);
      BOOST_REQUIRE_EQUAL(it->value(), expected->second);
      if (n == stop) drain();
    }
    BOOST_REQUIRE(it->status().ok());
    BOOST_REQUIRE(expected == model.end());
  }
}

BOOST_AUTO_TEST_CASE(merges_are_combined_by_the_store_across_flushes) {
  Store s;
  const std::string key = bitmap_key(ChunkId(1)), counter = singleton_key("inodes");
  std::string expected;
  for (std::uint32_t i = 0; i < 20; ++i) {
    const BlockRun run[] = {{i * 3, 5, i % 4 != 3}};
    const std::string operand = encode_runs(run), one = encode_number(1);
    BOOST_REQUIRE(apply_merge(key, expected, operand).ok());
    s.apply({{ModificationKind::kMerge, key, operand}, {ModificationKind::kMerge, counter, one}}, i + 1);
    if (i % 5 == 4) BOOST_REQUIRE(s.store->make_durable().ok());
  }
  BOOST_CHECK(s.get(key) == expected);
  s.open(Metastore::Mode::kReadWrite);
  BOOST_CHECK(s.get(key) == expected);
  BOOST_CHECK(s.get(counter) == encode_number(20));
}

BOOST_AUTO_TEST_CASE(reading_only_changes_no_file) {
  Store s;
  s.apply({{ModificationKind::kPut, "Ia", "1"}, {ModificationKind::kMerge, "Minodes", encode_number(4)}}, 1);
  BOOST_REQUIRE(s.store->make_durable().ok());
  s.store.reset();
  const auto before = files_of(s.dir.path());
  s.open(Metastore::Mode::kReadOnly);
  BOOST_CHECK_EQUAL(s.keys("I"), "Ia=1 ");
  // What a crash left in the journal is laid over it, merges too.
  const Modification replay[] = {{ModificationKind::kPut, "Ib", "2"},
                                 {ModificationKind::kErase, "Ia", {}},
                                 {ModificationKind::kMerge, "Minodes", std::string_view("\2\0\0\0\0\0\0\0", 8)}};
  BOOST_REQUIRE(s.store->overlay_replay(replay).ok());
  BOOST_CHECK_EQUAL(s.keys("I"), "Ib=2 ");
  BOOST_CHECK(s.get("Minodes") == encode_number(6));
  s.store.reset();
  BOOST_CHECK(files_of(s.dir.path()) == before);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
