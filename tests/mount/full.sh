#!/bin/bash
# A full pool: ENOSPC, what was written before is intact, names can still be changed, deleting makes room.
POOL=48M CHUNK=4M
source "$(dirname "$0")/lib.sh"
new_fs
one=1000000
fill() {   # NAME LIMIT: files of one megabyte until ENOSPC; sets count
  local why
  for ((count = 0; count < $2; count++)); do
    why=$("$HELPERS/pattern" write "$MNT/$1$count" $one "$count") || { [ "$why" = ENOSPC ] || fail "$1$count: $why instead of ENOSPC"; return 0; }
  done
  fail "$2 MB went into a pool of $((48 * NODES)) MB"
}
intact() {   # NAME FIRST LAST STEP
  local i
  for ((i = $2; i < $3; i += $4)); do "$HELPERS/pattern" check "$MNT/$1$i" $one "$i" >"$WORK/look" || fail "$1$i: $(cat "$WORK/look") $5"; done
}
fill a $((60 * NODES))
[ "$count" -ge $((25 * NODES)) ] || fail "only $count MB went into a pool of $((48 * NODES)) MB"
pass "ENOSPC after $count MB of $((48 * NODES)) MB"
intact a 0 "$count" 1 "when full"
rm -f "$MNT/a$count"
fill a $((60 * NODES)) # whatever room the cut file left
mkdir "$MNT/d" && mv "$MNT/a0" "$MNT/d/a0" && mv "$MNT/d/a0" "$MNT/a0" && ln -s x "$MNT/d/link" && chmod 600 "$MNT/a1" || fail "names cannot be changed when full"
status=0; fallocate -l 100M "$MNT/reserve" 2>"$WORK/fallocate.err" || status=$?
[ $status != 0 ] && grep -qi "no space" "$WORK/fallocate.err" || fail "fallocate of 100 MB on a full pool: $(cat "$WORK/fallocate.err")"
rm -f "$MNT/reserve"
all=$count
remount_fs
intact a 0 "$all" 1 "after a remount"
pass "everything written before is intact; names can be changed"
say "every other file is deleted"
for ((i = 0; i <= all; i += 2)); do rm -f "$MNT/a$i"; done
[ $((all % 2)) = 0 ] || rm -f "$MNT/a$all"
roomy() { [ "$(df --output=avail -B1M "$MNT" | tail -n 1)" -ge $((all / 2 - 4 * NODES)) ]; }
wait_for 20 roomy || fail "df shows $(df --output=avail -B1M "$MNT" | tail -n 1) MB available after $((all / 2)) MB were deleted"
fill b $((60 * NODES))
[ "$count" -ge $((all / 2 - 4 * NODES)) ] || fail "only $count MB fit after $((all / 2)) MB were deleted"
pass "deleting makes room: $count MB again"
intact a 1 "$all" 2 "after others were deleted and written"
intact b 0 "$count" 1 "in reused room"
kill_mount
mount_fs
intact a 1 "$all" 2 "after a crash"
intact b 0 "$count" 1 "after a crash"
pass "all intact after a crash"
umount_fs
fsck_clean
