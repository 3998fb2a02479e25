// Mount options about access times, extended attributes and access lists.
#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>

#include "tools/mount_options.h"

namespace rmemfs {
namespace {

using Rule = AccessTimes::Rule;

MountOptions parsed(std::string_view text) {
  MountOptions options;
  BOOST_REQUIRE(parse_mount_options(text, options).ok());
  return options;
}

AccessTimes times_of(std::string_view text) { return access_times_of(parsed(text).mount_flags()); }

}  // namespace

BOOST_AUTO_TEST_SUITE(access_options)

BOOST_AUTO_TEST_CASE(of_access_times_the_last_word_counts) {
  const std::pair<const char*, Rule> cases[] = {
      {"", Rule::kRelative},
      {"relatime", Rule::kRelative},
      {"noatime", Rule::kNever},
      {"strictatime", Rule::kAlways},
      {"noatime,atime", Rule::kRelative},
      {"noatime,strictatime", Rule::kAlways},
      {"strictatime,nostrictatime,lazytime", Rule::kRelative},
      {"strictatime,noatime,nosuid", Rule::kNever},
  };
  for (const auto& [text, rule] : cases) {
    BOOST_TEST_CONTEXT(text) {
      BOOST_CHECK(times_of(text).rule == rule);
      BOOST_CHECK(times_of(text).directories);
    }
  }
  BOOST_CHECK(!times_of("nodiratime").directories);
  BOOST_CHECK(times_of("nodiratime").rule == Rule::kRelative);
  BOOST_CHECK(times_of("nodiratime,diratime").directories);
}

BOOST_AUTO_TEST_CASE(without_attributes_there_are_no_access_lists_either) {
  BOOST_CHECK(parsed("").extended && parsed("").access_lists);
  BOOST_CHECK(parsed("noacl").extended && !parsed("noacl").access_lists);
  BOOST_CHECK(!parsed("noxattr").extended && !parsed("noxattr").access_lists);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
