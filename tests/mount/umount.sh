#!/bin/bash
# The end of a mount, and what comes after it: umount with dead and frozen nodes, rmemctl umount also of what hangs, a
# mount right after an umount, and one in place of a mount whose daemon died.
POOL=256M
source "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "umount needs root"
deadline=4000
new_fs deadline=$deadline
free_lock() { flock -n "$DIR/lock" true; }
entries() { grep -c " $MNT fuse.rmemfs " /proc/self/mounts || true; }
# says STATUS PATTERN COMMAND...: it ends with this status, and its one sentence matches.
says() {
  local expected=$1 pattern=$2 status=0; shift 2
  timeout 30 "$@" >"$WORK/said" 2>&1 || status=$?
  [ $status = "$expected" ] || fail "$*: status $status: $(cat "$WORK/said")"
  grep -Eq -- "$pattern" "$WORK/said" || fail "$* says: $(cat "$WORK/said")"
}
# The daemon is ours, so it stays as a zombie until it is reaped.
gone_within() { ended mount "$1" || fail "$2: the daemon is still there after $1 s"; reap mount || [ "${3:-}" = killed ] || fail "$2: the daemon ended with status $?"; MOUNT_PID=; }
dirty() {   # NAME: writes through a mapping, and leaves the writing back to the end of the process
  python3 - "$MNT/$1" <<'P'
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 0)
for i in range(0, len(m), 4096):
    m[i:i + 4] = b"abcd"
P
}

say "umount when a node is dead or frozen, with and without what a mapping has just written"
for how in dead frozen; do
  for written in nothing mapping; do
    [ -n "${PID[mount]:-}" ] || mount_fs deadline=$deadline
    "$HELPERS/pattern" write "$MNT/file" 8000000 1
    [ $written = nothing ] || dirty file
    if [ $how = dead ]; then kill_node 1; else signal STOP node1; fi
    within 1000 "umount, node $how, $written unwritten" umount "$MNT"
    within 4000 "and the daemon's end" gone_within 5 umount
    if [ $how = dead ]; then start_node 1; else signal CONT node1; fi
  done
done
mount_fs deadline=$deadline
"$HELPERS/pattern" write "$MNT/file" 8000000 1
kill_node 1
until rmemctl nodes "$MNT" | grep -q unreachable; do sleep 0.05; done
within 1000 "umount, node dead for a while" umount "$MNT"
within 4000 "and the daemon's end" gone_within 5 umount
start_node 1

# What a mapping stored and no node takes is written back, in vain, when its process ends: that takes the deadline, once, and
# nothing is left for umount.
mount_fs deadline=1500
"$HELPERS/pattern" write "$MNT/file" 40000000 1
spawn holder python3 -c "
import mmap, os, sys, time
m = mmap.mmap(os.open('$MNT/file', os.O_RDWR), 0)
for i in range(0, len(m), 4096):
    m[i:i + 4] = b'abcd'
print('stored', flush=True)
time.sleep(60)"
wait_for 10 grep -q stored "$WORK/holder.log" || fail "the mapping"
kill_node 1
! umount "$MNT" 2>/dev/null || fail "a mount with a mapping was unmounted"
signal TERM holder
within 4000 "the end of a process whose mapping cannot be written back" ended holder 20
reap holder || true
within 1000 "umount after it" umount "$MNT"
gone_within 5 umount
start_node 1

say "rmemctl umount"
mount_fs deadline=$deadline
says 3 'no rmemfs is mounted there' rmemctl umount "$WORK/nothing"
says 2 'only one' rmemctl umount --force --lazy "$MNT"
exec 7>"$MNT/open"
echo first >&7
says 1 "$MNT is in use" rmemctl umount "$MNT"
echo second >&7
within 1000 "rmemctl umount --lazy" rmemctl umount --lazy "$MNT"
! mountpoint -q "$MNT" || fail "it is still mounted after umount --lazy"
echo third >&7 || fail "an open file does not outlive umount --lazy"
exec 7>&-
gone_within 10 "umount --lazy"
mount_fs deadline=$deadline
[ "$(cat "$MNT/open")" = $'first\nsecond\nthird' ] || fail "what was written around umount --lazy is gone"
within 2000 "rmemctl umount by mount point" rmemctl umount "$MNT"
free_lock || fail "rmemctl umount returned before the daemon had let go"
gone_within 1 "rmemctl umount"
mount_fs deadline=$deadline
within 2000 "rmemctl umount by directory" rmemctl umount "$DIR"
gone_within 1 "rmemctl umount"
pass "rmemctl umount, --lazy, and a busy mount is left alone"

say "rmemctl umount --force with frozen nodes, open files and a process that waits"
mount_fs deadline=60000
"$HELPERS/pattern" write "$MNT/kept" 1000000 7
sync -f "$MNT"
exec 7<"$MNT/kept"
signal_nodes STOP
# One that no cache and no mapping answers: it waits for a node.
spawn waiting bash -c "dd if=/dev/zero of='$MNT/new' bs=1M count=64 oflag=direct"
if [ "$TRANSPORT" = tcp ]; then sleep 0.5; alive "${PID[waiting]}" || fail "nothing waits for the frozen node"; fi
within 4000 "rmemctl umount --force" rmemctl umount --force "$MNT"
ended waiting 2 || fail "a process still waits for the mount"
reap waiting && [ "$TRANSPORT" = tcp ] && fail "a write to a frozen node succeeded"
! cat <&7 >/dev/null 2>&1 || fail "an open file can still be read"
exec 7<&-
free_lock || fail "the directory is still locked after umount --force"
gone_within 1 "umount --force" killed
signal_nodes CONT
fsck_clean
mount_fs deadline=$deadline
"$HELPERS/pattern" check "$MNT/kept" 1000000 7 || fail "what was synced before umount --force is gone"
pass "umount --force ends what hangs, and keeps what was synced"

