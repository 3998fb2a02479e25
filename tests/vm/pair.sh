#!/bin/bash
# A mount whose memory node is another machine, over rdma://: the node's process killed, the link down and up, the node's
# machine silent under load and killed when idle, the node restarted empty. Each ends as it should, within the deadline.
# SCENE=busy (pair_busy.sh) has what needs a node's machine of its own.
source "$(dirname "$0")/lib.sh"
scene=${SCENE:-alive}

play() {
  local runner status=0
  rm -f "$WORK"/{boot,kill-machine,status0,status1}
  guest_options
  printf 'export RMEMFS_BIN=%q RMEMFS_HELPERS=%q RMEMFS_SOURCE=%q\nsource %q "$@"\n' \
    "$BIN" "$HELPERS" "$SOURCE" "$HERE/pair_guest.sh" >"$WORK/both.sh"
  "$HERE/run-pair" --state "$WORK" "${OPTIONS[@]}" --mem 1024 --timeout 200 --load "sch_prio sch_plug cls_u32" -- \
    "$WORK/both.sh" "$WORK" "$scene" >"$WORK/output" 2>&1 &
  runner=$!
  node_machine_dies() { kill -KILL "$(cat "$WORK/pid0")" 2>/dev/null || true; }
  while alive $runner; do
    if [ -e "$WORK/kill-machine" ]; then
      node_machine_dies
      rm "$WORK/kill-machine"
    fi
    # The mount's guest has ended: the node's has nothing more to do.
    if [ ! -e "$WORK/pid1" ] && [ -e "$WORK/boot" ] && [ -e "$WORK/pid0" ]; then node_machine_dies; fi
    sleep 0.1
  done
  wait $runner || status=$?
  cat "$WORK/output"
  if [ $status = 77 ]; then exit 77; fi
  [ "$(cat "$WORK/status1")" = 0 ] || fail "the guest with the mount ended with $(cat "$WORK/status1")"
  grep -q '^1| passed: ' "$WORK/output" || fail "the checks in the guest did not come to their end"
  pass "a node on another machine, $scene, on $KERNEL"
}
on_each_kernel play
