#!/bin/bash
# The words of mount(8): each is applied, as findmnt shows, or ignored as mount(8) expects; remount changes the mount and
# its daemon, in every form that mount(8) has; SELinux contexts reach the kernel.
POOL=256M
source "$(dirname "$0")/lib.sh"
mount_by_type "$@"
start_nodes
make_fs
daemon_pid() { rmemctl status --json "$MNT" | json "d['pid']"; }
state() { rmemctl status "$MNT" | grep -Eq "^state +$1"; }
shown() { findmnt -n -o OPTIONS "$MNT" | tr , '\n'; }
shows() { local word; for word in "$@"; do shown | grep -qx -- "$word" || fail "findmnt does not show $word: $(shown | tr '\n' ' ')"; done; }
hides() { local word; for word in "$@"; do ! shown | grep -qx -- "$word" || fail "findmnt shows $word: $(shown | tr '\n' ' ')"; done; }
# says PATTERN COMMAND...: it fails, and its one sentence matches.
says() {
  local pattern=$1 status=0; shift
  timeout 30 "$@" >"$WORK/said" 2>&1 || status=$?
  [ $status != 0 ] && [ $status != 124 ] || fail "$*: status $status"
  grep -Eq -- "$pattern" "$WORK/said" || fail "$* says: $(cat "$WORK/said")"
}

say "words of a first mount"
mount_fs
shows rw nosuid nodev relatime; hides noatime nodiratime lazytime
umount_fs
mount_fs strictatime,nodiratime,lazytime,suid,dev,noexec,dirsync
shows nodiratime lazytime noexec dirsync; hides relatime noatime nosuid nodev
umount_fs
mount_fs noatime,relatime,sync
shows relatime sync; hides noatime
umount_fs
mount_fs relatime,noatime,nolazytime
shows noatime; hides relatime lazytime
umount_fs
mount_fs defaults,auto,noauto,nofail,_netdev,user,nouser,users,owner,group,comment=words,x-systemd.automount,x-systemd.idle-timeout=60,X-mount.mkdir,norelatime,nostrictatime,nolazytime,atime,diratime,silent,loud
shows rw relatime
echo one >"$MNT/one"
pass "the words of mount(8) are applied, or ignored"

say "remount, in every form"
printf '%s  %s  fuse.rmemfs  noauto,_netdev,nofail,user,relatime,deadline=4000,x-systemd.automount  0  0\n' "$DIR" "$MNT" >"$WORK/fstab"
read_only() {   # HOW
  shows ro
  ! touch "$MNT/no" 2>"$WORK/ro.txt" || fail "$1: a file was made"
  grep -qi 'read-only' "$WORK/ro.txt" || fail "$1: $(cat "$WORK/ro.txt")"
  [ "$(cat "$MNT/one")" = one ] || fail "$1: the file cannot be read"
  state read-only || fail "$1: the daemon was not told"
}
writable() { shows rw; echo "$1" >"$MNT/written" || fail "$1: nothing can be written"; state serving || fail "$1: the daemon was not told"; }
for form in "-o remount,%s $MNT" "-t fuse.rmemfs -o remount,%s $DIR $MNT" "-T $WORK/fstab -o remount,%s $MNT" "-T $WORK/fstab -o remount,%s $DIR"; do
  # shellcheck disable=SC2059,SC2046
  mount $(printf -- "$form" ro) || fail "mount $form, ro"
  read_only "mount $form"
  # shellcheck disable=SC2059,SC2046
  mount $(printf -- "$form" rw) || fail "mount $form, rw"
  writable "mount $form"
