// Every point at which a node can die: the bytes are copied at each ordered store of a workload, with every (or a
// sample of every) subset of the words stored since the one before, and a pool is opened on the copy. It must open, and
// agree with what was acknowledged before the crash, but for the one operation that was under way.
#include <fcntl.h>
#include <sys/wait.h>

#include <boost/test/unit_test.hpp>
#include <csignal>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "memnode/pool_tables.h"
#include "tests/unit/memnode/fixture.h"

namespace rmemfs::test {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::size_t kMaxExhaustive = 8;
constexpr int kSamples = 24;

// What was acknowledged, written down before the next operation begins.
struct Acknowledged {
  std::map<std::uint64_t, PoolRegion> leased;
  std::map<Uuid, std::uint64_t> epochs;
};

class Explorer {
 public:
  explicit Explorer(unsigned seed) : random_(seed) {}

  void attach(const Pool& pool) {
    live_ = pool.bytes();
    before_.assign(live_.begin(), live_.end());
  }
  // What the operation under way may change: a region that may be there or not, an epoch that may be higher.
  void expect(std::optional<RegionId> undecided) { undecided_ = undecided; }

  void look() {
    if (live_.empty()) return;
    std::vector<std::size_t> changed;
    for (std::size_t word = 0; word < live_.size() / 8; ++word) {
      if (std::memcmp(live_.data() + word * 8, before_.data() + word * 8, 8) != 0) changed.push_back(word);
    }
    // On a thread of its own: this one is inside the pool that is being watched and holds its lock.
    std::thread([this, &changed] { check_images(changed); }).join();
    before_.assign(live_.begin(), live_.end());
    ++points_;
  }

  Acknowledged acknowledged;
  std::string wrong;  // the first thing that was
  int points() const { return points_; }
  int images() const { return images_; }

 private:
  void check_images(const std::vector<std::size_t>& changed) {
    const bool all = changed.size() <= kMaxExhaustive;
    const int images = all ? 1 << changed.size() : kSamples;
    for (int image = 0; image < images; ++image) {
      std::vector<std::byte> bytes = before_;
      for (std::size_t i = 0; i < changed.size(); ++i) {
        const bool landed = all ? (image >> i) & 1 : image == kSamples - 1 || random_() % 2 == 0;
        if (landed) std::memcpy(bytes.data() + changed[i] * 8, live_.data() + changed[i] * 8, 8);
      }
      ++images_;
      if (std::string found = check(bytes); wrong.empty() && !found.empty()) {
        wrong = found + ", at point " + std::to_string(points_) + ", image " + std::to_string(image);
      }
    }
  }

  // What is wrong with a pool opened on these bytes; empty when it is sound.
  std::string check(const std::vector<std::byte>& bytes) const {
    const std::string path = directory_ / "image";
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    // Twice: what the first opening repaired must be found sound by the second.
    for (int round = 0; round < 2; ++round) {
      const auto opened = Pool::open(pool_at(path, 0));
      if (!opened.ok()) return opened.error().message();
      if (std::string found = check_pool(**opened); !found.empty()) return found;
    }
    return {};
  }

  std::string check_pool(const Pool& pool) const {
    for (const auto& [uuid, epoch] : acknowledged.epochs) {
      const auto found = pool.find_file_system(uuid);
      if (!found || found->epoch.value() < epoch) return "an acknowledged epoch is lost";
    }
    std::uint64_t leased = 0;
    for (const auto& [id, region] : acknowledged.leased) {
      if (undecided_ == RegionId(id)) continue;
      const auto found = pool.find_region(RegionId(id));
      if (!found) return "an acknowledged region is lost";
      if (found->offset != region.offset || found->length != region.length || found->tag != region.tag ||
          !found->key.matches(region.key)) {
        return "an acknowledged region has changed";
      }
      if (pool.bytes()[found->offset] != std::byte{0xcc}) return "a region's bytes are lost";
      leased += region.length;
    }
    if (pool.region_count() > acknowledged.leased.size() + 1) return "regions out of nowhere";
    if (pool.free_bytes() > pool.data_bytes() - leased) return "leased bytes count as free";
    const auto tables = read_pool_tables(pool.bytes(), pool.bytes().size());
    if (!tables.ok()) return tables.error().message();
    std::vector<bool> taken(pool.data_bytes() / kPage);
    for (const auto& row : tables->regions) {
      RegionEntry entry;
      std::memcpy(&entry, pool.bytes().data() + tables->layout.regions_offset + row.slot * sizeof entry, sizeof entry);
      if (row.state != RegionState::kLeased) return "a dirty region was not cleaned";
      for (std::uint64_t page = entry.offset / kPage; page < (entry.offset + entry.length) / kPage; ++page) {
        taken[page] = true;
      }
    }
    for (std::size_t page = 0; page < taken.size(); ++page) {
      if (!taken[page] && !all_zero(pool.bytes().subspan(tables->layout.data_offset + page * kPage, kPage))) {
        return "a free page is not zero";
      }
    }
    return {};
  }

