#!/bin/bash
# rmemfs --local: one command makes what is missing, and the next one finds it again, also when everything was killed.
source "$(dirname "$0")/lib.sh"
daemon_pid() { rmemctl status --json "$MNT" | json "d['pid']"; }
node_pid() { cat "$DIR/node.pid"; }
free_again() { wait_for 15 flock -n "$DIR/lock" true || fail "the daemon is still there 15 s after umount"; unset "PID[daemon]"; }
start() { within 10000 "$1" rmemfs --local 512M "$DIR" "$MNT"; PID[daemon]=$(daemon_pid); }
say "a directory of somebody else's is left as it is"
mkdir "$WORK/foreign" && echo precious >"$WORK/foreign/file"
status=0
rmemfs --local 512M "$WORK/foreign" "$MNT" >"$WORK/refused.log" 2>&1 || status=$?
[ $status != 0 ] || fail "a foreign directory was taken"
grep -q "not empty" "$WORK/refused.log" || fail "it does not say why: $(cat "$WORK/refused.log")"
[ "$(ls -A "$WORK/foreign")" = file ] || fail "it left something behind: $(ls -A "$WORK/foreign" | tr '\n' ' ')"
pass "a foreign directory is refused and unchanged"
say "a node that is not its own is not taken; one that a killed first mount left is"
mkdir -p "$DIR"
rmemd --size 8M --pool "/dev/shm/rmemfs-test.$$.foreign" --listen "unix:$DIR/node.sock" >>"$WORK/foreign.log" 2>&1 &
PID[foreign]=$!
wait_for 10 grep -q lending "$WORK/foreign.log" || fail "the foreign node does not start"
status=0
rmemfs --local 512M "$DIR" "$MNT" >"$WORK/refused.log" 2>&1 || status=$?
[ $status != 0 ] || fail "it was mounted on another node's pool"
grep -q "another memory node" "$WORK/refused.log" || fail "it does not say why: $(cat "$WORK/refused.log")"
alive "${PID[foreign]}" || fail "the foreign node was ended"
kill_now foreign
left=/dev/shm/rmemfs-$(cat /proc/sys/kernel/random/uuid).pool
rmemd --size 8M --pool "$left" --listen "unix:$DIR/node.sock" >>"$WORK/left.log" 2>&1 &
PID[left]=$!
wait_for 10 grep -q lending "$WORK/left.log" || fail "the node does not start"
start "the first rmemfs --local"
ended left 5 || fail "the node of an unfinished first mount is still there"
reap left || true
[ ! -e "$left" ] || { rm -f "$left"; fail "its pool is still there"; }
"$HELPERS/pattern" write "$MNT/file" 20000000 8
[ "$(cat "/proc/$(node_pid)/comm")" = rmemd ] || fail "node.pid names no rmemd"
unmount "$MNT"
free_again
start "the second rmemfs --local"
"$HELPERS/pattern" check "$MNT/file" 20000000 8 || fail "the file is gone after umount"
pass "found again after umount"
say "kill -9 of the mount daemon, and of both"
for victims in mount both; do
  "$HELPERS/pattern" write "$MNT/$victims" 5000000 9
  kill -9 "${PID[daemon]}"
  [ $victims = mount ] || kill -9 "$(node_pid)"
  detach "$MNT"
  wait_for 5 eval "! kill -0 ${PID[daemon]}"
  start "rmemfs --local after kill -9 of $victims"
  "$HELPERS/pattern" check "$MNT/file" 20000000 8 || fail "the file is gone after kill -9 of $victims"
  "$HELPERS/pattern" check "$MNT/$victims" 5000000 9 || fail "the new file is gone after kill -9 of $victims"
done
pass "found again after kill -9"
node=$(node_pid)
unmount "$MNT"
free_again
wait_for 10 eval "! kill -0 $node" || fail "the private node is still running 10 s after umount"
pass "umount leaves nothing running"
