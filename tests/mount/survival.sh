#!/bin/bash
# What the mount says that a returned fsync survives is true of the nodes and of the disk that it stands on.
source "$(dirname "$0")/lib.sh"
private_namespace "$@"
mkdir "$WORK/memory" "$WORK/disk"
mount -t tmpfs -o size=256m tmpfs "$WORK/memory"
case $(stat -f -c %T "$WORK") in tmpfs | ramfs) skip "$WORK is in memory: set TMPDIR to a directory on a disk" ;; esac
DIR=$WORK/disk/fs
survives() { rmemctl status "$MNT" | grep '^fsync survives'; }
says() { survives | grep -q "$1" || fail "$2: it does not say \"$1\" but: $(survives)"; }
says_not() { ! survives | grep -q "$1" || fail "$2: it says \"$1\": $(survives)"; }
refused() {   # WHY: -o require=persistent
  local status=0
  rmemfs -o require=persistent "$DIR" "$MNT" >"$WORK/refused.log" 2>&1 || status=$?
  [ $status != 0 ] || fail "require=persistent was mounted, though $1"
  grep -q "$1" "$WORK/refused.log" || fail "require=persistent does not say \"$1\": $(cat "$WORK/refused.log")"
}
node() {   # NAME ARGUMENT...: a node at $WORK/NAME.sock
  local name=$1; shift
  spawn "$name" rmemd --size 64M --listen "unix:$WORK/$name.sock" "$@"
  wait_for 10 grep -q lending "$WORK/$name.log" || fail "node $name does not start: $(cat "$WORK/$name.log")"
}
file_system() { mkfs.rmemfs --force --quiet --chunk-size 4M "$@" "$DIR"; }

node file --pool "/dev/shm/rmemfs-test.$$.file"
node anonymous
node pmem --pool "pmem:$WORK/disk/pool"

say "a node with a pool file"
file_system --node "shm:$WORK/file.sock"
mount_fs
says "mount daemon and of a memory node's process; names and attributes survive power loss of this host" "a pool file"
says "file data does not survive power loss or restart of a memory node's host" "a pool file"
pass "$(survives)"
umount_fs
refused "volatile"

say "a node whose memory is anonymous, beside one with a file"
file_system --node "shm:$WORK/file.sock" --node "shm:$WORK/anonymous.sock"
mount_fs
says "file data does not survive the death of the process of shm:$WORK/anonymous.sock (" "anonymous memory"
says_not "and of a memory node's process" "anonymous memory"
says_not "process of shm:$WORK/file.sock" "anonymous memory"
pass "$(survives)"
umount_fs

say "persistent nodes, and the metadata on a disk"
file_system --node "shm:$WORK/pmem.sock"
mount_fs require=persistent
says "mount daemon and of a memory node's process, and power loss of every host$" "persistent nodes"
pass "$(survives)"
umount_fs

say "the journal in memory"
file_system --node "shm:$WORK/pmem.sock" --journal "$WORK/memory/journal" --journal-slots 1024
mount_fs
says "names and attributes do not survive power loss or restart of this host (the journal is on tmpfs)" "a journal on tmpfs"
says_not "every host" "a journal on tmpfs"
pass "$(survives)"
umount_fs
refused "the journal is on tmpfs"

say "the metadata directory in memory"
DIR=$WORK/memory/fs
file_system --node "shm:$WORK/pmem.sock" --journal-slots 1024
mount_fs
says "names and attributes do not survive power loss or restart of this host (the metadata directory is on tmpfs)" "metadata on tmpfs"
says_not "every host" "metadata on tmpfs"
grep -q "the metadata directory is on tmpfs" "$WORK/mount.log" || fail "the mount's log does not say it"
pass "$(survives)"
umount_fs
refused "the metadata directory is on tmpfs"

say "pmem: on a file system in memory"
for place in "$WORK/memory/pool" "/dev/shm/rmemfs-test.$$.pmem"; do
  status=0
  timeout 10 rmemd --size 64M --pool "pmem:$place" --listen "unix:$WORK/x.sock" >"$WORK/pmem.out" 2>&1 || status=$?
  [ $status != 0 ] && [ $status != 124 ] || fail "pmem:$place was taken for persistent"
  grep -q "$place is on tmpfs" "$WORK/pmem.out" || fail "it does not say why: $(cat "$WORK/pmem.out")"
  [ ! -e "$place" ] || fail "the refused node left $place"
done
pass "$(cat "$WORK/pmem.out")"
