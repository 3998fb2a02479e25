# shellcheck shell=bash
# Runs in both guests of pair.sh: the first is the memory node, the second has the mount and says what is to happen to the
# first, by files in the directory that they and the test share. SCENE is what is played: "alive" or "busy".
role=$1 peer=$3 meet=$4 SCENE=$5

if [ "$role" = 0 ]; then
  export PATH=$RMEMFS_BIN:$PATH
  rmemd --insecure --size 160M --pool /dev/shm/pool --listen "rdma://$2:7471" 2>&1 & node=$!
  while :; do
    [ -e "$meet/boot" ] || cp /proc/sys/kernel/random/boot_id "$meet/boot"
    for order in kill start empty silent speaking stuck loose; do
      [ -e "$meet/$order" ] || continue
      case $order in
        silent) ip link set eth0 down ;;
        speaking) ip link set eth0 up ;;
        # What the node sends over RDMA stays in its queue; TCP goes on.
        stuck)
          tc qdisc add dev eth0 root handle 1: prio priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
          tc qdisc add dev eth0 parent 1:3 handle 30: plug limit 100000000
          tc filter add dev eth0 parent 1: protocol ip u32 match ip protocol 17 0xff match ip dport 4791 0xffff flowid 1:3
          ;;
        loose) tc -s qdisc show dev eth0; tc qdisc del dev eth0 root ;;
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
# In the busy scene the older mount is patient: its queue pair is there when the newer one has it ended.
if [ "$SCENE" = busy ]; then patience=12000; else patience=$deadline; fi
mount_fs transport=rdma,deadline=$patience
"$HELPERS/pattern" write "$MNT/file" 1000000 5
"$HELPERS/pattern" write "$MNT/small" 4096 5   # one operation, for one deadline
drop_caches
check || fail "the file over the link"
pass "a mount whose node is another machine"

# busy_until ORDER: calls of many kinds run while it happens, and none takes longer than the deadline.
busy_until() {
  spawn busy "$HELPERS/watchdog" "$MNT/busy" 5 $((deadline + margin)) io errors
  wait_for 20 grep -q ready "$WORK/busy.log" || fail "the watchdog does not begin"
  signal USR1 busy
  sleep 0.5
  order "$1"
  status=0
  reap busy || status=$?
  cat "$WORK/busy.log"
  [ $status = 0 ] || fail "a call took longer than the deadline after \"$1\""
}
# Outages in the mount's log: one more than before means that this one was noticed.
outages() { grep -c 'memory node .* does not answer' "$WORK/mount.log" || true; }
gone() { [ "$(outages)" -gt "$before" ]; }
end_without_node() {
  start=$(now_ms)
  unmount "$MNT" || fail umount
  ended mount 20 || fail "the daemon does not end without its node"
  reap mount || true
  MOUNT_PID=
  pass "the mount ends without its node after $(($(now_ms) - start)) ms"
}

if [ "$SCENE" = busy ]; then
  # A newer mount takes over while the node's packets to the older one are stuck in the node's queue, where they keep the
  # device from destroying the queue pair: nobody waits for that, neither the fence nor the newer mount's connections.
  # shellcheck disable=SC2016  # the inner shell's
  spawn reader bash -c 'while dd if="$1" of=/dev/null bs=1M iflag=direct status=none; do :; done' - "$MNT/file"
  sleep 0.5
  order stuck
  sleep 0.5
  cp -a "$DIR" "$WORK/twin"
  rm -f "$WORK/twin/admin.sock"
  mkdir "$WORK/mnt2"
  start=$(now_ms)
  spawn twin rmemfs -f -o transport=tcp,deadline=$deadline "$WORK/twin" "$WORK/mnt2"
  wait_for 60 mountpoint -q "$WORK/mnt2" || { tail -3 "$WORK/twin.log"; fail "the newer mount does not come"; }
  took=$(($(now_ms) - start))
  [ $took -le $((deadline + margin)) ] || fail "fencing took $took ms while packets were stuck"
  "$HELPERS/pattern" write "$WORK/mnt2/file" 1000000 7 || fail "the newer mount cannot write"
  grep -q 'retry counter' "$WORK/mount.log" && say "the older mount had given up already"
  order loose
  ended reader 20 || fail "the older mount's reader goes on"
  reap reader || true
  drop_caches
  if "$HELPERS/pattern" check "$MNT/small" 4096 5; then fail "the older mount goes on reading"; fi
  ended mount 20 || fail "the older mount's daemon does not end"
  reap mount && fail "the older mount's daemon ended with 0"
  MOUNT_PID=
  "$HELPERS/pattern" check "$WORK/mnt2/file" 1000000 7 || fail "the newer mount's bytes were overwritten"
  umount "$WORK/mnt2"
  ended twin 20 || fail "the newer mount does not end"
  reap twin || fail "the newer mount ended with status $?"
  DIR=$WORK/twin
  start=$(now_ms)
  mount_fs transport=rdma,deadline=$deadline
  "$HELPERS/pattern" write "$MNT/file" 1000000 5
  pass "a node whose packets are stuck is fenced in $took ms, and serves RDMA again in $(($(now_ms) - start)) ms"

  before=$(outages)
  busy_until kill-machine
  wait_for 10 gone || fail "a dead machine is not noticed"
  drop_caches
  timed 4 -- "$HELPERS/pattern" check "$MNT/small" 4096 5
  pass "the node's machine killed under load: no call takes longer than the deadline"
  end_without_node
  exit 0
fi

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
busy_until silent
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
before=$(outages)
order kill-machine
wait_for 10 gone || fail "an idle connection to a dead machine is not noticed"
drop_caches
timed 4 -- "$HELPERS/pattern" check "$MNT/small" 4096 9
pass "the node's machine killed under an idle connection: noticed by the heartbeat, an error in time"
end_without_node
