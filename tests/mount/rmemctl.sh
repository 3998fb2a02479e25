#!/bin/bash
# rmemctl answers for a running mount, by mount point and by directory, in JSON too, and never hangs.
source "$(dirname "$0")/lib.sh"
new_fs deadline=3000
"$HELPERS/pattern" write "$MNT/file" 3000000 5
for where in "$MNT" "$DIR"; do
  for command in status stats nodes lost; do
    timeout 10 rmemctl $command "$where" >"$WORK/text" || fail "rmemctl $command $where"
    timeout 10 rmemctl $command --json "$where" | json 'd' >/dev/null || fail "rmemctl $command --json $where is not JSON"
    [ $command = lost ] || [ -s "$WORK/text" ] || fail "rmemctl $command says nothing"
  done
done
[ "$(rmemctl status --json "$MNT" | json "d['pid']")" = "$MOUNT_PID" ] || fail "status names another process"
[ "$(rmemctl nodes --json "$MNT" | json 'len(d if isinstance(d, list) else d["nodes"])')" = "$NODES" ] || fail "rmemctl nodes does not list $NODES"
rmemctl status "$MNT" | grep -qi surviv || fail "status does not say what a returned fsync survives"
pass "status, stats, nodes, lost; text and JSON"
for state in frozen dead; do
  if [ $state = frozen ]; then signal_nodes STOP; else signal_nodes CONT; kill_node 1; fi
  for command in status stats nodes lost; do
    within 8000 "rmemctl $command with a $state node" timeout 10 rmemctl $command "$MNT" >"$WORK/text"
  done
done
signal STOP mount
# Until one of its threads has taken the signal, the others go on; with busy processors that is long enough to answer.
wait_for 5 grep -q '^State:.T' "/proc/$MOUNT_PID/status" || fail "the mount daemon does not stop"
status=0 start=$(now_ms)
timeout 20 rmemctl status "$MNT" >/dev/null 2>"$WORK/frozen.err" || status=$?
[ $status != 0 ] && [ $status != 124 ] || fail "rmemctl with a frozen mount daemon ended with status $status"
[ "$(wc -l <"$WORK/frozen.err")" = 1 ] || fail "rmemctl with a frozen mount says: $(cat "$WORK/frozen.err")"
pass "rmemctl gives up on a frozen mount after $(($(now_ms) - start)) ms: $(cat "$WORK/frozen.err")"
signal CONT mount
start_node 1
wait_for 15 "$HELPERS/pattern" check "$MNT/file" 3000000 5 || fail "the file"
umount_fs
status=0
timeout 10 rmemctl status "$DIR" >/dev/null 2>"$WORK/none.err" || status=$?
[ $status != 0 ] && [ $status != 124 ] && [ "$(wc -l <"$WORK/none.err")" = 1 ] || fail "rmemctl of a file system that is not mounted: status $status, $(cat "$WORK/none.err")"
pass "not mounted: $(cat "$WORK/none.err")"
kill_node 1
mount_fs degraded,deadline=3000
timeout 10 rmemctl nodes "$MNT" >"$WORK/text" || fail "rmemctl nodes of a degraded mount"
grep " ${NODE_ADDRESS[1]} .* never$" "$WORK/text" || fail "a node that never answered: $(cat "$WORK/text")"
[ "$(rmemctl nodes --json "$MNT" | json "[n['seconds_since_answer'] for n in d if n['address'] == '${NODE_ADDRESS[1]}']")" = "[None]" ] || fail "a node that never answered, in JSON"
umount_fs
pass "a node that has not answered since the mount"
