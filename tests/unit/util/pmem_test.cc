#define BOOST_TEST_DYN_LINK
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "util/pmem.h"

namespace rmemfs {
namespace {

struct Folder {
  Folder() {
    char name[] = "/tmp/rmemfs-pmem-test.XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string file(const char* name) const { return path + "/" + name; }
  std::string path;
};

constexpr std::size_t kSize = 64 << 10;

BOOST_FIXTURE_TEST_SUITE(PmemTest, Folder)

BOOST_AUTO_TEST_CASE(what_is_stored_is_found_again) {
  {
    auto memory = map_persistent(file("pool"), {.create = true, .size = kSize});
    BOOST_REQUIRE(memory.ok());
    BOOST_TEST((*memory)->size() == kSize);
    std::memcpy((*memory)->data() + 100, "hello", 5);
    (*memory)->persist((*memory)->data() + 100, 5);
    BOOST_TEST((*memory)->sync().ok());
  }
  auto again = map_persistent(file("pool"), {});
  BOOST_REQUIRE(again.ok());
  BOOST_TEST(std::memcmp((*again)->data() + 100, "hello", 5) == 0);
}
BOOST_AUTO_TEST_CASE(an_ordinary_file_does_not_claim_that_its_drain_is_persistent) {
  auto plain = map_persistent(file("plain"), {.create = true, .size = kSize});
  auto forced = map_persistent(file("forced"), {.create = true, .size = kSize, .force_pmem = true});
  BOOST_REQUIRE((plain.ok() && forced.ok()));
  BOOST_TEST(((*plain)->backing() == PersistentMemory::Backing::kFile));
  BOOST_TEST(!(*plain)->drain_is_persistent());
  BOOST_TEST(((*forced)->backing() == PersistentMemory::Backing::kForced));
  BOOST_TEST((*forced)->drain_is_persistent());
  std::memset((*forced)->data(), 1, kSize);
  (*forced)->persist((*forced)->data(), kSize);
}
BOOST_AUTO_TEST_CASE(every_block_is_allocated) {
  const auto blocks = [this](const char* name) {
    struct stat status {};
    ::stat(file(name).c_str(), &status);
    return static_cast<std::size_t>(status.st_blocks) * 512;
  };
  BOOST_REQUIRE(map_persistent(file("new"), {.create = true, .size = kSize}).ok());
  BOOST_TEST(blocks("new") >= kSize);
  std::ofstream(file("sparse")).close();
  std::filesystem::resize_file(file("sparse"), kSize);
  BOOST_REQUIRE(map_persistent(file("sparse"), {}).ok());
  BOOST_TEST(blocks("sparse") >= kSize);
}
BOOST_AUTO_TEST_CASE(each_refusal_has_its_code_and_names_the_file) {
  const auto missing = map_persistent(file("missing"), {});
  BOOST_TEST((missing.error().code == Errc::kNotFound));
  BOOST_TEST(missing.error().message().find("missing") != std::string::npos);
  std::ofstream(file("empty")).close();
  BOOST_TEST((map_persistent(file("empty"), {}).error().code == Errc::kCorrupt));
  BOOST_TEST((map_persistent(file("empty"), {.create = true, .size = kSize}).error().code == Errc::kExists));
  BOOST_TEST((map_persistent(file("none"), {.create = true}).error().code == Errc::kInvalid));
  BOOST_TEST(!std::filesystem::exists(file("none")));
}
BOOST_AUTO_TEST_CASE(a_file_that_does_not_fit_is_refused_and_removed) {
  const auto huge = map_persistent(file("huge"), {.create = true, .size = std::size_t{1} << 60});
  BOOST_REQUIRE(!huge.ok());
  BOOST_TEST(!std::filesystem::exists(file("huge")));
}
BOOST_AUTO_TEST_CASE(a_read_only_mapping_needs_no_right_to_write) {
  BOOST_REQUIRE(map_persistent(file("pool"), {.create = true, .size = kSize}).ok());
  ::chmod(file("pool").c_str(), 0400);
  const auto memory = map_persistent(file("pool"), {.read_only = true});
  BOOST_REQUIRE(memory.ok());
  BOOST_TEST((*memory)->size() == kSize);
  BOOST_TEST((*memory)->sync().ok());
}
BOOST_AUTO_TEST_CASE(a_program_that_is_started_does_not_inherit_the_file) {
  const auto memory = map_persistent(file("pool"), {.create = true, .size = kSize});
  BOOST_REQUIRE(memory.ok());
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    if (std::filesystem::read_symlink(entry.path(), ignored) != file("pool")) continue;
    const int fd = std::stoi(entry.path().filename().string());
    BOOST_TEST((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace rmemfs
