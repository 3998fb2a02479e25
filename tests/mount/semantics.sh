#!/bin/bash
# What POSIX promises, case by case, and what of it must be there after a remount and after a crash.
source "$(dirname "$0")/lib.sh"
new_fs
"$HELPERS/posix_check" run "$MNT/a" || fail "a case above"
"$HELPERS/posix_check" prepare "$MNT/a"
remount_fs
"$HELPERS/posix_check" verify "$MNT/a" || fail "after a remount"
"$HELPERS/posix_check" prepare "$MNT/b"
kill_mount
mount_fs
"$HELPERS/posix_check" verify "$MNT/b" || fail "after kill -9 of the daemon"
pass "after a remount and after a crash"
say "files that were open and unlinked when the daemon died leave nothing behind"
before=$(df --output=iused "$MNT" | tail -n 1)
exec 7>"$MNT/orphan"
"$HELPERS/pattern" write "$MNT/orphan" 20000000 1
rm "$MNT/orphan"
kill_mount
exec 7>&-
mount_fs
wait_for 10 eval '[ "$(df --output=iused "$MNT" | tail -n 1)" -le '"$before"' ]' || fail "the orphan's inode is still there"
pass "orphans are purged"
umount_fs
fsck_clean
