# shellcheck shell=bash
# Runs in both guests of pair.sh: the first is the memory node, the second has the mount and says what is to happen to the
# first, by files in the directory that they and the test share.
role=$1 peer=$3 meet=$4

if [ "$role" = 0 ]; then
  export PATH=$RMEMFS_BIN:$PATH
  rmemd --insecure --size 160M --pool /dev/shm/pool --listen "rdma://$2:7471" 2>&1 & node=$!
  while :; do
    [ -e "$meet/boot" ] || cp /proc/sys/kernel/random/boot_id "$meet/boot"
    for order in kill start empty silent speaking; do
      [ -e "$meet/$order" ] || continue
      case $order in
        silent) ip link set eth0 down ;;
        speaking) ip link set eth0 up ;;
        kill) kill -9 $node; wait $node ;;
        empty) rm /dev/shm/pool ;&
        start) rmemd --insecure --size 160M --pool /dev/shm/pool --listen "rdma://$2:7471" 2>&1 & node=$! ;;
      esac
      rm "$meet/$order"
    done
    sleep 0.1
  done
fi

# shellcheck source=tests/mount/lib.sh
source "$RMEMFS_SOURCE/tests/mount/lib.sh" rdma 1
NODE_ADDRESS[1]=rdma://$peer:7471
deadline=3000 margin=2500
order() {   # ORDER: the node's guest, or the test, does it
  touch "$meet/$1"
  wait_for 20 test ! -e "$meet/$1" || fail "nobody does \"$1\""
}
# timed STATUS... -- COMMAND...: it ends within the deadline, with one of the statuses.
timed() {
  local allowed=() start took status=0
  while [ "$1" != -- ]; do allowed+=("$1"); shift; done
  shift
  start=$(now_ms)
  "$@" >"$WORK/timed.log" 2>&1 || status=$?
  took=$(($(now_ms) - start))
  [ $took -le $((deadline + margin)) ] || fail "$* took $took ms"
  case " ${allowed[*]} " in *" $status "*) ;; *) fail "$* ended with $status: $(cat "$WORK/timed.log")" ;; esac
  say "$1 ended with $status after $took ms: $(tail -n 1 "$WORK/timed.log")"
}
check() { "$HELPERS/pattern" check "$MNT/file" 1000000 5; }
drop_caches() { echo 3 >/proc/sys/vm/drop_caches; }
alive_again() { drop_caches; check && "$HELPERS/pattern" write "$MNT/new" 300000 6; }

wait_for 30 test -e "$meet/boot"
reachable() { mkfs.rmemfs --node "${NODE_ADDRESS[1]}" --chunk-size "$CHUNK" "$DIR" >"$WORK/mkfs.log" 2>&1; }
wait_for 20 reachable || fail "the node does not answer: $(cat "$WORK/mkfs.log")"
mount_fs transport=rdma,deadline=$deadline
"$HELPERS/pattern" write "$MNT/file" 1000000 5
"$HELPERS/pattern" write "$MNT/small" 4096 5   # one operation, for one deadline
drop_caches
check || fail "the file over the link"
pass "a mount whose node is another machine"

order kill
drop_caches
timed 4 -- "$HELPERS/pattern" check "$MNT/small" 4096 5
order start
wait_for 15 alive_again || fail "the mount does not go on after the node's process came back"
pass "the node's process killed: an error in time; started again with its pool: all is there"

ip link set eth0 down; sleep 1; ip link set eth0 up
timed 0 -- alive_again
pass "the link down for a second and up again: nothing is lost, no error"

# The node's machine falls silent in the middle of writes, as if it had died, and comes back.
spawn busy "$HELPERS/watchdog" "$MNT/busy" 5 $((deadline + margin)) io errors
wait_for 20 grep -q ready "$WORK/busy.log" || fail "the watchdog does not begin"
signal USR1 busy
sleep 0.5
order silent
status=0
reap busy || status=$?
cat "$WORK/busy.log"
[ $status = 0 ] || fail "a call took longer than the deadline while the node's machine was silent"
order speaking
wait_for 20 alive_again || fail "the mount does not go on after the node's machine came back"
pass "the node's machine silent under load: no call takes longer than the deadline; back again: all is there"

order kill
order empty
lost() { local status=0; drop_caches; check || status=$?; [ $status = 4 ]; }
wait_for 15 lost || fail "a file of a node that came back empty is not EIO: $(check 2>&1)"
wait_for 15 "$HELPERS/pattern" write "$MNT/fresh" 300000 8 || fail "no new file on the node that came back empty"
"$HELPERS/pattern" check "$MNT/fresh" 300000 8 || fail "the new file"
"$HELPERS/pattern" write "$MNT/small" 4096 9
pass "the node restarted empty: its files are EIO, new ones work"

# An idle connection to a machine that is gone: no operation is there to fail, the heartbeat notices.
sleep 1
order kill-machine
gone() { rmemctl --json status "$MNT" >/dev/null; tail -n 3 "$WORK/mount.log" | grep -q 'memory node .* does not answer'; }
wait_for 10 gone || fail "an idle connection to a dead machine is not noticed"
drop_caches
timed 4 -- "$HELPERS/pattern" check "$MNT/small" 4096 9
pass "the node's machine killed under an idle connection: noticed by the heartbeat, an error in time"
start=$(now_ms)
unmount "$MNT" || fail umount
ended mount 20 || fail "the daemon does not end without its node"
reap mount || true
MOUNT_PID=
pass "the mount ends without its node after $(($(now_ms) - start)) ms"
