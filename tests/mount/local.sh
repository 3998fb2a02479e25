#!/bin/bash
# rmemfs --local: one command makes what is missing, and the next one finds it again, also when everything was killed.
source "$(dirname "$0")/lib.sh"
need pkill
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
within 10000 "rmemfs --local with another size" rmemfs --local 1G "$DIR" "$MNT" 2>"$WORK/note.log"
PID[daemon]=$(daemon_pid)
grep -q "note: .* was made with --local 512M, and keeps that size" "$WORK/note.log" || fail "another size is taken without a word"
"$HELPERS/pattern" check "$MNT/file" 20000000 8 || fail "the file is gone after umount"
pass "found again after umount"
say "a first mount that cannot serve leaves nothing"
# Nothing may be left that names such a pool: it is known by its size.
pools() { find /dev/shm -maxdepth 1 -name 'rmemfs-*.pool' -user "$(id -u)" -size +42M -size -46M | sort; }
before=$(pools)
mkdir "$WORK/never" "$WORK/mnt2"
status=0
rmemfs --local 43M -o require=persistent "$WORK/never" "$WORK/mnt2" >"$WORK/refused.log" 2>&1 || status=$?
[ $status = 1 ] || fail "require=persistent on volatile memory: status $status"
wait_for 5 flock -n "$WORK/never/lock" true || fail "the refused mount still holds its directory"
[ "$(ls -A "$WORK/never")" = lock ] || fail "it left something behind: $(ls -A "$WORK/never" | tr '\n' ' ')"
[ "$(pools)" = "$before" ] || fail "its pool is still there: $(pools)"
pass "a refused first mount leaves neither file system nor pool"

say "the pool of a first mount that was killed, with its node, before it had made the file system"
for try in 1 2 3 4 5 6 7 8 9 10 11; do
  [ $try -lt 11 ] || fail "no first mount could be killed at its work"
  half=$WORK/half$try
  mkdir "$half"
  spawn first rmemfs -f --local 43M "$half" "$WORK/mnt2"
  until=$(($(now_ms) + 20000))
  until [ -S "$half/node.sock" ] || [ -e "$half/superblock" ]; do
    [ "$(now_ms)" -lt $until ] || fail "the first mount does not begin"
  done
  kill_now first
  pkill -9 -f -- "--listen unix:$half/node.sock" || true
  [ -e "$half/superblock" ] || break
  # It was quicker than the kill: the superblock names the pool now.
  detach "$WORK/mnt2"
  rm -f "$(grep -a -o -m1 '/dev/shm/rmemfs-[0-9a-f-]*\.pool' "$half/superblock")"
done
[ -s "$half/node.pool" ] || fail "nothing in the directory names the pool that is being made"
read -r pool <"$half/node.pool"
[ -e "$pool" ] || fail "the node was killed before it had made its pool"
within 10000 "rmemfs --local after that" rmemfs --local 43M "$half" "$WORK/mnt2"
if [ -e "$pool" ]; then rm -f "$pool"; fail "the pool of the killed first mount is still there"; fi
pool=$(grep -a -o -m1 '/dev/shm/rmemfs-[0-9a-f-]*\.pool' "$half/superblock")
[ ! -e "$half/node.pool" ] || fail "node.pool is still there beside the superblock"
unmount "$WORK/mnt2"
wait_for 15 flock -n "$half/lock" true || fail "the daemon is still there"
rm -f "$pool"
pass "the next first mount removes it"

say "./dev clean frees what a failed ./dev run took"
mkdir -p "$WORK/tree/build/release/bin" "$WORK/tree/fake"
cp "$SOURCE/dev" "$WORK/tree/dev"
printf '#!/bin/sh\n' >"$WORK/tree/fake/cmake"
# A mount that was killed after it had made everything: the file system is there, the command failed.
cat >"$WORK/tree/build/release/bin/rmemfs" <<END
#!/bin/bash
"$RMEMFS_BIN/rmemfs" --local 43M "\$3" "\$4" && $(declare -f unmount | tr '\n' ' '); unmount "\$4"
exit 1
END
chmod +x "$WORK/tree/fake/cmake" "$WORK/tree/build/release/bin/rmemfs"
status=0
PATH=$WORK/tree/fake:$PATH "$WORK/tree/dev" run >"$WORK/run.log" 2>&1 || status=$?
[ $status = 1 ] && grep -q "was not mounted" "$WORK/run.log" || fail "./dev run: status $status, $(cat "$WORK/run.log")"
meta=$WORK/tree/build/run/meta
wait_for 15 flock -n "$meta/lock" true || fail "the daemon is still there"
pool=$(grep -a -o -m1 '/dev/shm/rmemfs-[0-9a-f-]*\.pool' "$meta/superblock") && [ -e "$pool" ] || fail "./dev run made no pool"
"$WORK/tree/dev" clean >"$WORK/clean.log" 2>&1 || { rm -f "$pool"; fail "./dev clean: $(cat "$WORK/clean.log")"; }
if [ -e "$pool" ]; then rm -f "$pool"; fail "the pool is still there after ./dev clean"; fi
pass "./dev clean frees it"

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

say "a stopped node"
start "rmemfs --local"
node=$(node_pid)
kill -STOP "$node"
wait_for 10 frozen "$node" || fail "the node does not stop"
unmount "$MNT"
within 20000 "the end of a mount whose node is stopped" wait_for 20 flock -n "$DIR/lock" true
if kill -0 "$node" 2>/dev/null; then kill -9 "$node"; fail "the stopped node is left behind"; fi
unset "PID[daemon]"
start "rmemfs --local after that"
"$HELPERS/pattern" check "$MNT/file" 20000000 8 || fail "the file is gone after the node was killed"
node=$(node_pid)
kill -STOP "$node"
wait_for 10 frozen "$node" || fail "the node does not stop"
kill -9 "${PID[daemon]}"
detach "$MNT"
wait_for 5 eval "! kill -0 ${PID[daemon]}"
unset "PID[daemon]"
status=0
rmemfs --local 512M "$DIR" "$MNT" >"$WORK/stopped.log" 2>&1 || status=$?
[ $status = 1 ] || fail "a mount whose node is stopped: status $status"
grep -q "private memory node: .*pid $node.*kill -CONT $node" "$WORK/stopped.log" || fail "it does not say why: $(cat "$WORK/stopped.log")"
kill -CONT "$node"
start "rmemfs --local once the node goes on"
[ "$(node_pid)" = "$node" ] || fail "another node was started"
"$HELPERS/pattern" check "$MNT/file" 20000000 8 || fail "the file is gone"
unmount "$MNT"
free_again
wait_for 10 eval "! kill -0 $node" || fail "the private node is still running"
pass "a stopped node is ended with its mount, and is named to the next one"