  ShmDirectory directory_;
  std::mt19937 random_;
  std::span<std::byte> live_;
  std::vector<std::byte> before_;
  std::optional<RegionId> undecided_;
  int points_ = 0, images_ = 0;
};

void run_workload(Pool& pool, Explorer& explorer, std::mt19937& random, int steps) {
  std::vector<FileSystemIdentity> known;
  for (int step = 0; step < steps; ++step) {
    auto& done = explorer.acknowledged;
    const unsigned choice = random() % 10;
    if (known.empty() || (choice == 0 && known.size() < 4)) {
      known.push_back(identity(1 + random() % 5));
      BOOST_REQUIRE(pool.add_file_system(known.back().uuid, known.back().key, known.back().epoch).ok());
      done.epochs[known.back().uuid] = known.back().epoch.value();
    } else if (choice < 3) {
      FileSystemIdentity& who = known[random() % known.size()];
      who.epoch = who.epoch.next();
      BOOST_REQUIRE(pool.raise_epoch(who.uuid, who.epoch).ok());
      done.epochs[who.uuid] = who.epoch.value();
    } else if (choice < 7 || done.leased.empty()) {
      const auto region = pool.lease(known[random() % known.size()].uuid, (1 + random() % 4) * kPage, kPage, random());
      if (!region.ok()) continue;
      // The lessee writes as soon as it has the answer.
      std::memset(pool.bytes().data() + region->offset, 0xcc, region->length);
      explorer.attach(pool);
      done.leased.emplace(region->id.value(), *region);
    } else {
      auto victim = done.leased.begin();
      std::advance(victim, static_cast<long>(random() % done.leased.size()));
      explorer.expect(RegionId(victim->first));
      BOOST_REQUIRE(pool.begin_release(RegionId(victim->first)).ok());
      BOOST_REQUIRE(pool.finish_release(RegionId(victim->first)).ok());
      done.leased.erase(victim);
      explorer.expect(std::nullopt);
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(pool_crash)

BOOST_AUTO_TEST_CASE(every_crash_point_leaves_a_pool_that_agrees_with_what_was_acknowledged) {
  const unsigned seed = std::random_device{}();
  BOOST_TEST_MESSAGE("seed " << seed);
  BOOST_TEST_CONTEXT("seed " << seed) {
    Explorer explorer(seed);
    std::mt19937 random(seed);
    PoolOptions options = pool_at("", 64 << 10);
    options.after_persist = [&explorer] { explorer.look(); };
    const auto pool = open_pool(options);
    explorer.attach(*pool);
    run_workload(*pool, explorer, random, 40);
    BOOST_TEST(explorer.wrong == "");
    BOOST_TEST(!explorer.acknowledged.epochs.empty());
    BOOST_TEST(explorer.points() > 60);
    BOOST_TEST_MESSAGE(explorer.points() << " points, " << explorer.images() << " images");
  }
}

// A real kill: a child works on a pool in /dev/shm and is killed at its n-th ordered store, for each n.
BOOST_AUTO_TEST_CASE(a_node_killed_at_each_store_finds_its_pool_again) {
  int killed = 0;
  for (int point = 1; point < 200; ++point) {
    ShmDirectory directory;
    int acknowledgements[2];
    BOOST_REQUIRE(::pipe2(acknowledgements, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    BOOST_REQUIRE(child >= 0);
    if (child == 0) {
      PoolOptions options = pool_at(directory / "p", 64 << 10);
      int left = point;
      options.after_persist = [&left] {
        if (--left == 0) ::kill(::getpid(), SIGKILL);
      };
      auto pool = Pool::open(options);
      if (!pool.ok()) ::_exit(1);
      const auto who = identity();
      std::vector<RegionId> mine;
      bool sound = (*pool)->add_file_system(who.uuid, who.key, who.epoch).ok();
      for (int i = 0; i < 6 && sound; ++i) {
        const auto region = (*pool)->lease(who.uuid, 2 * kPage, kPage, static_cast<std::uint64_t>(i));
        if (!region.ok()) ::_exit(1);
        std::memset((*pool)->bytes().data() + region->offset, 0xcc, region->length);
        mine.push_back(region->id);
        const std::int64_t leased = static_cast<std::int64_t>(region->id.value());
        sound = ::write(acknowledgements[1], &leased, sizeof leased) == sizeof leased;
        if (i % 2 == 1) {
          const std::int64_t released = -static_cast<std::int64_t>(mine.front().value());
          sound = sound && ::write(acknowledgements[1], &released, sizeof released) == sizeof released;
          sound = sound && (*pool)->begin_release(mine.front()).ok() && (*pool)->finish_release(mine.front()).ok();
          mine.erase(mine.begin());
        }
      }
      ::_exit(sound ? 0 : 1);
    }
    ::close(acknowledgements[1]);
    std::map<std::int64_t, bool> leased;  // false: its release had begun
    std::int64_t id;
    while (::read(acknowledgements[0], &id, sizeof id) == sizeof id) leased[std::abs(id)] = id > 0;
    ::close(acknowledgements[0]);
    int status = 0;
    BOOST_REQUIRE(::waitpid(child, &status, 0) == child);
    if (WIFEXITED(status)) {
      BOOST_REQUIRE(WEXITSTATUS(status) == 0);
      break;  // the workload has fewer stores than this
    }
    ++killed;
    const auto pool = open_pool(pool_at(directory / "p", 64 << 10));
    std::uint64_t bytes = 0;
    for (const auto& [region_id, kept] : leased) {
      const auto region = pool->find_region(RegionId(static_cast<std::uint64_t>(region_id)));
      if (kept) BOOST_REQUIRE(region);
      if (region) BOOST_REQUIRE((pool->bytes()[region->offset] == std::byte{0xcc}));
      if (region) bytes += region->length;
    }
    BOOST_REQUIRE(pool->free_bytes() <= pool->data_bytes() - bytes);
  }
  BOOST_TEST(killed > 20);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
