#include <sys/mount.h>

#include <boost/test/unit_test.hpp>

#include "tools/mount_options.h"
#include "tools/mounts.h"

namespace rmemfs::test {
namespace {

MountOptions parsed(std::string_view text) {
  MountOptions options;
  const auto result = parse_mount_options(text, options);
  BOOST_TEST_REQUIRE(result.ok(), text << ": " << (result.ok() ? "" : result.error().detail));
  return options;
}

std::string refused(std::string_view text) {
  MountOptions options;
  const auto result = parse_mount_options(text, options);
  BOOST_TEST_REQUIRE(!result.ok(), std::string(text));
  return result.error().detail;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(mount_options)

BOOST_AUTO_TEST_CASE(programs_of_another_owner_and_devices_are_off_unless_asked_for) {
  BOOST_TEST(parsed("").mount_flags() == (MS_NOSUID | MS_NODEV));
  BOOST_TEST(parsed("suid,dev").mount_flags() == 0u);
  BOOST_TEST(parsed("suid,nosuid,dev").mount_flags() == static_cast<unsigned long>(MS_NOSUID));
}

BOOST_AUTO_TEST_CASE(of_two_words_that_exclude_each_other_the_later_one_holds) {
  const unsigned long base = MS_NOSUID | MS_NODEV;
  BOOST_TEST(parsed("ro,rw").mount_flags() == base);
  BOOST_TEST(parsed("rw,ro").mount_flags() == (base | MS_RDONLY));
  BOOST_TEST(parsed("noatime,strictatime").mount_flags() == (base | MS_STRICTATIME));
  BOOST_TEST(parsed("strictatime,relatime").mount_flags() == (base | MS_RELATIME));
  BOOST_TEST(parsed("relatime,noatime,diratime,nodiratime").mount_flags() == (base | MS_NOATIME | MS_NODIRATIME));
  BOOST_TEST(parsed("noatime,atime").mount_flags() == base);
  BOOST_TEST(parsed("lazytime,sync,dirsync,nolazytime,async").mount_flags() == (base | MS_DIRSYNC));
  BOOST_TEST(parsed("ro").read_only());
  BOOST_TEST(!parsed("ro,rw").read_only());
}

BOOST_AUTO_TEST_CASE(access_times_follow_one_of_three_rules_and_directories_may_be_left_out) {
  const auto rule_of = [](std::string_view text) { return access_times_of(parsed(text).mount_flags()).rule; };
  BOOST_TEST((rule_of("") == AccessTimes::Rule::kRelative));
  BOOST_TEST((rule_of("relatime") == AccessTimes::Rule::kRelative));
  BOOST_TEST((rule_of("noatime") == AccessTimes::Rule::kNever));
  BOOST_TEST((rule_of("noatime,strictatime") == AccessTimes::Rule::kAlways));
  BOOST_TEST((rule_of("strictatime,ro") == AccessTimes::Rule::kNever));
  BOOST_TEST(access_times_of(parsed("").mount_flags()).directories);
  BOOST_TEST(!access_times_of(parsed("nodiratime").mount_flags()).directories);
}

BOOST_AUTO_TEST_CASE(a_comma_between_quotes_is_part_of_a_context) {
  const MountOptions options = parsed("noexec,context=\"u:r:t:s0:c1,c2\",fscontext=u:r:t:s0,ro");
  BOOST_REQUIRE(options.contexts.size() == 2u);
  BOOST_TEST(options.contexts[0] == "context=\"u:r:t:s0:c1,c2\"");
  BOOST_TEST(options.contexts[1] == "fscontext=u:r:t:s0");
  BOOST_TEST(options.read_only());
  BOOST_TEST(refused("rootcontext=") == "option rootcontext=: names no context");
}

BOOST_AUTO_TEST_CASE(words_for_others_are_ignored_and_unknown_ones_named) {
  const MountOptions options = parsed(
      "defaults,auto,noauto,user,nouser,users,owner,group,nofail,_netdev,x-systemd.automount,x-a=b,X-mount.mkdir=0755,"
      "comment=what,user_id=0,group_id=0,default_permissions,silent,loud,,");
  BOOST_TEST(options.mount_flags() == (MS_NOSUID | MS_NODEV));
  BOOST_TEST(refused("fast") == "unknown option \"fast\"; see rmemfs(8)");
  BOOST_TEST(refused("fast=very") == "unknown option \"fast\"; see rmemfs(8)");
}

BOOST_AUTO_TEST_CASE(the_log_goes_where_it_is_told) {
  BOOST_TEST((parsed("").log == LogChoice::kDefault));
  BOOST_TEST((parsed("log=journal").log == LogChoice::kJournal));
  BOOST_TEST((parsed("log=/a/b").log == LogChoice::kFile));
  BOOST_TEST(parsed("log=/a/b").log_path == "/a/b");
  BOOST_TEST(parsed("log=/a/b,log=syslog").log_path.empty());
  BOOST_TEST(refused("log=nowhere") == "option log=nowhere: is none of journal, syslog, stderr and an absolute path");
}

BOOST_AUTO_TEST_CASE(the_oom_score_has_limits) {
  BOOST_TEST(*parsed("oom_score_adj=-1000").oom_score == -1000);
  BOOST_TEST(*parsed("oom_score_adj=17").oom_score == 17);
  for (const char* bad : {"oom_score_adj=", "oom_score_adj=-1001", "oom_score_adj=1001", "oom_score_adj=1x"})
    refused(bad);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(mounts)

BOOST_AUTO_TEST_CASE(a_line_of_mountinfo_gives_place_connection_and_flags) {
  const auto found = parse_mountinfo(
      "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
      "40 22 0:53 / /mnt/a\\040b rw,nosuid,nodev,noexec,relatime shared:7 master:2 - fuse.rmemfs /var/fs rw,user_id=0\n"
      "41 22 0:54 / /mnt/c ro,noatime,nodiratime - fuse.rmemfs /var/fs2 ro,sync,dirsync,lazytime,user_id=0\n"
      "42 22 0:55 / /mnt/d rw - fuse.rmemfs /var/fs3 rw\n"
      "43 22 0:56 / /mnt/e rw - fuse.sshfs host: rw\n");
  BOOST_REQUIRE(found.size() == 3u);
  BOOST_TEST(found[0].mountpoint == "/mnt/a b");
  BOOST_TEST(found[0].directory == "/var/fs");
  BOOST_TEST(found[0].connection == 53u);
  BOOST_TEST(found[0].flags == (MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME));
  BOOST_TEST(found[1].connection == 54u);
  BOOST_TEST(found[1].flags == (MS_RDONLY | MS_NOATIME | MS_NODIRATIME | MS_SYNCHRONOUS | MS_DIRSYNC | MS_LAZYTIME));
  BOOST_TEST(found[2].flags == static_cast<unsigned long>(MS_STRICTATIME));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
