#include "manager/superblock.h"

#include <fcntl.h>

#include <fstream>

#include "fixture.h"
#include "util/bytes.h"
#include "util/crc32c.h"

namespace rmemfs {
namespace {

Superblock example() {
  Superblock sb;
  sb.uuid = Uuid::random();
  sb.key = AccessKey::random();
  sb.name_hash_seed = 77;
  sb.epoch = MountEpoch(5);
  sb.journal_path = "/dev/dax0.0";
  sb.local_bytes = 1u << 30;
  sb.local_pool = "/dev/shm/pool";
  sb.created = 1700000000;
  sb.label = "scratch";
  sb.nodes = {{NodeId(0), "shm:node.sock"}, {NodeId(3), "tcp://host:7471"}};
  return sb;
}

// Sets 8 bytes and makes the checksum right again.
std::string patched(std::string bytes, std::size_t at, std::uint64_t value) {
  store_le(reinterpret_cast<std::byte*>(bytes.data() + at), value);
  store_le(reinterpret_cast<std::byte*>(bytes.data() + 16), std::uint32_t{0});
  store_le(reinterpret_cast<std::byte*>(bytes.data() + 16), crc32c(as_bytes(bytes)));
  return bytes;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(superblock)

BOOST_AUTO_TEST_CASE(what_is_stored_is_loaded) {
  TempDir dir;
  const Superblock sb = example();
  BOOST_REQUIRE(store_superblock(dir.path(), sb).ok());
  const auto loaded = load_superblock(dir.path());
  BOOST_REQUIRE(loaded.ok());
  BOOST_CHECK(encode_superblock(*loaded) == encode_superblock(sb));
  BOOST_CHECK_EQUAL(loaded->nodes[1].address, "tcp://host:7471");
  BOOST_CHECK(loaded->key.matches(sb.key));
  BOOST_CHECK(!std::filesystem::exists(dir.path() + "/superblock.new"));
}

BOOST_AUTO_TEST_CASE(a_directory_without_one_is_not_formatted) {
  TempDir dir;
  BOOST_CHECK(load_superblock(dir.path()).error().code == Errc::kNotFormatted);
  BOOST_CHECK(load_superblock("/nowhere/at/all").error().code == Errc::kNotFormatted);
}

BOOST_AUTO_TEST_CASE(every_single_wrong_byte_is_detected) {
  const std::string good = encode_superblock(example());
  BOOST_REQUIRE(parse_superblock(as_bytes(good)).ok());
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      BOOST_REQUIRE_MESSAGE(!parse_superblock(as_bytes(bad)).ok(), "byte " << i << " bit " << bit);
    }
  }
}

BOOST_AUTO_TEST_CASE(every_truncation_and_extension_is_detected) {
  const std::string good = encode_superblock(example());
  for (std::size_t size = 0; size < good.size(); ++size) {
    BOOST_REQUIRE(!parse_superblock(as_bytes(std::string_view(good).substr(0, size))).ok());
  }
  BOOST_CHECK(!parse_superblock(as_bytes(good + '\0')).ok());
}

BOOST_AUTO_TEST_CASE(an_unknown_incompat_bit_is_refused_by_its_number) {
  const std::string good = encode_superblock(example());
  const auto refused = parse_superblock(as_bytes(patched(good, 56, std::uint64_t{1} << 37)));
  BOOST_REQUIRE(!refused.ok());
  BOOST_CHECK(refused.error().code == Errc::kUnsupportedFeature);
  BOOST_CHECK(refused.error().detail.find("37") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(unknown_compat_and_ro_compat_bits_can_be_read) {
  const std::string good = encode_superblock(example());
  BOOST_CHECK(parse_superblock(as_bytes(patched(good, 40, 4))).ok());
  BOOST_CHECK(parse_superblock(as_bytes(patched(good, 48, 4))).ok());
}

BOOST_AUTO_TEST_CASE(an_unknown_ro_compat_bit_refuses_to_open_for_writing) {
  Fixture f;
  auto sb = load_superblock(f.dir.path());
  BOOST_REQUIRE(sb.ok());
  sb->ro_compat = 4;
  BOOST_REQUIRE(store_superblock(f.dir.path(), *sb).ok());
  BOOST_CHECK(recover(f.dir.path(), {}).error().code == Errc::kUnsupportedFeature);
  BOOST_CHECK(recover(f.dir.path(), {.read_only = true}).ok());
}

BOOST_AUTO_TEST_CASE(a_newer_version_is_named) {
  const std::string good = encode_superblock(example());
  std::uint64_t word = load_le<std::uint64_t>(as_bytes(good).data() + 8);
  word = (word & ~std::uint64_t{0xffffffff}) | 9;
  const auto refused = parse_superblock(as_bytes(patched(good, 8, word)));
  BOOST_CHECK(refused.error().code == Errc::kVersion);
  BOOST_CHECK(refused.error().detail.find('9') != std::string::npos);
}

BOOST_AUTO_TEST_CASE(one_that_could_not_be_read_back_is_not_stored) {
  TempDir dir;
  BOOST_REQUIRE(store_superblock(dir.path(), example()).ok());
  Superblock bad = example();
  bad.nodes.clear();
  BOOST_CHECK(!store_superblock(dir.path(), bad).ok());
  bad = example();
  bad.label = std::string(65, 'x');
  BOOST_CHECK(!store_superblock(dir.path(), bad).ok());
  BOOST_CHECK(load_superblock(dir.path()).ok());
}

BOOST_AUTO_TEST_CASE(a_second_writer_learns_who_has_the_lock) {
  TempDir dir;
  BOOST_REQUIRE(store_superblock(dir.path(), example()).ok());
  auto first = lock_directory(dir.path(), LockMode::kExclusive, "mounted on /mnt by rmemfs");
  BOOST_REQUIRE(first.ok());
  for (LockMode mode : {LockMode::kExclusive, LockMode::kShared}) {
    const auto second = lock_directory(dir.path(), mode, "checked by fsck.rmemfs");
    BOOST_REQUIRE(!second.ok());
    BOOST_CHECK(second.error().code == Errc::kLocked);
    BOOST_CHECK(second.error().message().find("mounted on /mnt by rmemfs, pid " + std::to_string(::getpid())) !=
                std::string::npos);
  }
  first->reset();
  BOOST_CHECK(lock_directory(dir.path(), LockMode::kExclusive, "again").ok());
}

BOOST_AUTO_TEST_CASE(readers_share_and_keep_a_writer_out) {
  TempDir dir;
  BOOST_REQUIRE(store_superblock(dir.path(), example()).ok());
  BOOST_CHECK(lock_directory(dir.path(), LockMode::kShared, "dump").ok());
  BOOST_CHECK(!std::filesystem::exists(dir.path() + "/lock"));  // a reader changes nothing
  BOOST_CHECK(lock_directory(dir.path(), LockMode::kExclusive, "old holder").ok());
  const auto one = lock_directory(dir.path(), LockMode::kShared, "dump");
  const auto two = lock_directory(dir.path(), LockMode::kShared, "dump");
  BOOST_CHECK(one.ok() && two.ok());
  const auto writer = lock_directory(dir.path(), LockMode::kExclusive, "mount");
  BOOST_REQUIRE(!writer.ok());
  BOOST_CHECK(writer.error().message().find("old holder") == std::string::npos);
}

BOOST_AUTO_TEST_CASE(relative_paths_are_relative_to_the_directory) {
  Superblock sb = example();
  BOOST_CHECK_EQUAL(node_address_of("/d", sb.nodes[0]), "shm:/d/node.sock");
  BOOST_CHECK_EQUAL(node_address_of("/d", sb.nodes[1]), "tcp://host:7471");
  BOOST_CHECK_EQUAL(journal_path_of("/d", sb), "/dev/dax0.0");
  sb.journal_path.clear();
  BOOST_CHECK_EQUAL(journal_path_of("/d", sb), "/d/journal");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
