#!/bin/bash
# The host of a memory node with persistent memory loses power after a write and before its fsync. The node comes back with
# its regions, so nothing is lost that was fsynced; but what was not may be gone, and fsync has to say so, for a while, and only
# for the files that it is about. The node's host is this one, with a boot id of the test's own; its process dies by kill -9.
source "$(dirname "$0")/lib.sh"
private_namespace "$@"
mkdir "$WORK/memory"
mount -t tmpfs -o size=256m tmpfs "$WORK/memory"
port=$(random_port)
DIR=$WORK/fs
boot() {   # starts the node in a boot of its own
  cat /proc/sys/kernel/random/uuid >"$WORK/boot_id"
  start
}
start() {   # in the same boot as before
  # Its namespace must not keep the mount that it has nothing to do with.
  spawn node unshare --mount --propagation private bash -c '
    mount --bind "$1" /proc/sys/kernel/random/boot_id
    ! mountpoint -q "$2" || umount -l "$2"
    shift 2
    exec "$@"' node "$WORK/boot_id" "$MNT" \
    env PMEM_IS_PMEM_FORCE=1 rmemd --size 64M --pool "pmem:$WORK/memory/pool" --listen "tcp://127.0.0.1:$port"
  wait_for 10 grep -q lending "$WORK/node.log" || fail "the node does not start: $(cat "$WORK/node.log")"
}
fsync_of() { sync -d "$MNT/$1" 2>"$WORK/sync.log"; }
write_in_place() { dd if=/dev/urandom of="$MNT/$1" bs=64K count=4 oflag=direct conv=notrunc status=none; }

boot
mkfs.rmemfs --quiet --chunk-size 4M --node "tcp://127.0.0.1:$port" "$DIR"
mount_fs require=persistent
for name in written quiet killed; do
  write_in_place $name
  fsync_of $name || fail "fsync of $name: $(cat "$WORK/sync.log")"
done
sum=$(sha256sum <"$MNT/quiet")

say "the process alone dies: memory keeps what it had"
write_in_place killed
killed=$(sha256sum <"$MNT/killed")
kill_now node
start
fsync_of killed || fail "fsync after a restart of the node's process: $(cat "$WORK/sync.log")"
[ "$(sha256sum <"$MNT/killed")" = "$killed" ] || fail "the bytes written before the restart are others"
pass "fsync succeeds after kill -9 of the node's process"

say "the host dies"
write_in_place written
kill_now node
boot
fsync_of quiet || fail "fsync of a file that was not written: $(cat "$WORK/sync.log")"
! fsync_of written || fail "fsync says that bytes are safe which their host's restart may have taken"
grep -q 'Input/output error' "$WORK/sync.log" || fail "fsync does not say EIO: $(cat "$WORK/sync.log")"
grep -q 'booted anew' "$WORK/mount.log" || fail "the mount's log does not say why: $(cat "$WORK/mount.log")"
pass "fsync says EIO for what was written before the host's restart, and only for that"
! fsync_of written || fail "a second process is told that its bytes are safe"
wait_for 8 fsync_of written || fail "fsync says it for ever: $(cat "$WORK/sync.log")"
write_in_place written
fsync_of written || fail "fsync of what was written afterwards: $(cat "$WORK/sync.log")"
[ "$(sha256sum <"$MNT/quiet")" = "$sum" ] || fail "a file that was fsynced has other bytes"
pass "it says so to everybody who asks for a while; what is written again is safe"
umount_fs
kill_now node
