#!/bin/bash
# SIGSTOP of memory nodes: no system call takes longer than the deadline; over shm and rdma, I/O on open files goes on without them.
# SIGSTOP of the mount daemon: after SIGCONT everything goes on and nothing is lost.
CHUNK=4M   # so that files lie on different nodes
source "$(dirname "$0")/lib.sh"
deadline=3000 margin=1500
seconds=$(pick 8 60)
new_fs deadline=$deadline

watch() {   # NAME KINDS ALLOWED [FILE...]: starts the watchdog; it goes on with SIGUSR1
  spawn "$1" "$HELPERS/watchdog" "$MNT/$1" "$seconds" "${limit:-$((deadline + margin))}" "${@:2}"
  wait_for 20 grep -q ready "$WORK/$1.log" || fail "the watchdog does not begin"
}
watched() {
  local status=0
  reap "$1" || status=$?
  cat "$WORK/$1.log"
  [ $status = 0 ] || fail "$2"
  pass "$2"
}
usable() { touch "$MNT/usable" && "$HELPERS/pattern" write "$MNT/usable" 1000000 3; }
answering() { ! rmemctl nodes "$MNT" | grep -q unreachable; }   # one that was silent for long gives EIO until it is heard of
ticks() { local i sum=0; for ((i = 1; i <= NODES; i++)); do sum=$((sum + $(cpu_ticks "${PID[node$i]}"))); done; echo $sum; }

if [ "$TRANSPORT" != tcp ]; then
  watch io io none
  sleep 1   # a lane that has not used a chunk yet looks for it in the background
  signal_nodes STOP
  before=$(ticks)
  signal USR1 io
  watched io "reads, writes, fsync and mmap of open files go on with every node frozen"
  [ "$(ticks)" = "$before" ] || fail "the frozen nodes used CPU time"
  signal_nodes CONT
  wait_for 15 answering || fail "a node is not heard of 15 s after SIGCONT"
fi
watch all all errors
signal_nodes STOP
signal USR1 all
watched all "every node frozen for $seconds s: no call longer than the deadline"
timeout 10 rmemctl status "$MNT" >/dev/null || fail "rmemctl status with frozen nodes"
signal_nodes CONT
sync -f "$MNT" 2>/dev/null || true   # takes the error of what the kernel could not write back meanwhile
seconds=3
wait_for 15 usable || fail "the mount is not usable after SIGCONT of the nodes"
watch after all none
signal USR1 after
watched after "after SIGCONT everything works again"

if [ "$NODES" -gt 1 ]; then
  # Files of which the node has no block are none of its business: no error, and no wait as for a node that is silent.
  say "node 1 is frozen, and files that have nothing there"
  length=4194304 elsewhere=() there=()
  for ((i = 1; i <= 6 * NODES; i++)); do
    "$HELPERS/pattern" write "$MNT/file$i" $length "$i" || fail "writing file$i"
    if [ "$("$HELPERS/pattern" blocks "${NODE_POOL[1]}" $length "$i")" = 0 ]; then elsewhere+=("$MNT/file$i"); else there+=("$MNT/file$i"); fi
  done
  [ ${#elsewhere[@]} -ge 3 ] && [ ${#there[@]} -gt 0 ] || fail "of $i files ${#there[@]} have blocks on node 1"
  elsewhere=("${elsewhere[@]:0:6}") there=("${there[@]:0:4}")
  seconds=$(pick 6 60)
  watch one all errors
  if [ "$TRANSPORT" = tcp ]; then allowed=errors; else allowed=none; fi   # one-sided: they go on, too
  watch there files $allowed "${there[@]}"
  limit=$((deadline - 1000)) watch elsewhere files none "${elsewhere[@]}"
  signal STOP node1
  signal USR1 one; signal USR1 there; signal USR1 elsewhere
  watched elsewhere "one node frozen: files with nothing there see no error, and no call of $((deadline - 1000)) ms"
  watched there "one node frozen: files on it, no call longer than the deadline"
  [ $allowed = none ] || grep -Eq 'EIO/ENOSPC +[1-9]' "$WORK/there.log" || fail "files on the frozen node saw no error"
  watched one "one node frozen: no call longer than the deadline"
  signal CONT node1
fi

say "the mount daemon is frozen for $(pick 3 60) s"
spawn load "$HELPERS/crash_load" run "$MNT/r" "$WORK/ops" 3 8 600
wait_for 20 eval '[ "$(cat "$WORK"/ops.* | grep -c ^ack)" -gt 100 ]' || fail "the load does not get going"
signal STOP mount
sleep "$(pick 3 60)"
before=$(cat "$WORK"/ops.* | grep -c ^ack)
signal CONT mount
wait_for 10 eval '[ "$(cat "$WORK"/ops.* | grep -c ^ack)" -gt '$((before + 100))' ]' || fail "the load does not go on"
signal TERM load
reap load || { cat "$WORK/load.log" >&2; fail "an operation failed"; }
remount_fs
"$HELPERS/crash_load" verify "$MNT/r" "$WORK/ops" || fail "something is lost"
pass "after SIGCONT of the daemon everything goes on, nothing is lost"
signal_nodes STOP
within $((deadline + 5000)) "umount with every node frozen" umount_fs
signal_nodes CONT
fsck_clean
