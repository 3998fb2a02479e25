// Plain values: checksums, bytes, errors, ids.
#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>
#include <cerrno>
#include <set>
#include <unordered_set>

#include "util/bytes.h"
#include "util/crc32c.h"
#include "util/error.h"
#include "util/ids.h"
#include "util/result.h"
#include "util/unique_fd.h"

namespace rmemfs {
namespace {

BOOST_AUTO_TEST_SUITE(Crc32cTest)

BOOST_AUTO_TEST_CASE(the_vectors_of_rfc_3720_hold) {
  std::string zeros(32, '\0'), ones(32, '\xff'), up, down;
  for (int i = 0; i < 32; ++i) {
    up.push_back(static_cast<char>(i));
    down.push_back(static_cast<char>(31 - i));
  }
  BOOST_TEST(crc32c(as_bytes(zeros)) == 0x8a9136aau);
  BOOST_TEST(crc32c(as_bytes(ones)) == 0x62a8ab43u);
  BOOST_TEST(crc32c(as_bytes(up)) == 0x46dd794eu);
  BOOST_TEST(crc32c(as_bytes(down)) == 0x113fdb5cu);
  BOOST_TEST(crc32c(as_bytes("123456789")) == 0xe3069283u);
  BOOST_TEST(crc32c({}) == 0u);
}
BOOST_AUTO_TEST_CASE(pieces_chained_by_the_seed_give_the_whole) {
  const std::string text = "the quick brown fox jumps over the lazy dog";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    const auto head = crc32c(as_bytes(text.substr(0, cut)));
    BOOST_TEST(crc32c(as_bytes(text.substr(cut)), head) == crc32c(as_bytes(text)));
  }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(BytesTest)

BOOST_AUTO_TEST_CASE(fields_are_little_endian) {
  std::string out;
  append_le<std::uint32_t>(out, 0x01020304);
  append_be64(out, 0x0102030405060708);
  BOOST_TEST(out == std::string("\x04\x03\x02\x01\x01\x02\x03\x04\x05\x06\x07\x08", 12));
  std::byte bytes[4];
  store_le<std::uint32_t>(bytes, 0xa0b0c0d0);
  BOOST_TEST(load_le<std::uint32_t>(bytes) == 0xa0b0c0d0u);
  BOOST_TEST(std::to_integer<int>(bytes[0]) == 0xd0);
}
BOOST_AUTO_TEST_CASE(a_reader_knows_when_it_is_done) {
  std::string text;
  append_le<std::uint16_t>(text, 7);
  append_be64(text, 9);
  text += "xyz";
  ByteReader reader(as_bytes(text));
  BOOST_TEST(reader.take<std::uint16_t>() == 7u);
  BOOST_TEST(reader.take_be64() == 9u);
  BOOST_TEST(!reader.done());
  BOOST_TEST(as_text(reader.take_bytes(3)) == "xyz");
  BOOST_TEST(reader.done());
}
BOOST_AUTO_TEST_CASE(a_short_read_gives_zero_and_is_remembered) {
  ByteReader reader(as_bytes("abc"));
  BOOST_TEST(reader.take<std::uint32_t>() == 0u);
  BOOST_TEST(reader.failed());
  BOOST_TEST(reader.take<std::uint8_t>() == 0u);  // nothing after the first failure
  BOOST_TEST(!reader.done());
  ByteReader bytes(as_bytes("abc"));
  BOOST_TEST(bytes.take_bytes(4).empty());
  BOOST_TEST(bytes.failed());
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(ErrorTest)

BOOST_AUTO_TEST_CASE(every_code_has_its_own_name_a_sentence_and_an_errno) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(Errc::kJournalFull); ++i) {
    const auto code = static_cast<Errc>(i);
    BOOST_TEST(name(code).starts_with("k"));
    BOOST_TEST(!sentence(code).empty());
    BOOST_TEST(errno_of(code) > 0);
    names.insert(name(code));
  }
  BOOST_TEST(names.size() == static_cast<std::size_t>(Errc::kJournalFull) + 1);
}
BOOST_AUTO_TEST_CASE(damage_and_distance_have_the_errnos_of_the_manual) {
  BOOST_TEST(errno_of(Errc::kCorrupt) == EUCLEAN);
  BOOST_TEST(errno_of(Errc::kChecksum) == EBADMSG);
  BOOST_TEST(errno_of(Errc::kFenced) == ESTALE);
  BOOST_TEST(errno_of(Errc::kUnreachable) == EIO);
  BOOST_TEST(errno_of(Errc::kDeadline) == EIO);
}
BOOST_AUTO_TEST_CASE(local_errnos_find_their_code) {
  BOOST_TEST((errc_from_errno(ENOENT) == Errc::kNotFound));
  BOOST_TEST((errc_from_errno(ENOSPC) == Errc::kNoSpace));
  BOOST_TEST((errc_from_errno(EXDEV) == Errc::kLocalIo));
}
BOOST_AUTO_TEST_CASE(a_message_names_the_place_the_thing_and_the_fault) {
  const std::string text = Error(Errc::kChecksum, "journal open", "/x/journal").message();
  BOOST_TEST(text.find("journal open") != std::string::npos);
  BOOST_TEST(text.find("/x/journal") != std::string::npos);
  BOOST_TEST(text.find("a checksum does not match") != std::string::npos);
}
BOOST_AUTO_TEST_CASE(a_message_says_the_systems_error_once) {
  BOOST_TEST(Error(Errc::kNotFound, "lock", "/x: No such file or directory").message() ==
             "lock: /x: No such file or directory");
  BOOST_TEST(Error(Errc::kNoSpace, "", "/x: No space left on device").message() == "/x: No space left on device");
  BOOST_TEST(Error(Errc::kReadOnly, "", "/x: Read-only file system").message() == "/x: Read-only file system");
  BOOST_TEST(Error(Errc::kNotFound, "lock", "/x").message() == "lock: /x: no such file or directory");
  BOOST_TEST(Error(Errc::kUnreachable, "read", "a: Input/output error").message() ==
             "read: a: Input/output error: the memory node cannot be reached");
}
BOOST_AUTO_TEST_CASE(results_pass_errors_on) {
  const auto half = [](int n) -> Result<int> {
    if (n % 2 != 0) return Errc::kInvalid;
    return n / 2;
  };
  const auto quarter = [&](int n) -> Result<int> {
    ASSIGN_OR_RETURN(const int h, half(n));
    RETURN_IF_ERROR(half(h));
    return h / 2;
  };
  BOOST_TEST(*quarter(8) == 2);
  BOOST_TEST((quarter(6).error().code == Errc::kInvalid));
  BOOST_TEST((quarter(5).error().code == Errc::kInvalid));
  BOOST_TEST(success().ok());
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(IdsTest)

BOOST_AUTO_TEST_CASE(a_uuid_survives_its_text) {
  for (int i = 0; i < 20; ++i) {
    const Uuid uuid = Uuid::random();
    const auto parsed = Uuid::parse(uuid.to_string());
    BOOST_REQUIRE(parsed.ok());
    BOOST_TEST((*parsed == uuid));
    BOOST_TEST(uuid.to_string().size() == 36u);
    BOOST_TEST(uuid.to_string()[14] == '4');
  }
  BOOST_TEST(Uuid{}.is_zero());
  BOOST_TEST(!Uuid::random().is_zero());
}
BOOST_AUTO_TEST_CASE(bad_uuids_are_refused) {
  for (const char* text : {"", "12", "zz345678-1234-1234-1234-123456789012", "12345678-1234-1234-1234-1234567890123"}) {
    BOOST_TEST(!Uuid::parse(text).ok());
  }
}
BOOST_AUTO_TEST_CASE(access_keys_match_only_themselves) {
  const AccessKey key = AccessKey::random();
  BOOST_TEST(key.matches(key));
  for (std::size_t i = 0; i < key.bytes.size(); ++i) {
    AccessKey other = key;
    other.bytes[i] ^= std::byte{1};
    BOOST_TEST(!key.matches(other));
  }
}
BOOST_AUTO_TEST_CASE(ids_are_ordered_and_hashable) {
  BOOST_TEST((CommitId(1).next() == CommitId(2)));
  BOOST_TEST((CommitId(1) < CommitId(2)));
  BOOST_TEST(std::unordered_set<CommitId>({CommitId(1), CommitId(1), CommitId(2)}).size() == 2u);
}
BOOST_AUTO_TEST_CASE(a_descriptor_has_one_owner) {
  int ends[2];
  BOOST_REQUIRE(::pipe(ends) == 0);
  UniqueFd reader(ends[0]);
  {
    UniqueFd writer(ends[1]);
    UniqueFd moved = std::move(writer);
    BOOST_TEST(!writer.valid());  // NOLINT(bugprone-use-after-move): it is what is tested
    BOOST_TEST(moved.get() == ends[1]);
  }
  char byte;
  BOOST_TEST(::read(reader.get(), &byte, 1) == 0);  // the writing end is closed
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace rmemfs
