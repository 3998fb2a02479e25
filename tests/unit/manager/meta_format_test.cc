#include "manager/meta_format.h"

#include <random>

#include "fixture.h"

namespace rmemfs {
namespace {

Attributes some_attributes() {
  Attributes a;
  a.ino = InodeNumber(42);
  a.mode = S_IFDIR | 02755;
  a.nlink = 7;
  a.uid = 1000;
  a.gid = 1001;
  a.size = 4096;
  a.entries = 12;
  a.parent = InodeNumber(3);
  a.atime = {-5, 999999999};
  a.mtime = {1, 2};
  a.ctime = {3, 4};
  a.btime = {5, 6};
  return a;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(meta_format)

BOOST_AUTO_TEST_CASE(an_inode_comes_back_as_it_was) {
  const Attributes a = some_attributes();
  const std::string bytes = encode(a);
  BOOST_CHECK_EQUAL(bytes.size(), 128u);
  const auto back = decode_inode(inode_key(a.ino), bytes);
  BOOST_REQUIRE(back.ok());
  BOOST_CHECK(*back == a);
}

BOOST_AUTO_TEST_CASE(keys_sort_as_their_numbers_do) {
  BOOST_CHECK(inode_key(InodeNumber(255)) < inode_key(InodeNumber(256)));
  BOOST_CHECK(extent_key(InodeNumber(1), 1u << 20) < extent_key(InodeNumber(2), 0));
  BOOST_CHECK(dirent_key(InodeNumber(1), 5, "b") < dirent_key(InodeNumber(1), 6, "a"));
}

BOOST_AUTO_TEST_CASE(keys_come_back_as_they_were) {
  BOOST_CHECK(*decode_inode_key(inode_key(InodeNumber(9))) == InodeNumber(9));
  BOOST_CHECK(*decode_inode_key(orphan_key(InodeNumber(9))) == InodeNumber(9));
  BOOST_CHECK(*decode_chunk_key(bitmap_key(ChunkId(8))) == ChunkId(8));
  const std::string key = dirent_key(InodeNumber(4), 1234, "name");
  const auto back = decode_dirent_key(key);
  BOOST_REQUIRE(back.ok());
  BOOST_CHECK(back->parent == InodeNumber(4) && back->hash == 1234 && back->name == "name");
}

BOOST_AUTO_TEST_CASE(hostile_directory_keys_are_refused) {
  for (const std::string& name : {std::string("."), std::string(".."), std::string("a/b"), std::string("a\0b", 3),
                                  std::string(), std::string(256, 'x')}) {
    BOOST_CHECK(!decode_dirent_key(dirent_key(InodeNumber(1), 100, name)).ok());
  }
  BOOST_CHECK(!decode_dirent_key(dirent_key(InodeNumber(1), 2, "a")).ok());
  BOOST_CHECK(!decode_dirent_key(dirent_key(InodeNumber(0), 100, "a")).ok());
}

BOOST_AUTO_TEST_CASE(entries_extents_and_chunks_come_back_as_they_were) {
  const auto dirent = decode_dirent(encode(Dirent{InodeNumber(6), 8}));
  BOOST_CHECK(dirent.ok() && dirent->ino == InodeNumber(6) && dirent->type == 8);
  const Extent extent{8192, 12288, ChunkId(3), 4096, true};
  const auto back = decode_extent(extent_key(InodeNumber(5), extent.file_offset), encode(extent));
  BOOST_CHECK(back.ok() && *back == extent);
  ChunkRecord chunk;
  chunk.node = NodeId(2);
  chunk.region = {RegionId(7),
                  Generation(8),
                  AccessKey::random(),
                  1u << 20,
                  4096,
                  99,
                  {Durability::kPersistent, PersistMethod::kNodeFlush}};
  chunk.state = ChunkState::kLost;
  const auto chunk_back = decode_chunk(encode(chunk));
  BOOST_REQUIRE(chunk_back.ok());
  BOOST_CHECK(encode(*chunk_back) == encode(chunk));
}

BOOST_AUTO_TEST_CASE(misaligned_and_overflowing_extents_are_refused) {
  const auto bad = [](Extent e) { return !decode_extent(extent_key(InodeNumber(5), e.file_offset), encode(e)).ok(); };
  BOOST_CHECK(bad({1, 4096, ChunkId(1), 0}));
  BOOST_CHECK(bad({0, 100, ChunkId(1), 0}));
  BOOST_CHECK(bad({0, 0, ChunkId(1), 0}));
  BOOST_CHECK(bad({0, 4096, ChunkId(0), 0}));
  BOOST_CHECK(bad({0, 4096, ChunkId(1), 7}));
  BOOST_CHECK(bad({UINT64_MAX - 4095, 4096, ChunkId(1), 0}));
  BOOST_CHECK(bad({0, 4096, ChunkId(1), UINT64_MAX - 4095}));
}

BOOST_AUTO_TEST_CASE(no_bytes_crash_a_decoder_and_what_decodes_encodes_to_the_same) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::string key(random() % 24, '\0'), value(random() % 3 == 0 ? random() % 150 : 128, '\0');
    for (char& c : key) c = static_cast<char>(random());
    for (char& c : value) c = random() % 4 == 0 ? static_cast<char>(random()) : '\0';
    if (!key.empty()) key[0] = "IDSEOCBM"[random() % 8];
    (void)decode_dirent_key(key);
    (void)decode_extent(key, value);
    (void)decode_chunk(value);
    (void)decode_dirent(value);
    const auto inode = decode_inode(key, value);
    if (inode.ok()) BOOST_REQUIRE(encode(*inode) == value);
    std::string merged = value.substr(0, value.size() / 2);
    (void)apply_merge(key, merged, value);
  }
}

BOOST_AUTO_TEST_CASE(bitmap_runs_set_and_clear_blocks) {
  std::string bitmap;
  const std::string key = bitmap_key(ChunkId(1));
  const BlockRun runs[] = {{3, 10, true}, {5, 2, false}};
  BOOST_REQUIRE(apply_merge(key, bitmap, encode_runs(runs)).ok());
  for (unsigned block = 0; block < 16; ++block) {
    const bool set = (bitmap[block / 8] >> (block % 8) & 1) != 0;
    BOOST_CHECK_EQUAL(set, block >= 3 && block < 13 && block != 5 && block != 6);
  }
}

BOOST_AUTO_TEST_CASE(concatenated_operands_do_what_they_did_apart) {
  std::string once, twice;
  const std::string key = bitmap_key(ChunkId(1));
  const BlockRun first[] = {{0, 64, true}}, second[] = {{10, 5, false}};
  BOOST_REQUIRE(apply_merge(key, once, encode_runs(first) + encode_runs(second)).ok());
  BOOST_REQUIRE(apply_merge(key, twice, encode_runs(first)).ok());
  BOOST_REQUIRE(apply_merge(key, twice, encode_runs(second)).ok());
  BOOST_CHECK(once == twice);
}

BOOST_AUTO_TEST_CASE(counters_add_and_refuse_to_go_below_zero) {
  std::string value;
  const std::string key = singleton_key("inodes");
  BOOST_REQUIRE(apply_merge(key, value, encode_number(5)).ok());
  BOOST_REQUIRE(apply_merge(key, value, encode_number(~std::uint64_t{1})).ok());  // -2
  BOOST_CHECK_EQUAL(*decode_number(value), 3u);
  BOOST_CHECK(!apply_merge(key, value, encode_number(~std::uint64_t{3})).ok());  // -4
  BOOST_CHECK(!apply_merge(key, value, "abc").ok());
}

BOOST_AUTO_TEST_CASE(a_merge_of_another_key_or_beyond_a_chunk_is_refused) {
  std::string value;
  const BlockRun runs[] = {{kMaxChunkBlocks, 1, true}};
  BOOST_CHECK(!apply_merge(bitmap_key(ChunkId(1)), value, encode_runs(runs)).ok());
  BOOST_CHECK(!apply_merge(inode_key(kRootInode), value, encode_number(1)).ok());
}

BOOST_AUTO_TEST_CASE(hashes_leave_room_for_dot_and_dot_dot) {
  for (int i = 0; i < 1000; ++i) {
    const auto hash = hash_name("name" + std::to_string(i), 7);
    BOOST_CHECK(hash >= 3 && hash >> 63 == 0);
  }
  BOOST_CHECK(hash_name("a", 1) != hash_name("a", 2));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
