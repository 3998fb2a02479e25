#!/bin/bash
# Mounting does not scan the files: under a second with very many of them, clean or crashed. And the daemon's memory is
# bounded, by -o cache=, after having seen each of them.
source "$(dirname "$0")/lib.sh"
files=$(pick 20000 1000000)
cache=cache=32M
new_fs $cache
say "$files files"
for ((d = 0; d < 10; d++)); do "$HELPERS/many" create "$MNT/d$d" $((files / 10)); done
umount_fs
mount_fs $cache
[ "$MOUNT_MS" -lt 1000 ] || fail "a clean mount of $files files took $MOUNT_MS ms"
pass "a clean mount of $files files takes $MOUNT_MS ms"
say "resident memory after every file was looked at"
before=$(rss_kib "$MOUNT_PID")
for ((d = 0; d < 10; d++)); do "$HELPERS/many" stat "$MNT/d$d" $((files / 10)); done
after=$(rss_kib "$MOUNT_PID")
limit=65536   # KiB: twice what the option says
[ $((after - before)) -le $limit ] || fail "the daemon grew from $before to $after KiB"
say "and again: nothing more is kept"
for ((d = 0; d < 10; d++)); do "$HELPERS/many" stat "$MNT/d$d" $((files / 10)); done
again=$(rss_kib "$MOUNT_PID")
[ $((again - after)) -le 30000 ] || fail "the daemon grew again from $after to $again KiB"
pass "resident memory: $before KiB, then $after KiB, then $again KiB"
"$HELPERS/many" create "$MNT/last" 500
kill_mount
mount_fs
[ "$MOUNT_MS" -lt 1000 ] || fail "a mount after a crash took $MOUNT_MS ms"
"$HELPERS/many" count "$MNT/last" 500 || fail "the last files are gone"
pass "a mount after a crash takes $MOUNT_MS ms"
umount_fs
fsck_clean
