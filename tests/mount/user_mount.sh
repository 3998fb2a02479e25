#!/bin/bash
# An ordinary user mounts with fusermount3 and unmounts again; another user sees nothing, and nothing of it needs root.
source "$(dirname "$0")/lib.sh"
need setpriv unshare fusermount3
user() { "$@"; }
if [ "$(id -u)" = 0 ]; then   # then the user is made, and /dev/fuse accessible to it, here only
  private_namespace "$@"
  mknod "$WORK/fuse" c 10 229 && chmod 666 "$WORK/fuse" && mount --bind "$WORK/fuse" /dev/fuse || skip "no device node for the user can be made here"
  user() { setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"; }
  user test -x "$RMEMFS_BIN/rmemfs" || { mkdir "$WORK/bin"; cp "$RMEMFS_BIN"/{rmemd,rmemfs,rmemctl,mkfs.rmemfs,fsck.rmemfs} "$WORK/bin/"; PATH=$WORK/bin:$PATH; }
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm   # here only: what is left in it is this test's
  mkdir "$WORK/home"; chown 65534:65534 "$WORK/home" "$MNT"
  DIR=$WORK/home/fs
fi
user test -r /dev/fuse || skip "this user may not open /dev/fuse"

say "rmemfs --local, mkfs and mount as an ordinary user"
user rmemfs --local 256M "$DIR" "$MNT" || fail "the user cannot mount"
user bash -c "cp -r /usr/include/linux '$MNT/linux' && diff -r /usr/include/linux '$MNT/linux'" || fail "the user cannot use it"
[ "$(user stat -c %U "$MNT/linux")" = "$(user id -un)" ] || fail "files belong to somebody else"
user timeout 10 rmemctl status "$MNT" >/dev/null || fail "the user cannot ask for the status"
if [ "$(id -u)" = 0 ]; then
  ! setpriv --reuid=65533 --regid=65533 --clear-groups -- ls "$MNT" >/dev/null 2>&1 || fail "another user can look into it"
fi
user fusermount3 -u "$MNT" || fail "the user cannot unmount"
wait_for 10 eval "! mountpoint -q '$MNT'"
wait_for 10 flock -n "$DIR/lock" true || fail "the daemon is still there"
user rmemfs --local 256M "$DIR" "$MNT" || fail "the user cannot mount again"
user diff -r /usr/include/linux "$MNT/linux" || fail "the files are gone"
user timeout 10 rmemctl umount "$MNT" || fail "the user cannot unmount with rmemctl"
flock -n "$DIR/lock" true || fail "rmemctl umount returned before the daemon had let go"
user rmemfs -o noatime,noexec "$DIR" "$MNT" || fail "the user cannot mount with flags"
findmnt -n -o OPTIONS "$MNT" | grep -q 'noexec,noatime' || fail "the flags of a user's mount: $(findmnt -n -o OPTIONS "$MNT")"
user timeout 10 rmemctl umount --force "$MNT" || fail "the user cannot force an umount with rmemctl"
flock -n "$DIR/lock" true || fail "rmemctl umount --force returned before the daemon had let go"
! user rmemfs -o strictatime,nodiratime,lazytime,context=a:b:c:s0 "$DIR" "$MNT" 2>"$WORK/said" || fail "what is for root was taken"
grep -q 'are for root' "$WORK/said" || fail "a user's strictatime is refused with: $(cat "$WORK/said")"
wait_for 10 flock -n "$DIR/lock" true || fail "a refused mount still holds its directory"
user rmemfs "$DIR" "$MNT" || fail "the user cannot mount after a refused mount"
! user rmemfs -o remount,ro "$DIR" "$MNT" 2>"$WORK/said" || fail "a user can remount"
grep -qi 'not permitted' "$WORK/said" || fail "a user's remount is refused with: $(cat "$WORK/said")"
user touch "$MNT/after" || fail "a refused remount made the mount read-only"
kill -9 "$(user rmemctl status --json "$MNT" | json "d['pid']")"
wait_for 10 flock -n "$DIR/lock" true || fail "a killed daemon still holds its directory"
user rmemfs -o replace_stale "$DIR" "$MNT" || fail "the user cannot replace a stale mount"
user test -e "$MNT/after" && [ "$(grep -c " $MNT fuse.rmemfs " /proc/self/mounts)" = 1 ] || fail "the stale mount is not replaced"
user timeout 10 rmemctl umount "$MNT" || fail "the user cannot unmount with rmemctl"
user fsck.rmemfs -n "$DIR" || fail "fsck -n"
pass "an ordinary user mounts, uses, unmounts, mounts again"

if [ "$(id -u)" = 0 ]; then
  say "a user who may not open /dev/fuse"
  chmod 600 "$WORK/fuse"
  before=$(ls /dev/shm)
  status=0
  user rmemfs --local 64M "$WORK/home/refused" "$MNT" >"$WORK/refused.log" 2>&1 || status=$?
  [ $status = 1 ] || fail "a mount without access to /dev/fuse: status $status"
  grep -q /dev/fuse "$WORK/refused.log" || fail "it does not say why: $(cat "$WORK/refused.log")"
  wait_for 5 flock -n "$WORK/home/refused/lock" true || fail "the refused mount still holds its directory"
  [ "$(ls -A "$WORK/home/refused")" = lock ] || fail "it left something behind: $(ls -A "$WORK/home/refused" | tr '\n' ' ')"
  [ "$(ls /dev/shm)" = "$before" ] || fail "it left a pool behind"
  pass "it is told why, and nothing is left: $(cat "$WORK/refused.log")"
fi