done
rmemfs -o remount,ro "$DIR" "$MNT" || fail "rmemfs -o remount,ro"
read_only "rmemfs -o remount,ro"
mount -i -o remount,rw "$MNT"    # the kernel alone
! touch "$MNT/no" 2>/dev/null || fail "a daemon that is read-only makes files"
rmemfs -o remount,rw "$DIR" "$MNT" || fail "rmemfs -o remount,rw"
writable "rmemfs -o remount,rw"
mount -o remount,noatime,nosuid,nodev,noexec "$MNT"
shows noatime nosuid nodev noexec
mount -o remount,strictatime,lazytime "$MNT"
shows lazytime noexec; hides noatime relatime
mount -o remount,relatime,nolazytime,exec "$MNT"
shows relatime; hides lazytime noexec
writable "other flags"
pass "remount changes flags, in the kernel and in the daemon"

say "what is written before a remount is kept, and open files are not betrayed"
exec 7>"$MNT/open"
echo first >&7
says 'open for writing' mount -o remount,ro "$MNT"
writable "a refused remount"
echo second >&7
exec 7>&-
python3 - "$MNT/mapped" <<'P'
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
with mmap.mmap(fd, 1 << 20) as m:
    m[:] = b"m" * (1 << 20)
P
mount -o remount,ro "$MNT"
read_only "after a mapping"
umount_fs
mount_fs ro
[ "$(cat "$MNT/open")" = $'first\nsecond' ] || fail "what was written around a refused remount is gone"
[ "$(tr -d m <"$MNT/mapped" | wc -c)" = 0 ] && [ "$(wc -c <"$MNT/mapped")" = 1048576 ] || fail "what was mapped is gone"
mount -o remount,rw "$MNT"
writable "a mount that began with -o ro"
pass "an open file refuses it, a mapping is written back, and -o ro can become rw"

say "what cannot be remounted"
mkdir "$WORK/other" "$WORK/empty"
says 'no rmemfs mount' rmemfs -o remount,ro "$DIR" "$WORK/empty"
says "is a mount of $DIR" rmemfs -o remount,ro "$WORK/other" "$MNT"
says 'unknown option "sideways"' rmemfs -o remount,sideways "$DIR" "$MNT"
signal_nodes STOP
within 3000 "remount with frozen nodes" mount -o remount,ro "$MNT"
within 3000 "remount with frozen nodes" mount -o remount,rw "$MNT"
signal_nodes CONT
signal STOP mount
start=$(now_ms)
says 'deadline' rmemfs -o remount,ro,deadline=1s "$DIR" "$MNT"
[ $(($(now_ms) - start)) -le 9000 ] || fail "a remount with a frozen daemon took $(($(now_ms) - start)) ms"
signal CONT mount
mount -o remount,rw "$MNT"
writable "after SIGCONT"
pass "a remount that cannot be is refused, in time"
umount_fs

say "SELinux contexts"
context='context="system_u:object_r:tmp_t:s0:c1,c2"'
if [ ! -e /sys/fs/selinux ]; then
  says 'the kernel refuses context="system_u:object_r:tmp_t:s0:c1,c2": it has no SELinux' rmemfs -o "$context" "$DIR" "$MNT"
  others=fscontext=u:r:t:s0,defcontext=u:r:t:s0,rootcontext=u:r:t:s0
  says "the kernel refuses fscontext=u:r:t:s0: it has no SELinux" rmemfs -o $others "$DIR" "$MNT"
  ! mountpoint -q "$MNT" || fail "a refused mount is mounted"
  # mount(8) itself leaves them out on such a kernel.
  mount -t fuse.rmemfs -o "$context" "$DIR" "$MNT" || fail "mount(8) with a context"
  PID[daemon]=$(daemon_pid)
  umount "$MNT"
  wait_for 10 flock -n "$DIR/lock" true || fail "the daemon does not end"
  unset "PID[daemon]"
  pass "without SELinux a context is refused with the kernel's word"
else
  mount_fs "$context"
  ls -Zd "$MNT" | grep -q tmp_t || fail "the context is not there: $(ls -Zd "$MNT")"
  umount_fs
  pass "a context is applied"
fi
says 'context=: names no context' rmemfs -o context= "$DIR" "$MNT"
fsck_clean
