#!/bin/bash
# One file system is mounted once. A second mount of its directory is refused while the first lives, frozen or not, and takes
# over when it is dead. Where the directory's lock does not reach (a copy of the directory: a second host with a stale view),
# the nodes refuse the older mount: what it was to write while it was frozen reaches nobody's file, and it ends and says so.
POOL=256M
source "$(dirname "$0")/lib.sh"
check=$HELPERS/pattern
new_fs deadline=3000
"$check" write "$MNT/file" 1000000 5
mkdir "$WORK/mnt2"

say "the same directory"
refused() {   # WHEN: a second mount
  local status=0 start; start=$(now_ms)
  timeout 20 rmemfs "$DIR" "$WORK/mnt2" >"$WORK/refused.log" 2>&1 || status=$?
  [ $status = 1 ] || fail "a second mount, $1: status $status"
  grep -q "in use by another process" "$WORK/refused.log" || fail "it does not say why: $(cat "$WORK/refused.log")"
  ! mountpoint -q "$WORK/mnt2" || fail "a second mount, $1, is mounted"
  pass "$1, a second mount is refused after $(($(now_ms) - start)) ms: $(cat "$WORK/refused.log")"
}
refused "while the first works"
signal STOP mount
refused "while the first is frozen"
signal CONT mount
"$check" check "$MNT/file" 1000000 5 || fail "after SIGCONT"
"$check" write "$MNT/more" 1000000 6 || fail "after SIGCONT"
# The first one dies; its mount point is left behind, and the second mount is elsewhere.
kill_now mount
spawn second rmemfs -f -o deadline=3000 "$DIR" "$WORK/mnt2"
wait_for 15 mountpoint -q "$WORK/mnt2" || fail "nobody can take over from a dead mount: $(tail -n 3 "$WORK/second.log")"
"$check" check "$WORK/mnt2/file" 1000000 5 && "$check" check "$WORK/mnt2/more" 1000000 6 || fail "the first one's files"
"$check" write "$WORK/mnt2/second" 1000000 7 || fail "the second mount cannot write"
status=0; stat "$MNT/file" >"$WORK/stale.txt" 2>&1 || status=$?
[ $status != 0 ] && grep -q "not connected" "$WORK/stale.txt" || fail "the dead mount's path: $(cat "$WORK/stale.txt")"
umount "$WORK/mnt2"
ended second 15 || fail "the second mount does not end"
reap second || fail "the second mount ended with status $?"
detach "$MNT"
mount_fs deadline=3000
"$check" check "$MNT/second" 1000000 7 || fail "what the second mount wrote"
pass "a second mount takes over from a dead one, and the next one from it"

say "a copy of the directory"
twin() {   # takes over with a newer epoch, from a copy of the directory as it is now
  rm -rf "$WORK/twin"
  cp -a "$DIR" "$WORK/twin"
  rm -f "$WORK/twin/admin.sock"
  spawn twin rmemfs -f -o deadline=3000 "$WORK/twin" "$WORK/mnt2" 7<&- 8<&-   # which would keep the first one busy
  wait_for 15 mountpoint -q "$WORK/mnt2" || { tail -3 "$WORK/twin.log"; fail "the copy, with a newer epoch, does not mount"; }
}
end_twin() {
  umount "$WORK/mnt2"
  ended twin 15 || fail "the newer mount does not end"
  reap twin || fail "the newer mount ended with status $?"
}
first_is_gone() {
  ended mount 15 || fail "the older mount goes on"
  reap mount || true
  grep -q "newer mount has taken over" "$WORK/mount.log" || fail "the older mount does not say why it ended"
  detach "$MNT"
  MOUNT_PID=
}
twin
status=0
"$check" write "$MNT/late" 1000000 6 >"$WORK/late.txt" || status=$?
[ $status != 0 ] || fail "the older mount can still write"
grep -Eq 'ESTALE|EIO' "$WORK/late.txt" || fail "the older mount's write failed with $(cat "$WORK/late.txt")"
"$check" check "$WORK/mnt2/file" 1000000 5 || fail "the newer mount cannot read"
"$check" write "$WORK/mnt2/new" 1000000 7 || fail "the newer mount cannot write"
"$check" check "$WORK/mnt2/new" 1000000 7 || fail "the newer mount's file"
pass "the older mount is refused ($(cat "$WORK/late.txt")), the newer one works"
first_is_gone
end_twin

say "a copy of the directory, and the first one frozen with work to do"
rm -rf "$DIR"; cp -a "$WORK/twin" "$DIR"
: >"$WORK/mount.log"
mount_fs deadline=3000
# Bytes that the older mount may overwrite in place, as far as it knows; a store that nobody has written back, too.
exec 7<>"$MNT/file" 8<>"$MNT/more"
sync -f "$MNT"
signal STOP mount
for fd in 7 8; do spawn "writer$fd" python3 -c '
import os, sys
fd = int(sys.argv[1])
try:
    for block in range(200):
        os.pwrite(fd, b"late" * 1000, block * 5000)
    print("written")
except OSError as error:
    print("refused:", error.errno)
' "$fd"; done
spawn namer mkdir "$MNT/late-name"
twin
# The newer one gives the older one's blocks to other files, and writes where the older one is going to.
"$check" write "$WORK/mnt2/file" 1000000 8
rm "$WORK/mnt2/more"
for i in 1 2 3 4 5; do "$check" write "$WORK/mnt2/fresh$i" 1000000 $((20 + i)); done
signal CONT mount
for name in writer7 writer8; do
  ended "$name" 20 || fail "$name waits for good"
  reap "$name" || true
  grep -q refused "$WORK/$name.log" || fail "$name: $(cat "$WORK/$name.log")"
done
ended namer 20 || fail "mkdir waits for good"
reap namer || true
exec 7<&- 8<&-
first_is_gone
mine() {
  "$check" check "$WORK/mnt2/file" 1000000 8 || fail "the older mount wrote into the newer one's file, $1"
  for i in 1 2 3 4 5; do "$check" check "$WORK/mnt2/fresh$i" 1000000 $((20 + i)) || fail "the older mount wrote into fresh$i, $1"; done
  [ ! -e "$WORK/mnt2/more" ] && [ ! -e "$WORK/mnt2/late-name" ] || fail "the older mount's names came to the newer one, $1"
}
mine "as the newer one has it"
end_twin
DIR=$WORK/twin
fsck_clean
spawn twin rmemfs -f "$WORK/twin" "$WORK/mnt2"
wait_for 15 mountpoint -q "$WORK/mnt2" || fail "the copy does not mount again"
mine "after a remount"
end_twin
pass "a mount that was frozen with work to do does no harm when it goes on"
