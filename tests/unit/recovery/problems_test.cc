// One case per problem code: the sound image is damaged in exactly that way. Read only the damage is found and nothing
// is changed; -y repairs it; then nothing is found, and the file system can be mounted.
#define BOOST_TEST_DYN_LINK
#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>

#include "image.h"

namespace rmemfs {
namespace {

struct Damage {
  ProblemCode code;
  std::function<void(Image&)> inflict;
  std::vector<ProblemCode> also = {};  // that this damage cannot be without
};

// Damage to the store alone.
Damage in_store(ProblemCode code, std::function<void(Editor&, const Tree&)> inflict,
                std::vector<ProblemCode> also = {}) {
  return {code,
          [inflict](Image& image) {
            Editor editor(image);
            inflict(editor, image.tree());
          },
          std::move(also)};
}

std::string file_entry(InodeNumber ino, std::uint8_t type = DT_REG) { return encode(Dirent{ino, type}); }

std::pair<ChunkId, ChunkRecord> chunk_of(Editor& editor, InodeNumber ino) {
  const ChunkId id = editor.extents(ino).front().second.chunk;
  return {id, *decode_chunk(*editor.get(chunk_key(id)))};
}

void damage_journal_header(Image& image) {
  PmemOptions mapping;
  auto memory = map_persistent(image.path() + "/journal", mapping);
  BOOST_REQUIRE(memory.ok());
  (*memory)->data()[56] ^= std::byte{1};
}

// Two transactions in the journal, the first known persistent when the second was written; then the first goes.
void cut_journal(Image& image) {
  image.mounted(
      [&](Manager& manager, LoopExecutor& loop) {
        const InodeRef root = *manager.get(kRootInode);
        NewNode node;
        node.mode = S_IFREG | 0644;
        BOOST_REQUIRE(loop.run(manager.make_node(root, "one", node, 0)).ok());
        BOOST_REQUIRE(loop.run(manager.persist_all()).ok());
        BOOST_REQUIRE(loop.run(manager.make_node(root, "two", node, 0)).ok());
      },
      true);
  PmemOptions mapping;
  auto memory = map_persistent(image.path() + "/journal", mapping);
  BOOST_REQUIRE(memory.ok());
  auto store = Metastore::open(image.path() + "/db", Metastore::Mode::kReadOnly, image.superblock().uuid, {});
  BOOST_REQUIRE(store.ok());
  const auto scan = scan_journal(**memory, image.superblock().uuid, (*store)->durable_watermark());
  BOOST_REQUIRE(scan.ok());
  BOOST_REQUIRE(scan->first <= scan->last);
  for (const SlotReport& slot : scan->slots) {
    if (slot.id != scan->first || slot.state != SlotState::kCommitted) continue;
    std::byte* const header = (*memory)->data() + 4096 + std::size_t{slot.slot} * scan->geometry.slot_bytes;
    std::fill(header, header + 64, std::byte{0});
  }
}

std::vector<Damage> journal_damages() {
  return {
      {ProblemCode::kJournalGap, cut_journal},
      {ProblemCode::kJournalMissing, [](Image& image) { std::filesystem::remove(image.path() + "/journal"); }},
      {ProblemCode::kJournalDamaged, damage_journal_header},
  };
}

std::vector<Damage> inode_damages() {
  return {
      in_store(ProblemCode::kInodeDamaged, [](Editor& e, const Tree& t) { e.put(inode_key(t.pipe), "short"); },
               {ProblemCode::kDirentDangling, ProblemCode::kEntryCountWrong, ProblemCode::kInodeCounterWrong}),
      in_store(ProblemCode::kInodeDamaged, [](Editor& e, const Tree&) { e.put("Ixx", "y"); }),
      in_store(ProblemCode::kRootMissing, [](Editor& e, const Tree&) { e.erase(inode_key(kRootInode)); },
               {ProblemCode::kLinkCountWrong, ProblemCode::kEntryCountWrong}),
      in_store(ProblemCode::kRootMissing,
               [](Editor& e, const Tree&) {
                 e.change(kRootInode, [](Attributes& a) {
                   a.mode = S_IFREG | 0644;
                   a.entries = 0;
                   a.parent = InodeNumber();
                 });
               },
               {ProblemCode::kLinkCountWrong, ProblemCode::kEntryCountWrong}),
      in_store(ProblemCode::kInodeSizeBad,
               [](Editor& e, const Tree& t) { e.change(t.s, [](Attributes& a) { a.size = 100; }); }),
      in_store(ProblemCode::kInodeSizeBad,
               [](Editor& e, const Tree& t) { e.change(t.pipe, [](Attributes& a) { a.size = 1; }); }),
      in_store(ProblemCode::kInodeFieldBad,
               [](Editor& e, const Tree& t) { e.change(t.a, [](Attributes& a) { a.rdev = 7; }); }),
      in_store(ProblemCode::kInodeFieldBad,
               [](Editor& e, const Tree& t) { e.change(t.d, [](Attributes& a) { a.blocks = 7; }); }),
      in_store(ProblemCode::kSymlinkMissing, [](Editor& e, const Tree& t) { e.erase(symlink_key(t.s)); },
               {ProblemCode::kDirentDangling, ProblemCode::kEntryCountWrong, ProblemCode::kInodeCounterWrong}),
      in_store(ProblemCode::kSymlinkMissing,
               [](Editor& e, const Tree& t) { e.put(symlink_key(t.s), std::string(5000, 'x')); },
               {ProblemCode::kDirentDangling, ProblemCode::kEntryCountWrong, ProblemCode::kInodeCounterWrong}),
      in_store(ProblemCode::kSymlinkStray, [](Editor& e, const Tree& t) { e.put(symlink_key(t.a), "b"); }),
      in_store(ProblemCode::kSymlinkStray, [](Editor& e, const Tree&) { e.put(symlink_key(InodeNumber(9999)), "b"); }),
      in_store(ProblemCode::kExtendedDamaged,
               [](Editor& e, const Tree& t) { e.change(t.a, [](Attributes& a) { a.extended_bytes = 20; }); }),
      in_store(ProblemCode::kExtendedDamaged, [](Editor& e, const Tree& t) { e.put(extended_key(t.d), "short"); }),
      in_store(ProblemCode::kExtendedLength,
               [](Editor& e, const Tree& t) {
                 e.put(extended_key(t.a), encode_extended({{"user.a", "value"}}));
               }),
      in_store(ProblemCode::kExtendedStray,
               [](Editor& e, const Tree&) {
                 e.put(extended_key(InodeNumber(9999)), encode_extended({{"user.a", "value"}}));
               }),
  };
}

std::vector<Damage> name_damages() {
  return {
      in_store(ProblemCode::kDirentDamaged, [](Editor& e, const Tree&) { e.put(e.name_key(kRootInode, "a"), "x"); },
               {ProblemCode::kLinkCountWrong, ProblemCode::kEntryCountWrong}),
      in_store(ProblemCode::kDirentNoDirectory,
               [](Editor& e, const Tree& t) { e.put(e.name_key(t.a, "x"), file_entry(t.f)); }),
      in_store(ProblemCode::kDirentNoDirectory,
               [](Editor& e, const Tree& t) { e.put(e.name_key(InodeNumber(9999), "x"), file_entry(t.f)); }),
      in_store(ProblemCode::kDirentBadName,
               [](Editor& e, const Tree& t) { e.put(e.name_key(kRootInode, "x/y"), file_entry(t.f)); }),
      in_store(ProblemCode::kDirentBadName, [](Editor& e, const Tree& t) { e.put("D123", file_entry(t.f)); }),
      in_store(ProblemCode::kDirentDangling,
               [](Editor& e, const Tree&) {
                 e.put(e.name_key(kRootInode, "x"), file_entry(InodeNumber(9999)));
                 e.change(kRootInode, [](Attributes& a) { ++a.entries; });
               },
               {ProblemCode::kEntryCountWrong}),
      in_store(ProblemCode::kDirentWrongHash,
               [](Editor& e, const Tree& t) {
                 e.erase(e.name_key(t.e, "f"));
                 e.put(dirent_key(t.e, 77, "f"), file_entry(t.f));
               }),
      in_store(ProblemCode::kDirentDuplicate,
               [](Editor& e, const Tree& t) { e.put(dirent_key(t.e, 77, "f"), file_entry(t.f)); }),
      in_store(ProblemCode::kDirentWrongType,
               [](Editor& e, const Tree& t) { e.put(e.name_key(t.e, "f"), file_entry(t.f, DT_FIFO)); }),
      in_store(ProblemCode::kDirentToRoot,
               [](Editor& e, const Tree& t) { e.put(e.name_key(t.e, "up"), file_entry(kRootInode, DT_DIR)); }),
      in_store(ProblemCode::kDirectoryTwoNames,
               [](Editor& e, const Tree& t) { e.put(e.name_key(kRootInode, "e2"), file_entry(t.e, DT_DIR)); }),
      in_store(ProblemCode::kDirectoryTwoNames,
               [](Editor& e, const Tree& t) { e.put(e.name_key(t.e, "loop"), file_entry(t.d, DT_DIR)); }),
      in_store(ProblemCode::kDirectoryLoop,
               [](Editor& e, const Tree& t) {
                 e.erase(e.name_key(kRootInode, "d"));
                 e.put(e.name_key(t.e, "d"), file_entry(t.d, DT_DIR));
                 e.change(kRootInode, [](Attributes& a) { --a.entries, --a.nlink; });
                 e.change(t.e, [](Attributes& a) { ++a.entries, ++a.nlink; });
                 e.change(t.d, [&](Attributes& a) { a.parent = t.e; });
               },
               {ProblemCode::kLinkCountWrong, ProblemCode::kEntryCountWrong}),
      in_store(ProblemCode::kDirectoryUnattached,
               [](Editor& e, const Tree& t) {
                 e.erase(e.name_key(t.d, "e"));
                 e.change(t.d, [](Attributes& a) { --a.entries, --a.nlink; });
               }),
      in_store(ProblemCode::kInodeUnattached,
               [](Editor& e, const Tree& t) {
                 e.erase(e.name_key(t.e, "f"));
                 e.change(t.e, [](Attributes& a) { --a.entries; });
               }),
      in_store(ProblemCode::kParentWrong,
               [](Editor& e, const Tree& t) { e.change(t.e, [](Attributes& a) { a.parent = kRootInode; }); }),
      in_store(ProblemCode::kParentWrong,
               [](Editor& e, const Tree& t) { e.change(kRootInode, [&](Attributes& a) { a.parent = t.e; }); }),
      in_store(ProblemCode::kLinkCountWrong,
               [](Editor& e, const Tree& t) { e.change(t.a, [](Attributes& a) { a.nlink = 9; }); }),
      in_store(ProblemCode::kLinkCountWrong,
               [](Editor& e, const Tree& t) { e.change(t.d, [](Attributes& a) { a.nlink = 2; }); }),
      in_store(ProblemCode::kEntryCountWrong,
               [](Editor& e, const Tree& t) { e.change(t.d, [](Attributes& a) { a.entries = 77; }); }),
  };
}

std::vector<Damage> extent_damages() {
  const auto spoil_chunk = [](Editor& e, const Tree& t) { e.put(chunk_key(chunk_of(e, t.big).first), "bad"); };
  return {
      in_store(ProblemCode::kChunkDamaged, spoil_chunk),
      in_store(ProblemCode::kChunkDamaged, [](Editor& e, const Tree&) { e.put("Cx", "bad"); }),
      in_store(ProblemCode::kChunkDamaged,
               [](Editor& e, const Tree& t) {
                 auto [id, record] = chunk_of(e, t.big);
                 record.node = NodeId(99);
                 e.put(chunk_key(id), encode(record));
               }),
      {ProblemCode::kChunkDamaged,
       [spoil_chunk](Image& image) {
         ChunkId id;
         {
           Editor editor(image);
           id = chunk_of(editor, image.tree().big).first;
           spoil_chunk(editor, image.tree());
         }
         const auto leases = image.node().client()->list(image.identity(), 1000);
         BOOST_REQUIRE(leases.ok());
         for (const LeasedRegion& lease : *leases) {
           if (lease.tag == id.value()) {
             BOOST_REQUIRE(image.node().client()->release(image.identity(), lease.id, 1000).ok());
           }
         }
       }},
      in_store(ProblemCode::kChunkRegionShared,
               [](Editor& e, const Tree& t) {
                 const auto [id, record] = chunk_of(e, t.big);
                 const std::uint64_t next = *decode_number(*e.get(singleton_key("next_chunk")));
                 e.put(chunk_key(ChunkId(next)), encode(record));
                 e.put(singleton_key("next_chunk"), encode_number(next + 1));
               }),
      in_store(ProblemCode::kChunkLeaseDiffers,
               [](Editor& e, const Tree& t) {
                 auto [id, record] = chunk_of(e, t.big);
                 record.region.key = AccessKey::random();
                 e.put(chunk_key(id), encode(record));
               }),
      in_store(ProblemCode::kExtentDamaged, [](Editor& e, const Tree& t) { e.put(extent_key(t.a, 1u << 20), "bad"); }),
      in_store(ProblemCode::kExtentDamaged,
               [](Editor& e, const Tree& t) {
                 Extent extent = e.extents(t.f).front().second;
                 extent.chunk_offset += 7;
                 e.put(extent_key(t.f, extent.file_offset), encode(extent));
               },
               {ProblemCode::kBlocksLeaked}),
      in_store(ProblemCode::kExtentNoInode,
               [](Editor& e, const Tree& t) {
                 const Extent extent = e.extents(t.f).front().second;
                 e.put(extent_key(InodeNumber(9999), 0), encode(extent));
               }),
      in_store(ProblemCode::kExtentNotFile,
               [](Editor& e, const Tree& t) {
                 const Extent extent = e.extents(t.f).front().second;
                 e.put(extent_key(t.d, 0), encode(extent));
               }),
      in_store(ProblemCode::kExtentUnknownChunk,
               [](Editor& e, const Tree& t) {
                 Extent extent = e.extents(t.f).front().second;
                 extent.chunk = ChunkId(9999);
                 e.put(extent_key(t.f, extent.file_offset), encode(extent));
               },
               {ProblemCode::kBlocksLeaked}),
      in_store(ProblemCode::kExtentUnknownChunk,
               [](Editor& e, const Tree& t) { e.erase(chunk_key(chunk_of(e, t.f).first)); }),
      in_store(ProblemCode::kExtentOutsideChunk,
               [](Editor& e, const Tree& t) {
                 Extent extent = e.extents(t.f).front().second;
                 extent.chunk_offset = 8u << 20;
                 e.put(extent_key(t.f, extent.file_offset), encode(extent));
               },
               {ProblemCode::kBlocksLeaked}),
      in_store(ProblemCode::kExtentOverlap,
               [](Editor& e, const Tree& t) {
                 Extent extent = e.extents(t.a).front().second;
                 extent.file_offset += 4096;
                 extent.chunk_offset += 4096;
                 extent.length -= 4096;
                 e.put(extent_key(t.a, extent.file_offset), encode(extent));
               }),
      in_store(ProblemCode::kExtentShared,
               [](Editor& e, const Tree& t) {
                 Extent extent = e.extents(t.f).front().second;
                 extent.file_offset = 1u << 20;
                 e.put(extent_key(t.a, extent.file_offset), encode(extent));
                 e.change(t.a, [&](Attributes& a) { a.blocks += extent.length / kBlockBytes; });
               }),
      in_store(ProblemCode::kBlockCountWrong,
               [](Editor& e, const Tree& t) { e.change(t.a, [](Attributes& a) { a.blocks = 1000; }); }),
  };
}

std::vector<Damage> space_damages() {
  return {
      in_store(ProblemCode::kBlocksLeaked,
               [](Editor& e, const Tree& t) {
                 const ChunkId id = chunk_of(e, t.kept).first;
                 std::string bitmap = e.get(bitmap_key(id)).value_or("");
                 bitmap.resize(32, '\0');
                 bitmap.back() = '\x80';
                 e.put(bitmap_key(id), bitmap);
               }),
      in_store(ProblemCode::kBlocksUnmarked,
               [](Editor& e, const Tree& t) { e.erase(bitmap_key(chunk_of(e, t.big).first)); }),
      in_store(ProblemCode::kBitmapDamaged,
               [](Editor& e, const Tree& t) {
                 const ChunkId id = chunk_of(e, t.big).first;
                 std::string bitmap = e.get(bitmap_key(id)).value_or("");
                 bitmap.resize(40, '\0');
                 bitmap.back() = 1;
                 e.put(bitmap_key(id), bitmap);
               }),
      in_store(ProblemCode::kBitmapNoChunk, [](Editor& e, const Tree&) { e.put(bitmap_key(ChunkId(9999)), "\1"); }),
      in_store(ProblemCode::kNextInodeLow,
               [](Editor& e, const Tree&) { e.put(singleton_key("next_inode"), encode_number(3)); }),
      in_store(ProblemCode::kNextInodeLow, [](Editor& e, const Tree&) { e.erase(singleton_key("next_inode")); }),
      in_store(ProblemCode::kNextChunkLow,
               [](Editor& e, const Tree&) { e.put(singleton_key("next_chunk"), encode_number(1)); }),
      in_store(ProblemCode::kInodeCounterWrong,
               [](Editor& e, const Tree&) { e.put(singleton_key("inodes"), encode_number(100)); }),
      in_store(ProblemCode::kInodeCounterWrong, [](Editor& e, const Tree&) { e.put(singleton_key("inodes"), "x"); }),
  };
}

std::vector<Damage> orphan_damages() {
  return {
      in_store(ProblemCode::kOrphanDamaged, [](Editor& e, const Tree&) { e.put("Ox", ""); }),
      in_store(ProblemCode::kOrphanDamaged, [](Editor& e, const Tree& t) { e.put(orphan_key(t.gone), "x"); }),
      in_store(ProblemCode::kOrphanNoInode, [](Editor& e, const Tree&) { e.put(orphan_key(InodeNumber(9999)), ""); }),
      in_store(ProblemCode::kOrphanLinked, [](Editor& e, const Tree& t) { e.put(orphan_key(t.a), ""); }),
      in_store(ProblemCode::kOrphanUnrecorded, [](Editor& e, const Tree& t) { e.erase(orphan_key(t.gone)); }),
  };
}

void release_region_of_big(Image& image) {
  RegionId region;
  {
    Editor editor(image);
    region = chunk_of(editor, image.tree().big).second.region.id;
  }
  BOOST_REQUIRE(image.node().client()->release(image.identity(), region, 1000).ok());
}

std::vector<Damage> node_damages() {
  return {
      {ProblemCode::kChunkGenerationGone, [](Image& image) { image.node().restart_empty(); }},
      {ProblemCode::kChunkRegionMissing, release_region_of_big},
      {ProblemCode::kLeaseUnknown,
       [](Image& image) {
         BOOST_REQUIRE(image.node().client()->lease(image.identity(), 1u << 20, 1u << 20, 9999, 1000).ok());
       }},
  };
}

std::vector<Damage> all_damages() {
  std::vector<Damage> all;
  for (auto family :
       {journal_damages, inode_damages, name_damages, extent_damages, space_damages, orphan_damages, node_damages}) {
    for (Damage& damage : family()) all.push_back(std::move(damage));
  }
  return all;
}

const std::vector<Damage>& damages() {
  static const std::vector<Damage> kAll = all_damages();
  return kAll;
}

std::set<ProblemCode> codes_of(const CheckReport& report) {
  std::set<ProblemCode> codes;
  for (const Problem& problem : report.problems) codes.insert(problem.code);
  return codes;
}

std::string listing(const CheckReport& report) {
  std::string text;
  for (const Problem& problem : report.problems) text += "\n  " + problem.message();
  return text;
}

void must_mount(Image& image) {
  image.mounted([](Manager& manager, LoopExecutor& loop) {
    BOOST_CHECK(loop.run(manager.purge_orphans()).ok());
    NewNode node;
    node.mode = S_IFREG | 0644;
    const InodeRef made = *loop.run(manager.make_node(*manager.get(kRootInode), "new", node, 0));
    const auto plan = loop.run(manager.plan_write(made, 0, 4096, deadline_after_ms(10000)));
    BOOST_REQUIRE(plan.ok());
    BOOST_CHECK(loop.run(manager.commit_write(made, *plan, SetId::kKeep, 0)).ok());
  });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(Problems)

BOOST_DATA_TEST_CASE(each_is_found_untouched_read_only_repaired_once_and_then_gone,
                     boost::unit_test::data::xrange(damages().size()), index) {
  const Damage& damage = damages()[index];
  BOOST_TEST_CONTEXT(info_of(damage.code).name << ", damage " << index) {
    Image image;
    damage.inflict(image);
    const auto before = image.contents();
    const CheckReport looked = image.check(Answers::kNone);
    BOOST_TEST_CONTEXT("read only:" << listing(looked)) {
      std::set<ProblemCode> allowed(damage.also.begin(), damage.also.end());
      allowed.insert(damage.code);
      const std::set<ProblemCode> seen = codes_of(looked);
      BOOST_CHECK(seen.contains(damage.code));
      BOOST_CHECK(std::includes(allowed.begin(), allowed.end(), seen.begin(), seen.end()));
      BOOST_CHECK_EQUAL(looked.repaired, 0u);
      BOOST_CHECK(!looked.changed);
    }
    BOOST_CHECK(image.contents() == before);

    const CheckReport repaired = image.check(Answers::kAll);
    BOOST_TEST_CONTEXT("repair:" << listing(repaired)) {
      BOOST_CHECK(codes_of(repaired).contains(damage.code));
      BOOST_CHECK_EQUAL(repaired.uncorrected(), 0u);
      BOOST_CHECK(repaired.changed);
    }
    const CheckReport again = image.check(Answers::kAll);
    BOOST_TEST_CONTEXT("again:" << listing(again)) {
      BOOST_CHECK_EQUAL(again.found, 0u);
      BOOST_CHECK(!again.changed);
    }
    must_mount(image);
    const CheckReport after = image.check(Answers::kNone);
    BOOST_TEST_CONTEXT("after a mount:" << listing(after)) BOOST_CHECK_EQUAL(after.found, 0u);
  }
}

BOOST_AUTO_TEST_CASE(every_code_of_the_table_has_a_case) {
  std::set<ProblemCode> covered;
  for (const Damage& damage : damages()) covered.insert(damage.code);
  for (const ProblemInfo& info : problem_table()) {
    BOOST_CHECK_MESSAGE(covered.contains(info.code), info.name << " has no case");
  }
}

BOOST_AUTO_TEST_CASE(the_manual_page_lists_every_code) {
  std::ostringstream page;
  page << std::ifstream(RMEMFS_SOURCE_DIR "/man/fsck.rmemfs.8").rdbuf();
  for (const ProblemInfo& info : problem_table()) {
    char code[8];
    std::snprintf(code, sizeof code, "0x%04x", static_cast<unsigned>(info.code));
    const std::string entry = ".It Li " + std::string(code) + " Li " + std::string(info.name.substr(1));
    BOOST_CHECK_MESSAGE(page.str().find(entry) != std::string::npos, entry << " is not in the manual page");
  }
}

BOOST_DATA_TEST_CASE(preening_repairs_what_is_safe_and_leaves_what_needs_a_decision,
                     boost::unit_test::data::xrange(damages().size()), index) {
  const Damage& damage = damages()[index];
  BOOST_TEST_CONTEXT(info_of(damage.code).name << ", damage " << index) {
    if (info_of(damage.code).pass() == CheckPass::kJournal) return;
    Image image;
    damage.inflict(image);
    const CheckReport report = image.check(Answers::kSafe);
    const bool decision = std::any_of(report.problems.begin(), report.problems.end(), [](const Problem& problem) {
      return info_of(problem.code).risk == RepairRisk::kDecision;
    });
    BOOST_CHECK_EQUAL(report.uncorrected() != 0, decision);
    if (!decision) BOOST_CHECK_EQUAL(image.check(Answers::kNone).found, 0u);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
