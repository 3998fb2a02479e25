#!/bin/bash
# SIGSTOP of memory nodes: no system call takes longer than the deadline; over shm and rdma, I/O on open files goes on without them.
# SIGSTOP of the mount daemon: after SIGCONT everything goes on and nothing is lost.
source "$(dirname "$0")/lib.sh"
deadline=3000 margin=1500
seconds=$(pick 8 60)
new_fs deadline=$deadline

watch() {   # NAME KINDS ALLOWED: starts the watchdog; it goes on with SIGUSR1
  spawn "$1" "$HELPERS/watchdog" "$MNT/$1" "$seconds" $((deadline + margin)) "$2" "$3"
  wait_for 20 grep -q ready "$WORK/$1.log" || fail "the watchdog does not begin"
}
watched() {
  local status=0
  reap "$1" || status=$?
  cat "$WORK/$1.log"
  [ $status = 0 ] || fail "$2"
  pass "$2"
}
ticks() { local i sum=0; for ((i = 1; i <= NODES; i++)); do sum=$((sum + $(cpu_ticks "${PID[node$i]}"))); done; echo $sum; }

if [ "$TRANSPORT" != tcp ]; then
  watch io io none
  signal_nodes STOP
  before=$(ticks)
  signal USR1 io
  watched io "reads, writes, fsync and mmap of open files go on with every node frozen"
  [ "$(ticks)" = "$before" ] || fail "the frozen nodes used CPU time"
  signal_nodes CONT
fi
watch all all errors
signal_nodes STOP
signal USR1 all
watched all "every node frozen for $seconds s: no call longer than the deadline"
timeout 10 rmemctl status "$MNT" >/dev/null || fail "rmemctl status with frozen nodes"
signal_nodes CONT
sync -f "$MNT" 2>/dev/null || true   # takes the error of what the kernel could not write back meanwhile
seconds=3
usable() { touch "$MNT/usable" && "$HELPERS/pattern" write "$MNT/usable" 1000000 3; }
wait_for 15 usable || fail "the mount is not usable after SIGCONT of the nodes"
watch after all none
signal USR1 after
watched after "after SIGCONT everything works again"

if [ "$NODES" -gt 1 ]; then
  seconds=$(pick 5 60)
  watch one all errors
  signal STOP node1
  signal USR1 one
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
umount_fs
fsck_clean
