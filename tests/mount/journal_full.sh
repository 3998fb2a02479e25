#!/bin/bash
# A journal of 2 slots and 16 writers: progress for each of them, and nothing lost when the daemon dies.
source "$(dirname "$0")/lib.sh"
start_nodes
make_fs --journal-slots 2 --journal-slot-size 4096   # the fewest, of the smallest size with which any change fits
mount_fs
spawn load "$HELPERS/crash_load" run "$MNT/r" "$WORK/ops" 4 16 600 "$WORK/killed"
sleep "$(pick 6 60)"
alive "${PID[load]}" || fail "the load ended: $(cat "$WORK/load.log")"
for ((i = 0; i < 16; i++)); do
  acknowledged=$(grep -c ^ack "$WORK/ops.$i" || true)
  [ "$acknowledged" -ge 5 ] || fail "writer $i made $acknowledged operations only"
done
pass "16 writers, $(cat "$WORK"/ops.* | grep -c ^ack) operations"
touch "$WORK/killed"
kill_now mount
reap load || { cat "$WORK/load.log" >&2; fail "an operation failed while the mount was alive"; }
detach "$MNT"
mount_fs
"$HELPERS/crash_load" verify "$MNT/r" "$WORK/ops" || fail "something is lost"
pass "nothing is lost"
umount_fs
fsck_clean
