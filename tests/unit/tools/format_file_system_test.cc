// Making file systems, against a real memory node in this process that listens on a socket.
#define BOOST_TEST_DYN_LINK
#define BOOST_TEST_MODULE tools
#include <boost/test/unit_test.hpp>

#include <filesystem>
#include <fstream>

#include "journal/journal_format.h"
#include "manager/manager.h"
#include "memnode/listener.h"
#include "memnode/memory_node.h"
#include "recovery/checker.h"
#include "tools/format_file_system.h"
#include "util/log.h"

namespace rmemfs {
namespace {

namespace fs = std::filesystem;

template <typename T>
T must(Result<T> result) {
  BOOST_REQUIRE_MESSAGE(result.ok(), (result.ok() ? std::string() : result.error().message()));
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

struct Fixture {
  Fixture() {
    log::set_level(log::Level::kOff);
    char name[] = "/tmp/rmemfs-format-XXXXXX";
    BOOST_REQUIRE(::mkdtemp(name) != nullptr);
    base = name;
    PoolOptions pool_options;
    pool_options.data_bytes = 16u << 20;
    pool = must(Pool::open(pool_options));
    node = std::make_unique<MemoryNode>(*pool);
    server = must(NodeServer::start(*node));
    Listener::Options listening;
    listening.addresses = {"unix:" + base + "/node.sock", "unix:" + base + "/again.sock"};
    Listener::Routes routes;
    routes.control = server.get();
    listener = must(Listener::start(listening, routes));
    options.directory = base + "/fs";
    options.nodes = {"shm:" + base + "/node.sock"};
    options.chunk_bytes = 1u << 20;
    options.journal = {1024, 64};
    options.label = "test";
  }
  ~Fixture() {
    listener.reset();
    server.reset();
    fs::remove_all(base);
  }
  Errc refused() {
    const auto made = format_file_system(options, &report);
    BOOST_REQUIRE(!made.ok());
    return made.error().code;
  }
  std::size_t problems() {
    CheckOptions check;
    check.directory = options.directory;
    return must(check_file_system(check)).problems.size();
  }
  void lease(const Superblock& superblock) {
    must(node->lease({superblock.uuid, superblock.key, superblock.epoch}, 1u << 20, 4096, 1, "test"));
  }

  std::string base;
  std::unique_ptr<Pool> pool;
  std::unique_ptr<MemoryNode> node;
  std::unique_ptr<NodeServer> server;
  std::unique_ptr<Listener> listener;
  FormatOptions options;
  FormatReport report;
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(FormatFileSystem, Fixture)

BOOST_AUTO_TEST_CASE(what_it_makes_is_sound) {
  const Uuid uuid = must(format_file_system(options, &report));
  const Superblock made = must(load_superblock(options.directory));
  BOOST_CHECK(made.uuid == uuid);
  BOOST_CHECK_EQUAL(made.label, "test");
  BOOST_CHECK_EQUAL(report.free_bytes, 16u << 20);
  BOOST_CHECK_EQUAL(problems(), 0u);
}

BOOST_AUTO_TEST_CASE(a_node_that_is_not_there_leaves_no_directory) {
  options.nodes.push_back("shm:" + base + "/nobody.sock");
  BOOST_CHECK(refused() == Errc::kUnreachable);
  BOOST_CHECK(!fs::exists(options.directory));
}

BOOST_AUTO_TEST_CASE(two_addresses_of_one_node_are_refused) {
  options.nodes.push_back("shm:" + base + "/again.sock");
  const auto made = format_file_system(options, &report);
  BOOST_REQUIRE(!made.ok());
  BOOST_CHECK(made.error().code == Errc::kInvalid);
  for (const std::string& address : options.nodes)
    BOOST_CHECK_MESSAGE(made.error().message().find(address) != std::string::npos, made.error().message());
  BOOST_CHECK(!fs::exists(options.directory));
  BOOST_CHECK_EQUAL(pool->region_count(), 0u);
}

BOOST_AUTO_TEST_CASE(options_out_of_range_are_refused) {
  const FormatOptions good = options;
  for (auto spoil : std::initializer_list<void (*)(FormatOptions&)>{
           [](FormatOptions& o) { o.nodes.clear(); }, [](FormatOptions& o) { o.nodes.push_back(o.nodes.front()); },
           [](FormatOptions& o) { o.nodes = {"pigeon:/x"}; }, [](FormatOptions& o) { o.chunk_bytes = 3u << 20; },
           [](FormatOptions& o) { o.label.assign(65, 'x'); }, [](FormatOptions& o) { o.journal.slot_count = 1; },
           [](FormatOptions& o) { o.journal.slot_bytes = 1000; }, [](FormatOptions& o) { o.directory.clear(); }}) {
    options = good;
    spoil(options);
    BOOST_CHECK(refused() == Errc::kInvalid);
  }
  BOOST_CHECK(!fs::exists(good.directory));
}

BOOST_AUTO_TEST_CASE(a_journal_that_cannot_hold_every_change_is_refused_with_the_smallest_that_can) {
  options.dry_run = true;
  const std::size_t largest = Manager::largest_transaction_bytes();
  for (std::uint32_t slot_bytes = 256; slot_bytes <= 65536; slot_bytes *= 2) {
    const std::uint32_t least = std::max(transaction_slots({slot_bytes, 1048576}, largest), 2u);
    options.journal = {slot_bytes, least};
    BOOST_TEST_CONTEXT(least << " slots of " << slot_bytes << " bytes") {
      BOOST_CHECK(format_file_system(options).ok());
      if (least == 2) continue;
      options.journal.slot_count = least - 1;
      const auto made = format_file_system(options);
      BOOST_REQUIRE(!made.ok());
      BOOST_CHECK(made.error().code == Errc::kInvalid);
      BOOST_CHECK(made.error().detail.find("at least " + std::to_string(least) + " slots") != std::string::npos);
    }
  }
  options.journal = {1024, 2};
  const auto made = format_file_system(options);
  BOOST_REQUIRE(!made.ok());
  BOOST_CHECK_MESSAGE(made.error().detail.find("slots of at least 4096 bytes") != std::string::npos,
                      made.error().message());
  options.journal = {4096, 2};
  BOOST_CHECK(format_file_system(options).ok());
  options.journal = {2048, 2};
  BOOST_CHECK(refused() == Errc::kInvalid);
}

BOOST_AUTO_TEST_CASE(somebody_elses_files_and_a_locked_file_system_are_refused_even_with_force) {
  fs::create_directory(options.directory);
  std::ofstream(options.directory + "/diary") << "mine";
  options.force = true;
  BOOST_CHECK(refused() == Errc::kNotEmpty);
  fs::remove(options.directory + "/diary");
  must(format_file_system(options));
  const std::string before = must(load_superblock(options.directory)).uuid.to_string();
  const UniqueFd lock = must(lock_directory(options.directory, LockMode::kExclusive, "mounted on /mnt"));
  BOOST_CHECK(refused() == Errc::kLocked);
  BOOST_CHECK(!pool->find_file_system(report.uuid));  // no node remembers what was not made
  BOOST_CHECK_EQUAL(must(load_superblock(options.directory)).uuid.to_string(), before);
}

BOOST_AUTO_TEST_CASE(force_makes_it_anew_and_gives_back_the_old_memory) {
  const Uuid first = must(format_file_system(options));
  lease(must(load_superblock(options.directory)));
  BOOST_CHECK_EQUAL(pool->region_count(), 1u);
  BOOST_CHECK(refused() == Errc::kExists);
  options.force = true;
  const Uuid second = must(format_file_system(options, &report));
  BOOST_CHECK(first != second);
  BOOST_CHECK_EQUAL(report.released_regions, 1u);
  BOOST_CHECK_EQUAL(pool->region_count(), 0u);
  BOOST_CHECK_EQUAL(problems(), 0u);
}

BOOST_AUTO_TEST_CASE(an_interrupted_run_is_no_file_system_and_the_next_one_goes_on) {
  must(format_file_system(options));
  lease(must(load_superblock(options.directory)));
  // As an interruption right after the old superblock was taken away.
  fs::rename(options.directory + "/superblock", options.directory + "/superblock.old");
  const auto gone = load_superblock(options.directory);
  BOOST_REQUIRE(!gone.ok());
  BOOST_CHECK(gone.error().code == Errc::kNotFormatted);
  must(format_file_system(options, &report));
  BOOST_CHECK_EQUAL(report.released_regions, 1u);
  BOOST_CHECK(!fs::exists(options.directory + "/superblock.old"));
  BOOST_CHECK_EQUAL(problems(), 0u);
}

BOOST_AUTO_TEST_CASE(a_damaged_file_system_is_replaced_only_with_force) {
  must(format_file_system(options));
  fs::resize_file(options.directory + "/superblock", 100);
  BOOST_CHECK(refused() == Errc::kExists);
  options.force = true;
  must(format_file_system(options));
  BOOST_CHECK_EQUAL(problems(), 0u);
}

BOOST_AUTO_TEST_CASE(a_journal_elsewhere_is_used_and_no_strange_file_is_overwritten) {
  options.journal_path = base + "/elsewhere";
  std::ofstream(options.journal_path) << "somebody's";
  BOOST_CHECK(refused() == Errc::kExists);
  fs::remove(options.journal_path);
  must(format_file_system(options));
  BOOST_CHECK(fs::exists(options.journal_path));
  BOOST_CHECK(!fs::exists(options.directory + "/journal"));
  BOOST_CHECK_EQUAL(problems(), 0u);
}

BOOST_AUTO_TEST_CASE(a_dry_run_changes_nothing) {
  options.dry_run = true;
  must(format_file_system(options, &report));
  BOOST_CHECK(!fs::exists(options.directory));
  BOOST_CHECK_EQUAL(report.pool_bytes, 16u << 20);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
