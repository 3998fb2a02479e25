#!/bin/bash
# A file's bytes against an array: every way of changing and of reading them, mixed on several descriptors of two files;
# through remounts; and with kill -9 of the daemon between.
POOL=256M CHUNK=4M
source "$(dirname "$0")/../mount/lib.sh"
model=$HELPERS/byte_model state=$WORK/state
# The short run does the same each time, so that what it finds is the change's; the long one does something new.
if [ -n "$LONG" ]; then seed=${RMEMFS_SEED:-$(($(date +%s) % 1000000))}; else seed=${RMEMFS_SEED:-20261125}; fi
say "seed $seed (RMEMFS_SEED=$seed repeats it, but for the moments of death)"
new_fs

operations=$(pick 3000 200000)
"$model" run "$MNT" "$state" "$seed" "$operations" || fail "the array and the file differ"
"$model" verify "$MNT" "$state" || fail "through new descriptors"
pass "$operations operations on one mount"

rounds=$(pick 3 50)
for ((round = 1; round <= rounds; round++)); do
  remount_fs
  "$model" verify "$MNT" "$state" >/dev/null || fail "after remount $round"
  "$model" run "$MNT" "$state" "$seed" $((round < rounds ? $(pick 500 4000) : $(pick 1 4000))) || fail "after remount $round"
done
pass "$rounds remounts with operations between"

# Each death is a moment within a second of work at most; what the kernel has written back by itself then is anyone's guess.
before=$("$model" verify "$MNT" "$state" | sed 's/ .*//')
deaths=0
until [ $deaths -ge "$(pick 5 60)" ] && { [ -z "$LONG" ] || [ "$done" -ge $((before + 200000)) ]; }; do
  "$model" run "$MNT" "$state" "$((seed + deaths))" 0 "$MOUNT_PID" "$(pick 400 1500)" || fail "before death $deaths"
  kill_mount
  mount_fs
  "$model" verify "$MNT" "$state" >"$WORK/verify.txt" || { cat "$WORK/verify.txt" >&2; fail "after death $deaths"; }
  done=$(sed 's/ .*//' "$WORK/verify.txt")
  deaths=$((deaths + 1))
done
[ "$done" -gt "$before" ] || fail "no operation was acknowledged before any death: this proves nothing"
cat "$WORK/verify.txt"
pass "$deaths deaths of the daemon, $((done - before)) operations between"
umount_fs
fsck_clean

say "one byte of the file is changed behind the array's back"
mount_fs
at=$(($(stat -c %s "$MNT/low") - 1))
[ $at -gt 0 ] || { "$model" run "$MNT" "$state" "$seed" 50; at=$(($(stat -c %s "$MNT/low") - 1)); }
old=$(od -An -tu1 -j $at -N 1 "$MNT/low" | tr -d ' ')
printf "\\x$(printf %02x $((old ^ 1)))" | dd of="$MNT/low" bs=1 seek=$at conv=notrunc status=none
! "$model" verify "$MNT" "$state" >"$WORK/verify.txt" || fail "the wrong byte was not found"
grep -q "byte $at of .*/low is" "$WORK/verify.txt" || fail "it does not name byte $at: $(cat "$WORK/verify.txt")"
pass "$(grep 'byte' "$WORK/verify.txt")"