say "a frozen daemon"
exec 7<"$MNT/kept"
signal STOP mount
says 1 'in use' rmemctl umount "$MNT"
exec 7<&-
within 3000 "umount of a frozen daemon's mount" says 4 'is unmounted, but its daemon, pid [0-9]+, is stopped' rmemctl umount "$MNT"
say "a mount right after it waits for the old daemon, or says why not"
start=$(now_ms)
says 1 'not seen here' rmemfs "$DIR" "$MNT"
[ $(($(now_ms) - start)) -le 6000 ] || fail "a mount waited $(($(now_ms) - start)) ms for a daemon that is frozen"
spawn thaw bash -c "sleep 0.7; kill -CONT $MOUNT_PID"
within 4000 "a mount that waits for the old daemon's end" rmemfs -o deadline=$deadline "$DIR" "$MNT"
reap thaw
gone_within 1 "umount of a frozen daemon's mount"
PID[daemon]=$(rmemctl status --json "$MNT" | json "d['pid']")
mkdir "$WORK/mnt2"
start=$(now_ms)
says 1 "$DIR \(mounted on $MNT by rmemfs, pid ${PID[daemon]}\).*in use" rmemfs "$DIR" "$WORK/mnt2"
[ $(($(now_ms) - start)) -le 1500 ] || fail "a second mount is refused after $(($(now_ms) - start)) ms only"
for ((i = 0; i < 5; i++)); do
  umount "$MNT" && rmemfs -o deadline=$deadline "$DIR" "$MNT" || fail "mount right after umount, round $i"
  "$HELPERS/pattern" check "$MNT/kept" 1000000 7 || fail "the file after round $i"
done
PID[daemon]=$(rmemctl status --json "$MNT" | json "d['pid']")
kill -STOP "${PID[daemon]}"
within 5000 "umount --force of a frozen daemon" rmemctl umount --force "$MNT"
free_lock || fail "a frozen daemon still holds the directory"
unset "PID[daemon]"
pass "mounts right after umounts, of frozen daemons too"

say "a stale mount is replaced when asked"
replace() {   # mount_fs would take the stale mount for the new one, and the kernel remembers the stale one's names
  spawn mount rmemfs -f -o deadline=$deadline,replace_stale "$DIR" "$MNT"
  MOUNT_PID=${PID[mount]}
  wait_for 10 "$HELPERS/pattern" check "$MNT/kept" 1000000 7 || fail "the stale mount is not replaced"
}
mount_fs deadline=$deadline
mkdir "$MNT/home"
spawn inside bash -c "cd '$MNT/home' && exec 8<'$MNT/kept' && echo in && while ! [ -e '$WORK/go' ]; do sleep 0.05; done
  if cat /proc/self/cwd/. 2>'$WORK/cwd'; then exit 1; fi; if cat <&8 2>'$WORK/fd' >/dev/null; then exit 2; fi; exit 0"
wait_for 10 grep -q in "$WORK/inside.log" || fail "no process in the mount"
kill_now mount; MOUNT_PID=
says 1 "mount point $MNT is a stale mount whose daemon is gone; mount with -o replace_stale" rmemfs "$DIR" "$MNT"
[ "$(entries)" = 1 ] || fail "a refused mount changed the mount point"
replace
[ "$(entries)" = 1 ] || fail "there are $(entries) mounts on $MNT"
"$HELPERS/pattern" check "$MNT/kept" 1000000 7 || fail "the file in the new mount"
touch "$WORK/go"
reap inside || fail "what was in the stale mount works still: $(cat "$WORK/cwd" "$WORK/fd")"
grep -q 'not connected' "$WORK/fd" || fail "an open file of the stale mount says: $(cat "$WORK/fd")"
kill_now mount; MOUNT_PID=
ln -s "$MNT" "$WORK/link"
within 2000 "rmemctl umount of a stale mount" rmemctl umount "$WORK/link"
[ "$(entries)" = 0 ] || fail "a stale mount is still there after rmemctl umount"
mkdir "$WORK/foreign"
exec 9<>/dev/fuse
mount -i -t fuse.foreign -o fd=9,rootmode=40000,user_id=0,group_id=0 foreign "$WORK/foreign"
exec 9>&-
says 1 "$WORK/foreign is a stale mount of another file system" rmemfs -o replace_stale "$DIR" "$WORK/foreign"
umount -l "$WORK/foreign" || fail "somebody else's stale mount was replaced"
replace
pass "-o replace_stale; what was inside goes on with an error"
say "a mount point whose daemon is frozen is not waited for"
cp -a "$DIR" "$WORK/fs2"
signal STOP mount
start=$(now_ms)
says 1 "mount point $MNT does not answer.*rmemctl umount --force" rmemfs "$WORK/fs2" "$MNT"
[ $(($(now_ms) - start)) -le 6000 ] || fail "it took $(($(now_ms) - start)) ms"
signal CONT mount
umount_fs
fsck_clean
