#!/bin/bash
# kill -9 of rmemd and a restart under load: I/O waits and goes on, nothing is lost.
source "$(dirname "$0")/lib.sh"
load=$HELPERS/crash_load
new_fs
acknowledged() { cat "$WORK"/ops.* | grep -c '^ack' || true; }
kills=$(pick 3 20)
spawn load "$load" run "$MNT/r" "$WORK/ops" 5 4 600
wait_for 10 eval '[ "$(cat "$WORK"/ops.* | grep -c ^ack)" -gt 200 ]' || fail "the load does not get going"
for ((i = 0; i < kills; i++)); do
  victim=$((i % NODES + 1))
  kill_node "$victim"
  sleep 1
  start_node "$victim"
  before=$(acknowledged)
  wait_for 15 eval "[ \"\$(cat $WORK/ops.* | grep -c ^ack)\" -gt $((before + 50)) ]" || fail "I/O does not go on after node $victim came back: $before operations then, $(acknowledged) now, $(cat "$WORK/load.log")"
  pass "I/O goes on after kill -9 and restart of node $victim"
  alive "${PID[load]}" || fail "the load ended"
done
signal TERM load
reap load || { cat "$WORK/load.log" >&2; fail "an operation failed"; }
remount_fs
"$load" verify "$MNT/r" "$WORK/ops" || fail "something is lost"
pass "nothing is lost"
say "both killed at once, node first, and both restarted"
spawn load "$load" run "$MNT/r2" "$WORK/ops2" 6 4 600 "$WORK/killed"
wait_for 10 eval '[ "$(cat "$WORK"/ops2.* | grep -c ^ack)" -gt 200 ]' || fail "the load does not get going"
touch "$WORK/killed"
kill -9 "${PID[node1]}"
kill_now mount
reap node1 || true
reap load || { cat "$WORK/load.log" >&2; fail "an operation failed"; }
detach "$MNT"
start_node 1
mount_fs
"$load" verify "$MNT/r2" "$WORK/ops2" || fail "something is lost"
pass "nothing is lost"
umount_fs
fsck_clean
