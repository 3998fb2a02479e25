#!/bin/bash
# A mount and a node as services: what they tell a service manager, where they log and how the log is opened again, that
# the kernel spares them when memory runs out, the units that are installed, and entries of fstab.
POOL=256M
source "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "services need root"
need systemd-analyze systemd-escape cmake
private_namespace "$@"
mount --bind "$RMEMFS_BIN" /usr/local/bin || skip "rmemfs cannot be shown in /usr/local/bin"
start_nodes
make_fs
# A service manager's socket, or journald's: each datagram becomes a line of its own, with \n for a newline.
cat >"$WORK/listen.py" <<'P'
import socket, sys
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind(sys.argv[1].replace("@", "\0", 1))
print("listening", flush=True)
while True:
    print(repr(listener.recv(1 << 16))[2:-1], flush=True)
P
listen() { spawn "$1" python3 "$WORK/listen.py" "$2"; wait_for 10 grep -q listening "$WORK/$1.log" || fail "the listener $1"; }
told() { wait_for "${3:-10}" grep -Eq -- "$2" "$WORK/$1.log" || fail "$1 was not told $2: $(cat "$WORK/$1.log")"; }
gone() { ! kill -0 "$1" 2>/dev/null; }

say "a service manager hears of a mount"
listen manager "$WORK/notify"
NOTIFY_SOCKET=$WORK/notify WATCHDOG_USEC=400000 spawn mount rmemfs -f "$DIR" "$MNT"
told manager "READY=1.nMAINPID=${PID[mount]}.nSTATUS=serving $DIR on $MNT"
mountpoint -q "$MNT" || fail "READY=1 before the mount was there"
told manager WATCHDOG=1
before=$(grep -c WATCHDOG "$WORK/manager.log")
wait_for 5 eval '[ "$(grep -c WATCHDOG "$WORK/manager.log")" -ge '$((before + 3))' ]' || fail "the watchdog is not told again"
kill -TERM "${PID[mount]}"
told manager "STOPPING=1.nSTATUS=unmounting $MNT"
ended mount 10 && reap mount || fail "the mount ended with status $?"
[ "$(grep -c READY "$WORK/manager.log")" = 1 ] && [ "$(grep -c STOPPING "$WORK/manager.log")" = 1 ] || fail "it was told twice"
pass "READY=1, WATCHDOG=1, STOPPING=1 of a mount"

say "and of a node, by a name without a file; a private node does not speak for its mount"
listen abstract "@rmemfs-test-$$"
NOTIFY_SOCKET=@rmemfs-test-$$ WATCHDOG_USEC=400000 spawn lender rmemd --size 64M --listen "unix:$WORK/lender.sock"
told abstract "READY=1.nMAINPID=${PID[lender]}.nSTATUS=lending 64.0 MiB on unix:$WORK/lender.sock"
told abstract WATCHDOG=1
kill -TERM "${PID[lender]}"
told abstract STOPPING=1
ended lender 10 && reap lender || fail "the node ended with status $?"
NOTIFY_SOCKET=$WORK/notify spawn mount rmemfs -f --local 64M "$WORK/local" "$MNT"
told manager "READY=1.nMAINPID=${PID[mount]}.nSTATUS=serving $WORK/local"
! grep -q lending "$WORK/manager.log" || fail "the private node spoke to the service manager"
score() { cat "/proc/$1/oom_score_adj"; }
# Root in a container may not have the right to be spared.
if (echo -900 >/proc/self/oom_score_adj) 2>/dev/null; then spared=-900; else spared=$(score self); fi
[ "$(score "${PID[mount]}")" = "$spared" ] || fail "the mount's oom_score_adj is $(score "${PID[mount]}"), not $spared"
[ "$(score "$(cat "$WORK/local/node.pid")")" = "$spared" ] || fail "the private node's oom_score_adj"
umount "$MNT"
ended mount 10 && reap mount || fail "the mount ended with status $?"
pass "READY=1 of a node, once"

say "the kernel's choice when memory runs out"
for wanted in -17 17; do
  if [ $wanted = 17 ] || [ "$spared" = -900 ]; then
    mount_fs oom_score_adj=$wanted
    [ "$(score "$MOUNT_PID")" = $wanted ] || fail "oom_score_adj=$wanted gives $(score "$MOUNT_PID")"
    umount_fs
  else
    ! rmemfs -o oom_score_adj=$wanted "$DIR" "$MNT" 2>"$WORK/said" || fail "a score was lowered without the right to"
    grep -q 'oom_score_adj: -17: permission denied' "$WORK/said" || fail "oom_score_adj=-17 says: $(cat "$WORK/said")"
  fi
