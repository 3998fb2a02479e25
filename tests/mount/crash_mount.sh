#!/bin/bash
# kill -9 of rmemfs at random moments under load: nothing acknowledged is lost, a remount takes under a second.
source "$(dirname "$0")/lib.sh"
load=$HELPERS/crash_load
rounds=$(pick 10 100)
seed=${RMEMFS_SEED:-$(($(date +%s) % 100000))}
say "$rounds rounds, seed $seed (RMEMFS_SEED=$seed repeats it, but for the moments)"
RANDOM=$seed
new_fs
longest=0 total=0
verify() {   # ROUND WHEN
  local status=0
  "$load" verify "$MNT/r$1" "$WORK/ops$1" >"$WORK/verify.txt" || status=$?
  if [ $status != 0 ]; then head -n 40 "$WORK/verify.txt" >&2; fail "round $1 $2 (seed $seed)"; fi
}
for ((round = 1; round <= rounds; round++)); do
  spawn load "$load" run "$MNT/r$round" "$WORK/ops$round" $((seed + round)) 8 60 "$WORK/killed$round"
  # What is two rounds old is deleted meanwhile, so that deletions of whole trees are interrupted too.
  if [ $round -gt 2 ]; then spawn rm rm -rf "$MNT/r$((round - 2))"; fi
  sleep "$((RANDOM % 2)).$((RANDOM % 900 + 100))"
  alive "${PID[load]}" || fail "the load ended before the kill"
  touch "$WORK/killed$round"
  kill_now mount
  reap load || { cat "$WORK/load.log" >&2; fail "round $round: an operation failed while the mount was alive (seed $seed)"; }
  if [ $round -gt 2 ]; then reap rm || true; fi
  detach "$MNT"
  if [ $((round % 3)) = 0 ]; then   # recovery is interrupted, too
    spawn mount rmemfs -f "$DIR" "$MNT"
    sleep "0.0$((RANDOM % 90 + 10))"
    kill_mount
  fi
  mount_fs
  [ "$MOUNT_MS" -lt 1000 ] || fail "round $round: the remount took $MOUNT_MS ms (seed $seed)"
  [ "$MOUNT_MS" -gt $longest ] && longest=$MOUNT_MS
  verify $round "after the crash"
  say "round $round: remount $MOUNT_MS ms, $(tail -n 1 "$WORK/verify.txt")"
  acknowledged=$(sed -n 's/^acknowledged=\([0-9]*\) .*/\1/p' "$WORK/verify.txt")
  total=$((total + acknowledged))
  [ $round -gt 1 ] && verify $((round - 1)) "one round later"
  umount_fs
  fsck_clean >/dev/null
  mount_fs
  verify $round "after fsck and a clean mount"
done
pass "$rounds rounds, $total acknowledged operations, longest remount $longest ms"
umount_fs
fsck_clean
