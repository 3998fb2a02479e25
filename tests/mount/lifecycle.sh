#!/bin/bash
# How a mount begins and ends: mount(8), daemonizing, SIGTERM, umount, and what df, findmnt and a second mount see.
source "$(dirname "$0")/lib.sh"
mount_by_type "$@"
start_nodes
make_fs
daemon_pid() { rmemctl status --json "$MNT" | json "d['pid']"; }
gone() { ! kill -0 "$1" 2>/dev/null; }

say "mount -t fuse.rmemfs returns when the mount serves"
within 5000 "mount(8)" mount -t fuse.rmemfs "$DIR" "$MNT" -o deadline=4000
mountpoint -q "$MNT" || fail "mount returned before the mount was there"
PID[daemon]=$(daemon_pid)
echo one >"$MNT/one"
[ "$(findmnt -n -o SOURCE "$MNT")" = "$DIR" ] || fail "findmnt shows $(findmnt -n -o SOURCE "$MNT") as the source"
[ "$(findmnt -n -o FSTYPE "$MNT")" = fuse.rmemfs ] || fail "findmnt shows the type $(findmnt -n -o FSTYPE "$MNT")"
[ "$(readlink "/proc/${PID[daemon]}/cwd")" = / ] || fail "the daemon keeps a working directory"
pass "mount(8), findmnt"
umount "$MNT"
wait_for 10 gone "${PID[daemon]}" || fail "the daemon is still there 10 s after umount"
unset "PID[daemon]"
pass "umount ends the daemon"

say "an entry of fstab"
printf '%s  %s  fuse.rmemfs  noauto,_netdev,nofail,deadline=4000  0  0\n' "$DIR" "$MNT" >"$WORK/fstab"
mount -T "$WORK/fstab" "$MNT" || fail "mount of an fstab entry"
PID[daemon]=$(daemon_pid)
[ "$(cat "$MNT/one")" = one ] || fail "the file is not there"
umount "$MNT"
wait_for 10 gone "${PID[daemon]}" || fail "the daemon of the fstab entry is still there 10 s after umount"
unset "PID[daemon]"
status=0
mount -t fuse.rmemfs "$WORK/nothing" "$MNT" >"$WORK/failing.log" 2>&1 || status=$?
[ $status != 0 ] || fail "mount(8) of a directory that is no file system ends with 0"
grep -q "$WORK/nothing" "$WORK/failing.log" || fail "mount(8) does not say what is wrong: $(cat "$WORK/failing.log")"
! mountpoint -q "$MNT" || fail "a refused mount is mounted"
pass "fstab, and mount(8) that fails says so"

say "rmemfs daemonizes; SIGTERM unmounts"
for signal in TERM INT; do
  within 5000 "rmemfs" rmemfs "$DIR" "$MNT"
  [ "$(cat "$MNT/one")" = one ] || fail "the file is gone"
  PID[daemon]=$(daemon_pid)
  echo "$signal" >"$MNT/$signal"
  kill -$signal "${PID[daemon]}"
  wait_for 10 gone "${PID[daemon]}" || fail "the daemon is still there 10 s after SIG$signal"
  unset "PID[daemon]"
  ! mountpoint -q "$MNT" && stat "$MNT" >/dev/null || fail "the mount is still there after SIG$signal"
  pass "SIG$signal unmounts"
done
rmemfs "$DIR" "$MNT"
PID[daemon]=$(daemon_pid)
[ "$(cat "$MNT/TERM" "$MNT/INT")" = $'TERM\nINT' ] || fail "what was written before the signals is gone"
kill -HUP "${PID[daemon]}"   # a daemon has no terminal that could be gone
sleep 0.3
mountpoint -q "$MNT" && touch "$MNT/HUP" || fail "SIGHUP ends a daemon"
pass "what was written before SIGTERM is there"

say "umount of a busy mount is refused and harms nothing; the daemon outlives its terminal"
exec 7<"$MNT/one"
! umount "$MNT" 2>/dev/null || fail "a busy mount was unmounted"
[ "$(cat <&7)" = one ] || fail "the open file"
exec 7<&-
umount "$MNT"
wait_for 10 gone "${PID[daemon]}" || fail "the daemon is still there"
unset "PID[daemon]"

say "umount in the middle of work: a lazy one lets the open file finish"
mount_fs
exec 7>"$MNT/lazy"
echo first >&7
umount -l "$MNT"
echo second >&7
exec 7>&-
ended mount 10 || fail "the daemon does not end after the last close of a lazy umount"
reap mount || fail "the daemon ended with status $?"
MOUNT_PID=
mount_fs
[ "$(cat "$MNT/lazy")" = $'first\nsecond' ] || fail "what was written after umount -l is gone"
pass "a lazy umount"
umount_fs

say "-o ro"
mount_fs ro
[ "$(cat "$MNT/one")" = one ] || fail "a read-only mount cannot read"
! touch "$MNT/no" 2>"$WORK/ro.txt" || fail "a read-only mount lets files be made"
grep -qi "read-only" "$WORK/ro.txt" || fail "touch on a read-only mount: $(cat "$WORK/ro.txt")"
pass "-o ro"
umount_fs
say "-o commit=sync"
mount_fs commit=sync,lanes=2
mkdir "$MNT/sync"
timeout 10 rmemctl status "$MNT" | grep -qi 'surviv' || fail "rmemctl status does not say what a returned fsync survives"
umount_fs
fsck_clean
