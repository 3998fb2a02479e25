#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>

#include <dirent.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "image.h"

namespace rmemfs {
namespace {

std::string listing(const CheckReport& report) {
  std::string text;
  for (const Problem& problem : report.problems) text += "\n  " + problem.message();
  for (const std::string& notice : report.notices) text += "\n  (" + notice + ")";
  return text;
}

std::set<ProblemCode> codes(const CheckReport& report) {
  std::set<ProblemCode> found;
  for (const Problem& problem : report.problems) found.insert(problem.code);
  return found;
}

void expect_clean(Image& image, Answers answers) {
  const CheckReport report = image.check(answers);
  BOOST_TEST_CONTEXT(listing(report)) {
    BOOST_CHECK_EQUAL(report.found, 0u);
    BOOST_CHECK(!report.changed);
  }
}

// Five kinds of damage at once, so that a repair has several batches.
void damage_widely(Image& image) {
  Editor editor(image);
  const Tree& t = image.tree();
  editor.erase(editor.name_key(t.d, "e"));
  editor.put(editor.name_key(kRootInode, "x"), encode(Dirent{InodeNumber(9999), DT_REG}));
  editor.change(t.a, [](Attributes& a) { a.nlink = 9, a.blocks = 1; });
  editor.erase(orphan_key(t.gone));
  editor.put(singleton_key("inodes"), encode_number(100));
  Extent extent = editor.extents(t.f).front().second;
  extent.file_offset = 1u << 20;
  editor.put(extent_key(t.a, extent.file_offset), encode(extent));
  editor.put(dirent_key(kRootInode, 77, "big"), encode(Dirent{t.big, DT_REG}));
}

struct CrashNow {
  std::uint64_t after;
  Result<void> operator()(std::uint64_t batch) const {
    return batch > after ? Result<void>(Error(Errc::kLocalIo, "crash")) : success();
  }
};

// One random change of the store: a flipped bit in a value, an erased record, a value under another key, a new number.
void mutate(Editor& editor, std::mt19937_64& random) {
  static const std::string kFamilies = "IDSEOCBM";
  const auto records = editor.all(std::string(1, kFamilies[random() % kFamilies.size()]));
  if (records.empty()) return;
  auto [key, value] = records[random() % records.size()];
  if (key == singleton_key("uuid") || key == singleton_key("applied")) return;
  switch (random() % 5) {
    case 0:
      editor.erase(key);
      return;
    case 1:
      if (value.empty())
        value = "z";
      else
        value.resize(random() % value.size());
      break;
    case 2: {
      std::string other = key;
      other[other.size() - 1 - random() % (other.size() - 1)] ^= static_cast<char>(1u << random() % 8);
      editor.put(other, value);
      return;
    }
    default:
      if (value.empty()) return;
      value[random() % value.size()] ^= static_cast<char>(1u << random() % 8);
  }
  editor.put(key, value);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(Checker)

BOOST_AUTO_TEST_CASE(a_sound_file_system_has_no_problems_and_is_not_changed) {
  Image image;
  const auto before = image.contents();
  expect_clean(image, Answers::kNone);
  BOOST_CHECK(image.contents() == before);
  expect_clean(image, Answers::kSafe);
  expect_clean(image, Answers::kAll);
  const CheckReport report = image.check(Answers::kNone);
  BOOST_CHECK_EQUAL(report.inodes, 10u);
  BOOST_CHECK_EQUAL(report.directories, 3u);
  BOOST_CHECK_EQUAL(report.orphans, 1u);
  BOOST_CHECK(report.lost_files.empty());
}

BOOST_AUTO_TEST_CASE(a_crashed_file_system_is_checked_as_its_journal_says_without_a_write) {
  Image image;
  image.mounted(
      [](Manager& manager, LoopExecutor& loop) {
        const InodeRef root = *manager.get(kRootInode);
        NewNode node;
        node.mode = S_IFDIR | 0755;
        for (int i = 0; i < 20; ++i) {
          BOOST_REQUIRE(loop.run(manager.make_node(root, "dir" + std::to_string(i), node, 0)).ok());
        }
      },
      true);
  const auto before = image.contents();
  const CheckReport looked = image.check(Answers::kNone);
  BOOST_TEST_CONTEXT(listing(looked)) BOOST_CHECK_EQUAL(looked.found, 0u);
  BOOST_CHECK_GE(looked.replayed, 20u);
  BOOST_CHECK_EQUAL(looked.inodes, 30u);
  BOOST_CHECK(image.contents() == before);
  const CheckReport applied = image.check(Answers::kAll);
  BOOST_CHECK_EQUAL(applied.found, 0u);
  BOOST_CHECK_EQUAL(applied.inodes, 30u);
  BOOST_CHECK_EQUAL(image.check(Answers::kNone).replayed, 0u);
}

BOOST_AUTO_TEST_CASE(a_mounted_file_system_is_refused_with_who_has_it) {
  Image image;
  const auto lock = lock_directory(image.path(), LockMode::kExclusive, "mounted on /mnt by rmemfs");
  BOOST_REQUIRE(lock.ok());
  for (Answers answers : {Answers::kNone, Answers::kAll}) {
    const auto refused = image.try_check(answers);
    BOOST_REQUIRE(!refused.ok());
    BOOST_CHECK(refused.error().code == Errc::kLocked);
    BOOST_CHECK_NE(refused.error().message().find("/mnt"), std::string::npos);
  }
}

BOOST_AUTO_TEST_CASE(what_is_no_file_system_of_ours_is_refused_and_not_changed) {
  const auto refused = [](Image& image, Errc code) {
    const auto before = image.contents();
    for (Answers answers : {Answers::kNone, Answers::kAll}) {
      const auto report = image.try_check(answers);
      BOOST_REQUIRE(!report.ok());
      BOOST_CHECK_MESSAGE(report.error().code == code, report.error().message());
    }
    // The lock's text names the last who had it.
    auto after = image.contents();
    const std::string lock = image.path() + "/lock";
    after[lock] = before.contains(lock) ? before.at(lock) : after[lock];
    BOOST_CHECK(after == before);
  };
  const auto edit = [](Image& image, auto change) {
    std::fstream file(image.path() + "/superblock", std::ios::binary | std::ios::in | std::ios::out);
    change(file);
  };
  {
    Image image;
    Superblock superblock = image.superblock();
    superblock.incompat = 1u << 5;
    std::ofstream(image.path() + "/superblock", std::ios::binary) << encode_superblock(superblock);
    refused(image, Errc::kUnsupportedFeature);
  }
  {
    Image image;
    edit(image, [](std::fstream& file) { file.seekp(70).put('\7'); });
    refused(image, Errc::kChecksum);
  }
  {
    Image image;
    std::filesystem::resize_file(image.path() + "/superblock", 100);
    refused(image, Errc::kCorrupt);
  }
  {
    Image image;
    std::filesystem::remove(image.path() + "/superblock");
    refused(image, Errc::kNotFormatted);
  }
  {
    Image image;
    auto memory = map_persistent(image.path() + "/journal", {});
    BOOST_REQUIRE(memory.ok());
    BOOST_REQUIRE(Journal::format(**memory, Uuid::random(), image.superblock().journal).ok());
    memory->reset();
    refused(image, Errc::kWrongFileSystem);
  }
}

BOOST_AUTO_TEST_CASE(an_unknown_ro_compat_feature_is_checked_read_only_alone) {
  Image image;
  Superblock superblock = image.superblock();
  superblock.ro_compat = 1;
  std::ofstream(image.path() + "/superblock", std::ios::binary) << encode_superblock(superblock);
  BOOST_CHECK(image.try_check(Answers::kNone).ok());
  const auto written = image.try_check(Answers::kAll);
  BOOST_REQUIRE(!written.ok());
  BOOST_CHECK(written.error().code == Errc::kUnsupportedFeature);
}

BOOST_AUTO_TEST_CASE(a_crash_after_any_batch_leaves_what_the_next_check_repairs) {
  bool finished = false;
  for (std::uint64_t after = 0; !finished; ++after) {
    Image image;
    damage_widely(image);
    CheckOptions options = image.options(Answers::kAll);
    options.batch_modifications = 1;
    options.before_batch = CrashNow{after};
    const auto crashed = check_file_system(options);
    finished = crashed.ok();
    BOOST_CHECK_LT(after, 100u);
    const CheckReport repaired = image.check(Answers::kAll);
    BOOST_CHECK_EQUAL(repaired.uncorrected(), 0u);
    BOOST_TEST_CONTEXT("crash after batch " << after) expect_clean(image, Answers::kNone);
    if (finished) BOOST_CHECK_GE(after, 5u);
  }
}

BOOST_AUTO_TEST_CASE(a_cancelled_check_ends_between_repairs) {
  Image image;
  damage_widely(image);
  const std::atomic<bool> cancelled{true};
  CheckOptions options = image.options(Answers::kAll);
  options.cancelled = &cancelled;
  const auto report = check_file_system(options);
  BOOST_REQUIRE(report.ok());
  BOOST_CHECK(report->cancelled);
  BOOST_CHECK_EQUAL(image.check(Answers::kAll).uncorrected(), 0u);
  expect_clean(image, Answers::kNone);
}

BOOST_AUTO_TEST_CASE(answers_decide_problem_by_problem) {
  Image image;
  damage_widely(image);
  CheckOptions options = image.options(Answers::kAsk);
  std::size_t asked = 0;
  options.ask = [&](const Problem&) { return ++asked, false; };
  const auto before = image.check(Answers::kNone).found;
  const auto declined = check_file_system(options);
  BOOST_REQUIRE(declined.ok());
  BOOST_CHECK_EQUAL(asked, declined->found);
  BOOST_CHECK_EQUAL(declined->repaired, 0u);
  BOOST_CHECK(!declined->changed);
  BOOST_CHECK_EQUAL(image.check(Answers::kNone).found, before);
  options.ask = [](const Problem&) { return true; };
  BOOST_REQUIRE(check_file_system(options).ok());
  expect_clean(image, Answers::kNone);
}

BOOST_AUTO_TEST_CASE(reports_name_paths) {
  Image image;
  {
    Editor editor(image);
    editor.change(image.tree().f, [](Attributes& a) { a.nlink = 5; });
  }
  const CheckReport report = image.check(Answers::kNone);
  BOOST_REQUIRE_EQUAL(report.problems.size(), 1u);
  BOOST_CHECK_EQUAL(report.problems[0].path, "/d/e/f");
  BOOST_CHECK_EQUAL(report.problems[0].message(), "/d/e/f: inode " + std::to_string(image.tree().f.value()) +
                                                      ": the link count is wrong: 5, should be 1");
}

BOOST_AUTO_TEST_CASE(files_in_lost_memory_are_listed_and_are_no_problem_the_second_time) {
  Image image;
  image.node().restart_empty();
  const CheckReport first = image.check(Answers::kAll);
  BOOST_CHECK_EQUAL(first.uncorrected(), 0u);
  std::set<std::string> paths;
  for (const LostFile& file : first.lost_files) paths.insert(file.path);
  BOOST_CHECK(paths.contains("/d/e/f"));
  BOOST_CHECK(paths.contains("/big"));
  BOOST_CHECK(paths.contains("/a") || paths.contains("/d/link"));
  BOOST_CHECK(!paths.contains("/kept"));
  const CheckReport second = image.check(Answers::kNone);
  BOOST_CHECK_EQUAL(second.found, 0u);
  BOOST_CHECK_EQUAL(second.lost_files.size(), first.lost_files.size());
}

BOOST_AUTO_TEST_CASE(a_node_that_runs_with_another_pool_condemns_nothing_without_a_decision) {
  Image image;
  image.node().swap_pool();
  const CheckReport safe = image.check(Answers::kSafe);
  BOOST_CHECK(codes(safe).contains(ProblemCode::kChunkGenerationGone));
  BOOST_CHECK_EQUAL(safe.repaired, 0u);
  BOOST_CHECK(!safe.changed);
  image.node().swap_back();
  const CheckReport after = image.check(Answers::kNone);
  BOOST_CHECK_EQUAL(after.found, 0u);
  BOOST_CHECK(after.lost_files.empty());
}

BOOST_AUTO_TEST_CASE(what_was_condemned_is_used_again_by_the_mount_when_its_node_has_it_again) {
  Image image;
  image.node().swap_pool();
  BOOST_CHECK_EQUAL(image.check(Answers::kAll).uncorrected(), 0u);
  BOOST_CHECK(!image.check(Answers::kNone).lost_files.empty());
  image.node().swap_back();
  const CheckReport back = image.check(Answers::kAll);
  BOOST_CHECK_EQUAL(back.found, 0u);  // no region is given back, above all
  BOOST_CHECK(back.lost_files.empty());
  BOOST_CHECK(!back.notices.empty());
  image.mounted([&](Manager& manager, LoopExecutor&) {
    BOOST_CHECK_EQUAL(manager.space().lost_bytes, 0u);
    const Result<Pieces> pieces = manager.map(**manager.get(image.tree().f), 0, 4096);
    BOOST_REQUIRE(pieces.ok() && pieces->front().chunk != nullptr);
    BOOST_CHECK(pieces->front().chunk->state.load() == ChunkState::kActive);
  });
  const CheckReport after = image.check(Answers::kNone);
  BOOST_CHECK_EQUAL(after.found, 0u);
  BOOST_CHECK(after.notices.empty());
}

namespace {

// "begin-end:lost", "begin-end:hole" or "begin-end:data" of each piece of the file's first `length` bytes.
std::string layout(Manager& manager, InodeNumber ino, std::uint64_t length) {
  const Result<Pieces> pieces = manager.map(**manager.get(ino), 0, length);
  BOOST_REQUIRE(pieces.ok());
  std::string text;
  for (const Piece& piece : *pieces) {
    const bool lost = piece.chunk != nullptr && piece.chunk->state.load() == ChunkState::kLost;
    text += std::to_string(piece.file_offset) + "-" + std::to_string(piece.file_offset + piece.length) +
            (piece.chunk == nullptr ? ":hole "
             : lost                 ? ":lost "
                                    : ":data ");
  }
  return text;
}

std::string layout_after_repair(Image& image, InodeNumber ino, std::uint64_t length) {
  BOOST_CHECK_EQUAL(image.check(Answers::kAll).uncorrected(), 0u);
  const CheckReport again = image.check(Answers::kNone);
  BOOST_TEST_CONTEXT(listing(again)) BOOST_CHECK_EQUAL(again.found, 0u);
  BOOST_REQUIRE_EQUAL(again.lost_files.size(), 1u);
  BOOST_CHECK(again.lost_files.front().ino == ino);
  std::string text;
  image.mounted([&](Manager& manager, LoopExecutor&) { text = layout(manager, ino, length); });
  return text;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_damaged_extent_becomes_an_error_and_not_zeros) {
  Image image;
  {
    Editor editor(image);
    editor.put(extent_key(image.tree().a, 0), "bad");
  }
  // 8192 bytes, as the file's number of blocks says; the hole behind them stays one.
  BOOST_CHECK_EQUAL(layout_after_repair(image, image.tree().a, 69632), "0-8192:lost 8192-65536:hole 65536-69632:data ");
  // Truncated away, nothing of it is left.
  image.mounted([&](Manager& manager, LoopExecutor& loop) {
    const Result<InodeRef> a = manager.get(image.tree().a);
    BOOST_REQUIRE(loop.run(manager.truncate(*a, 0, {}, 0)).ok());
  });
  image.mounted([&](Manager& manager, LoopExecutor&) { BOOST_CHECK_EQUAL(manager.space().lost_bytes, 0u); });
  const CheckReport after = image.check(Answers::kNone);
  BOOST_CHECK_EQUAL(after.found, 0u);
  BOOST_CHECK(after.lost_files.empty());
}

BOOST_AUTO_TEST_CASE(a_damaged_extent_is_lost_up_to_the_next_one_when_the_number_of_blocks_does_not_help) {
  Image image;
  {
    Editor editor(image);
    editor.put(extent_key(image.tree().a, 0), "bad");
    editor.change(image.tree().a, [](Attributes& a) { a.blocks = 1; });
  }
  BOOST_CHECK_EQUAL(layout_after_repair(image, image.tree().a, 69632), "0-65536:lost 65536-69632:data ");
}

BOOST_AUTO_TEST_CASE(blocks_that_two_files_claim_are_an_error_for_one_of_them) {
  Image image;
  {
    Editor editor(image);
    Extent extent = editor.extents(image.tree().f).front().second;  // two blocks
    editor.put(extent_key(image.tree().a, 16384), encode(extent));
    editor.change(image.tree().a, [](Attributes& a) { a.blocks += 2, a.ctime = {1, 0}; });
  }
  BOOST_CHECK_EQUAL(layout_after_repair(image, image.tree().a, 69632),
                    "0-8192:data 8192-16384:hole 16384-24576:lost 24576-65536:hole 65536-69632:data ");
}

BOOST_AUTO_TEST_CASE(what_lies_outside_its_chunk_is_an_error) {
  Image image;
  const InodeNumber f = image.tree().f;
  {
    Editor editor(image);
    Extent extent = editor.extents(f).front().second;
    extent.chunk_offset = (1u << 20) - kBlockBytes;  // the second block is outside
    editor.put(extent_key(f, 0), encode(extent));
  }
  const std::string seen = layout_after_repair(image, f, 8192);
  BOOST_CHECK_MESSAGE(seen == "0-4096:data 4096-8192:lost " || seen == "0-8192:lost ",
                      seen);  // /big may have the first
}

BOOST_AUTO_TEST_CASE(a_chunk_that_never_was_is_an_error) {
  Image image;
  {
    Editor editor(image);
    Extent extent = editor.extents(image.tree().f).front().second;
    extent.chunk = ChunkId(9999);
    editor.put(extent_key(image.tree().f, 0), encode(extent));
  }
  BOOST_CHECK_EQUAL(layout_after_repair(image, image.tree().f, 8192), "0-8192:lost ");
}

// Made before two addresses of one node were refused, or an address leads elsewhere since.
BOOST_AUTO_TEST_CASE(a_node_with_two_addresses_is_said_and_keeps_all_its_leases) {
  Image image;
  Superblock superblock = *load_superblock(image.path());
  superblock.nodes.push_back({NodeId(1), "shm:/again/0"});
  BOOST_REQUIRE(store_superblock(image.path(), superblock).ok());
  const auto leases = [&image] { return image.node().client()->list(image.identity(), 1000)->size(); };
  const std::size_t before = leases();
  BOOST_REQUIRE_GT(before, 1u);
  const CheckReport report = image.check(Answers::kAll);
  BOOST_TEST_CONTEXT(listing(report)) {
    BOOST_CHECK_EQUAL(report.found, 0u);
    BOOST_CHECK(listing(report).find("shm:/0 and shm:/again/0 are one and the same") != std::string::npos);
  }
  BOOST_CHECK_EQUAL(leases(), before);
  // What really is nobody's is found once and given back once.
  BOOST_REQUIRE(image.node().client()->lease(image.identity(), 1u << 20, 1u << 20, 9999, 1000).ok());
  const CheckReport second = image.check(Answers::kAll);
  BOOST_TEST_CONTEXT(listing(second)) {
    BOOST_CHECK_EQUAL(second.found, 1u);
    BOOST_CHECK(codes(second) == std::set{ProblemCode::kLeaseUnknown});
  }
  BOOST_CHECK_EQUAL(leases(), before);
}

BOOST_AUTO_TEST_CASE(a_silent_node_is_said_and_is_no_damage) {
  Image image;
  image.node().silent = true;
  const CheckReport report = image.check(Answers::kAll);
  BOOST_CHECK_EQUAL(report.found, 0u);
  BOOST_REQUIRE_EQUAL(report.notices.size(), 1u);
}

BOOST_AUTO_TEST_CASE(a_chunk_record_that_only_a_silent_node_knows_is_left_alone) {
  Image image;
  {
    Editor editor(image);
    editor.put(chunk_key(editor.extents(image.tree().big).front().second.chunk), "bad");
  }
  image.node().silent = true;
  const CheckReport unsure = image.check(Answers::kAll);
  BOOST_TEST_CONTEXT(listing(unsure)) {
    BOOST_CHECK_EQUAL(unsure.found, 1u);
    BOOST_CHECK_EQUAL(unsure.uncorrected(), 1u);
  }
  image.node().silent = false;
  BOOST_CHECK_EQUAL(image.check(Answers::kAll).uncorrected(), 0u);
  const CheckReport after = image.check(Answers::kNone);
  BOOST_CHECK_EQUAL(after.found, 0u);
  BOOST_CHECK(after.lost_files.empty());
}

BOOST_AUTO_TEST_CASE(what_is_unattached_is_found_again_in_lost_found) {
  Image image;
  {
    Editor editor(image);
    editor.erase(editor.name_key(kRootInode, "d"));
  }
  BOOST_CHECK_EQUAL(image.check(Answers::kAll).uncorrected(), 0u);
  image.mounted([&](Manager& manager, LoopExecutor&) {
    const InodeRef lost = *manager.lookup(**manager.get(kRootInode), "lost+found");
    const InodeRef d = *manager.lookup(*lost, "#" + std::to_string(image.tree().d.value()));
    BOOST_CHECK(d->ino == image.tree().d);
    const InodeRef e = *manager.lookup(*d, "e");
    BOOST_CHECK((*manager.lookup(*e, "f"))->ino == image.tree().f);
  });
  expect_clean(image, Answers::kNone);
}

// RMEMFS_SEED and RMEMFS_ROUNDS choose others; the seed is printed.
BOOST_AUTO_TEST_CASE(random_damage_is_repaired_in_one_check) {
  const char* const given = std::getenv("RMEMFS_SEED");
  const char* const wanted = std::getenv("RMEMFS_ROUNDS");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : 20261122;
  const int rounds = wanted != nullptr ? std::atoi(wanted) : 60;
  BOOST_TEST_MESSAGE("seed " << seed);
  std::printf("random damage: seed %llu, %d rounds\n", static_cast<unsigned long long>(seed), rounds);
  for (int round = 0; round < rounds; ++round) {
    std::mt19937_64 random(seed + static_cast<std::uint64_t>(round));
    Image image;
    {
      Editor editor(image);
      for (std::uint64_t i = random() % 8 + 1; i > 0; --i) mutate(editor, random);
    }
    const auto before = image.contents();
    const CheckReport looked = image.check(Answers::kNone);
    BOOST_CHECK(image.contents() == before);
    const CheckReport repaired = image.check(Answers::kAll);
    BOOST_TEST_CONTEXT("seed " << seed << " round " << round << ", repair:" << listing(repaired)) {
      BOOST_CHECK_EQUAL(looked.found, repaired.found);
      BOOST_CHECK_EQUAL(repaired.uncorrected(), 0u);
      expect_clean(image, Answers::kAll);
    }
    image.mounted([](Manager& manager, LoopExecutor& loop) { BOOST_CHECK(loop.run(manager.purge_orphans()).ok()); });
    BOOST_TEST_CONTEXT("seed " << seed << " round " << round << ", after a mount") expect_clean(image, Answers::kNone);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