done
choose() { echo 300 >/proc/self/oom_score_adj; exec rmemfs -f "$DIR" "$MNT"; }
spawn mount choose
wait_for 10 mountpoint -q "$MNT"
[ "$(score "${PID[mount]}")" = 300 ] || fail "a score that was chosen outside is not kept"
umount_fs
[ "$(score "${PID[node1]}")" = "$spared" ] || fail "a node's oom_score_adj is $(score "${PID[node1]}")"
for bad in oom_score_adj=-1001 oom_score_adj=much oom_score_adj=; do
  ! rmemfs -o $bad "$DIR" "$MNT" 2>"$WORK/said" || fail "-o $bad was taken"
  grep -q 'from -1000 to 1000' "$WORK/said" || fail "-o $bad says: $(cat "$WORK/said")"
done
pass "oom_score_adj"

say "the log: journal, file, and the file again after it was renamed"
mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/journal
! rmemfs -o log=journal "$DIR" "$MNT" 2>"$WORK/said" || fail "log=journal without a journal"
grep -q 'the log cannot go to the journal: /run/systemd/journal/socket' "$WORK/said" || fail "log=journal without a journal says: $(cat "$WORK/said")"
listen journal /run/systemd/journal/socket
rmemfs -o log=journal "$DIR" "$MNT" || fail "log=journal"
told journal "PRIORITY=6.nSYSLOG_FACILITY=3.nSYSLOG_IDENTIFIER=rmemfs.nMESSAGE.n.*$DIR is mounted on $MNT"
kill_node 1
told journal "PRIORITY=4.n.*IDENTIFIER=rmemfs.nMESSAGE.n.*memory node .* does not answer"
start_node 1
umount "$MNT"
wait_for 10 flock -n "$DIR/lock" true || fail "the daemon does not end"
# As systemd starts it: standard error is a stream to the journal, and named in the environment.
stream() { JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"; }
: >"$WORK/mount.log"
spawn mount stream rmemfs -f "$DIR" "$MNT"
wait_for 10 mountpoint -q "$MNT"
told journal "pid|IDENTIFIER=rmemfs.nMESSAGE.n.*epoch"
umount_fs
[ ! -s "$WORK/mount.log" ] || fail "a service's log went to standard error as well: $(cat "$WORK/mount.log")"
spawn lender stream rmemd --size 64M --listen "unix:$WORK/lender.sock"
wait_for 10 test -S "$WORK/lender.sock"
kill -TERM "${PID[lender]}"
told journal "IDENTIFIER=rmemd.nMESSAGE.n.*ends on signal 15"
ended lender 10 && reap lender || fail "the node ended with status $?"
pass "the journal gets lines with their priority"

rmemfs -o log="$WORK/the.log" "$DIR" "$MNT" || fail "log=PATH"
PID[daemon]=$(rmemctl status --json "$MNT" | json "d['pid']")
mv "$WORK/the.log" "$WORK/the.log.1"
kill -HUP "${PID[daemon]}"
wait_for 10 grep -q 'the log goes on here' "$WORK/the.log" || fail "the log is not opened again"
mv "$WORK/the.log" "$WORK/the.log.2"
mkdir "$WORK/the.log"
kill -HUP "${PID[daemon]}"
wait_for 10 grep -q "log: $WORK/the.log: Is a directory" "$WORK/the.log.2" || fail "a log that cannot be opened again is not told of: $(cat "$WORK/the.log.2")"
rmdir "$WORK/the.log"
mountpoint -q "$MNT" && touch "$MNT/still" || fail "SIGHUP ended the mount"
umount "$MNT"
wait_for 10 gone "${PID[daemon]}" || fail "the daemon does not end"
unset "PID[daemon]"
grep -q 'is unmounted' "$WORK/the.log.2" || fail "the log does not go on in the file that was there"
spawn lender rmemd --size 64M --listen "unix:$WORK/lender.sock" --log "$WORK/node.log"
wait_for 10 test -S "$WORK/lender.sock"
mv "$WORK/node.log" "$WORK/node.log.1" 2>/dev/null || true
kill -HUP "${PID[lender]}"
wait_for 10 grep -q 'the log goes on here' "$WORK/node.log" || fail "a node's log is not opened again"
kill_now lender
pass "SIGHUP opens the log again"

say "the units"
cmake --install "$(dirname "$RMEMFS_BIN")" --component units --prefix "$WORK/root" >"$WORK/install.log" || { cat "$WORK/install.log"; fail "install"; }
units=$WORK/root/lib/systemd/system
mkdir "$WORK/root/bin" "$WORK/root/sbin"
mount --bind "$RMEMFS_BIN" "$WORK/root/bin"
mount --bind "$RMEMFS_BIN" "$WORK/root/sbin"
cp "$units/rmemfs@.service" "$units/rmemfs@mnt-scratch.service"
for unit in rmemd.service rmemfs@mnt-scratch.service; do
  systemd-analyze verify --man=no "$units/$unit" >"$WORK/verify.log" 2>&1 || fail "systemd-analyze verify $unit: $(cat "$WORK/verify.log")"
  [ ! -s "$WORK/verify.log" ] || fail "systemd-analyze verify $unit: $(cat "$WORK/verify.log")"
done
sed 's/^WatchdogSec=.*/WatchdogSec=sometimes/' "$units/rmemd.service" >"$units/bad.service"
systemd-analyze verify --man=no "$units/bad.service" >"$WORK/verify.log" 2>&1 || true
[ -s "$WORK/verify.log" ] || fail "systemd-analyze verify finds nothing wrong with a bad unit"
# What ExecStart= runs, as systemd would with this environment.
line=$(sed -n 's/^ExecStart=//p' "$units/rmemfs@.service")
line=${line//'${RMEMFS_OPTIONS}'/deadline=4s} line=${line//'${RMEMFS_DIRECTORY}'/$DIR} line=${line//%f/$MNT}
# shellcheck disable=SC2086
spawn mount $line
wait_for 10 mountpoint -q "$MNT" || fail "the unit's command line does not mount"
kill_now mount
# shellcheck disable=SC2086
spawn mount $line   # as Restart= does after a crash
wait_for 10 stat "$MNT/still" || fail "the unit's command line does not mount after a crash"
kill -TERM "${PID[mount]}"
ended mount 10 && reap mount || fail "the unit's process ended with status $?"
! mountpoint -q "$MNT" || fail "a stopped unit left its mount"
pass "the units are sound, and what they run works"

say "an entry of fstab as systemd and mount -a see it"
printf '%s  %s  fuse.rmemfs  _netdev,nofail,x-systemd.automount,x-systemd.idle-timeout=10min,deadline=4s  0  0\n' "$DIR" "$MNT" >"$WORK/fstab"
mount -a -T "$WORK/fstab" || fail "mount -a"
mountpoint -q "$MNT" && stat "$MNT/still" >/dev/null || fail "mount -a did not mount it"
mount -a -T "$WORK/fstab" || fail "mount -a again"
[ "$(grep -c " $MNT fuse.rmemfs " /proc/self/mounts)" = 1 ] || fail "mount -a mounted it twice"
fusermount3 -u "$MNT" || fail "fusermount3 -u"
wait_for 10 flock -n "$DIR/lock" true || fail "the daemon does not end after fusermount3 -u"
mount -a -O no_netdev -T "$WORK/fstab"
! mountpoint -q "$MNT" || fail "_netdev means nothing to mount -a -O no_netdev"
generator=/lib/systemd/system-generators/systemd-fstab-generator
mkdir "$WORK/units"
SYSTEMD_FSTAB=$WORK/fstab $generator "$WORK/units" "$WORK/units" "$WORK/units" || fail "systemd-fstab-generator"
name=$(systemd-escape -p "$MNT")
grep -qx "Type=fuse.rmemfs" "$WORK/units/$name.mount" || fail "no mount unit: $(ls "$WORK/units")"
grep -qx "Where=$MNT" "$WORK/units/$name.automount" || fail "no automount unit: $(ls "$WORK/units")"
[ -e "$WORK/units/remote-fs.target.wants/$name.automount" ] || fail "_netdev does not make it a remote file system: $(find "$WORK/units")"
pass "fstab with _netdev and x-systemd.automount"
fsck_clean
