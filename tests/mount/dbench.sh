#!/bin/bash
# dbench: the file system calls of a file server's clients, several at once; what they left is the same after a remount.
source "$(dirname "$0")/lib.sh"
must_have dbench
new_fs
mkdir "$MNT/dbench"
dbench --directory="$MNT/dbench" --loadfile=/usr/share/dbench/client.txt --timelimit="$(pick 4 20)" --skip-cleanup 4 \
  >"$WORK/dbench.log" 2>&1 || fail "dbench"
grep -q '^Throughput' "$WORK/dbench.log" || fail "dbench did not come to its end"
! grep -E '^\[[0-9]+\] |ERROR|failed' "$WORK/dbench.log" >&2 || fail "dbench found something"
pass "$(grep '^Throughput' "$WORK/dbench.log")"
sums() { ( cd "$MNT/dbench" && find . -type f -print0 | sort -z | xargs -0 sha256sum && find . -printf '%p %s %M %T@\n' | sort ); }
sums >"$WORK/before"
[ "$(wc -l <"$WORK/before")" -gt 20 ] || fail "dbench left no files"
remount_fs
sums | diff -u "$WORK/before" - || fail "what dbench left is other after a remount"
pass "what it left is the same after a remount"
umount_fs
fsck_clean
