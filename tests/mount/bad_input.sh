#!/bin/bash
# Bad input: one clear sentence, a non-zero exit, nothing changed.
source "$(dirname "$0")/lib.sh"
failures=0

# What a refused command must leave alone: everything but the lock file. (While the file system is mounted its daemon
# writes, too: then what is in the mount is looked at. RENEWED: what RocksDB renews when it is opened, where only opening
# the store can tell what is wrong with it.)
RENEWED=
contents() {
  [ -z "$MOUNT_PID" ] || return 0
  { find "$DIR" -type f -regextype posix-extended ! -regex ".*/(lock${RENEWED:+|$RENEWED})" \
      -exec sha256sum {} + 2>/dev/null || true; } | sort -k 2
}

# refuses WHAT PATTERN COMMAND...: the command fails, in time, with one line on stderr that names the thing.
refuses() {
  local what=$1 pattern=$2 before mounts status=0 bad= ; shift 2
  mounts=$(grep -c " $MNT " /proc/self/mounts || true)
  before=$(contents)
  timeout 30 "$@" >"$WORK/out.txt" 2>"$WORK/err.txt" </dev/null || status=$?
  [ $status != 0 ] || bad+="; it succeeded"
  [ $status -lt 124 ] || bad+="; it ended with status $status"
  [ "$(wc -l <"$WORK/err.txt")" = 1 ] || bad+="; it printed $(wc -l <"$WORK/err.txt") lines on stderr"
  grep -qiE -- "$pattern" "$WORK/err.txt" || bad+="; its message does not match $pattern"
  ! grep -qiE ': ([^:]+): \1$' "$WORK/err.txt" || bad+="; its message says the same twice"
  [ "$(contents)" = "$before" ] || bad+="; the directory changed: $(diff <(echo "$before") <(contents) | grep '^[<>]' | sed 's#/.*/fs/##; s/[0-9a-f]\{56\} *//' | tr '\n' ' ' || true)"
  [ "$(grep -c " $MNT " /proc/self/mounts || true)" = "$mounts" ] || bad+="; something is mounted"
  if [ -n "$bad" ]; then
    failures=$((failures + 1))
    printf 'FAILED: %s: %s\n   %s\n' "$what" "${bad#; }" "$*" >&2
    sed 's/^/   | /' "$WORK/err.txt" >&2
  else
    pass "$what: $(cat "$WORK/err.txt")"
  fi
}

say "command lines"
for program in rmemd mkfs.rmemfs rmemfs fsck.rmemfs rmemctl rmemfs-dump; do
  refuses "$program, unknown option" 'no-such-option' $program --no-such-option
done
refuses "rmemd, bad size" '4X' rmemd --size 4X --listen "unix:$WORK/x.sock"
refuses "rmemd, no size" 'size' rmemd --size '' --listen "unix:$WORK/x.sock"
refuses "rmemd, negative size" '-5G' rmemd --size=-5G --listen "unix:$WORK/x.sock"
refuses "rmemd, a size beyond 64 bits" '99999999999T' rmemd --size 99999999999T --listen "unix:$WORK/x.sock"
refuses "rmemd, huge pages of an unknown size" '^rmemd: --hugepages: "3M" is not auto, off, 2M or 1G$' rmemd --size 64M --hugepages 3M --listen "unix:$WORK/x.sock"
! rmemd --help | grep -A 3 -e --hugepages | grep -q '[{}]' || fail "rmemd --help: $(rmemd --help | grep -A 3 -e --hugepages)"
refuses "rmemfs-dump, an inode number that is none" '^rmemfs-dump: INO: ".*" is not a number' rmemfs-dump inode "$WORK" 7
refuses "fsck -C without its number" "^fsck.rmemfs: -C: \"$WORK\" is not a number" fsck.rmemfs -C "$WORK"
refuses "mkfs, a number that is none" '^mkfs.rmemfs: --journal-slots: "many" is not a number' mkfs.rmemfs --node "shm:$WORK/x.sock" --journal-slots many "$DIR"
refuses "rmemd, bad address" 'bogus' rmemd --size 64M --listen bogus:/x
refuses "rmemd, beyond loopback without --insecure" '0\.0\.0\.0|insecure' rmemd --size 64M --listen "tcp://0.0.0.0:$(random_port)"
refuses "rmemd, no place for the pool" 'no-such-dir' rmemd --size 64M --pool /no-such-dir/pool --listen "unix:$WORK/x.sock"
echo "this is a letter, not a pool" >"$WORK/letter"
refuses "rmemd, a pool file that is none" 'letter' rmemd --size 64M --pool "$WORK/letter" --listen "unix:$WORK/x.sock"
[ "$(cat "$WORK/letter")" = "this is a letter, not a pool" ] || fail "rmemd wrote over somebody's file"
refuses "rmemfs-dump, a pool that is none" '^rmemfs-dump: .*/letter is not the pool of a memory node$' rmemfs-dump pool "$WORK/letter"
head -c 8192 /dev/zero >"$WORK/zeros"
refuses "rmemfs-dump, a pool of zeros" '^rmemfs-dump: .*/zeros is not the pool of a memory node$' rmemfs-dump pool "$WORK/zeros"
refuses "mkfs, no node" 'node' mkfs.rmemfs "$DIR"
refuses "mkfs, bad chunk size" '3Q' mkfs.rmemfs --node "shm:$WORK/x.sock" --chunk-size 3Q "$DIR"
refuses "mkfs, bad node address" 'carrier-pigeon' mkfs.rmemfs --node carrier-pigeon:/x "$DIR"
for geometry in 2:256 3:256 2:512 2:1024 4:1024; do
  refuses "mkfs, a journal of ${geometry%:*} slots of ${geometry#*:} bytes" 'at least [0-9]+ slots of this size, or slots of at least [0-9]+ bytes' \
    mkfs.rmemfs --node "shm:$WORK/x.sock" --journal-slots "${geometry%:*}" --journal-slot-size "${geometry#*:}" "$DIR"
done
refuses "mkfs, a node that does not answer" 'absent\.sock: No such file or directory: the memory node cannot be reached' mkfs.rmemfs --node "shm:$WORK/absent.sock" "$DIR"
refuses "mkfs, a tcp node that does not answer" '127\.0\.0\.1:9: Connection refused: the memory node cannot be reached' mkfs.rmemfs --node tcp://127.0.0.1:9 "$DIR"
refuses "rmemfs, bad size of --local" '2Q' rmemfs --local 2Q "$DIR" "$MNT"
[ ! -e "$DIR" ] || fail "a refused command made $DIR"

say "directories that are not file systems"
for program in "rmemfs" "fsck.rmemfs" "rmemfs-dump"; do
  case $program in
    rmemfs) arguments=("$WORK/no-such-dir" "$MNT") ;;
    rmemfs-dump) arguments=(superblock "$WORK/no-such-dir") ;;
    *) arguments=(-n "$WORK/no-such-dir") ;;
  esac
  refuses "$program, no such directory" 'no-such-dir' $program "${arguments[@]}"
done
mkdir "$WORK/foreign"; echo mine >"$WORK/foreign/diary"
refuses "rmemfs, not a file system" 'foreign' rmemfs "$WORK/foreign" "$MNT"
refuses "fsck, not a file system" 'foreign' fsck.rmemfs -y "$WORK/foreign"
refuses "mount of a regular file" 'letter' rmemfs "$WORK/letter" "$MNT"
[ "$(ls "$WORK/foreign"; cat "$WORK/foreign/diary")" = $'diary\nmine' ] || fail "a foreign directory changed"

start_nodes
refuses "mkfs over somebody's files" 'foreign' mkfs.rmemfs --node "${NODE_ADDRESS[1]}" "$WORK/foreign"
[ "$(ls "$WORK/foreign"; cat "$WORK/foreign/diary")" = $'diary\nmine' ] || fail "mkfs changed a foreign directory"
port=$(random_port)
spawn two rmemd --size 64M --listen "unix:$WORK/two.sock" --listen "tcp://127.0.0.1:$port"
wait_for 10 grep -q lending "$WORK/two.log" || fail "the node with two addresses does not start"
refuses "mkfs, one node by a number and a name" "127\.0\.0\.1:$port and tcp://localhost:$port" \
  mkfs.rmemfs --node "tcp://127.0.0.1:$port" --node "tcp://localhost:$port" "$DIR"
refuses "mkfs, one node by a socket and a port" "two\.sock and tcp://127\.0\.0\.1:$port" \
  mkfs.rmemfs --node "shm:$WORK/two.sock" --node "tcp://127.0.0.1:$port" "$DIR"
[ ! -e "$DIR" ] || fail "a refused command made $DIR"
kill_now two
make_fs
refuses "mkfs over a file system without --force" 'force|exists|file system' mkfs.rmemfs --node "${NODE_ADDRESS[1]}" "$DIR"
for what in inode extents; do
  refuses "rmemfs-dump $what of a missing inode" '^rmemfs-dump: inode: 99: ' rmemfs-dump $what 99 "$DIR"
done
for option in no_such_option deadline=soon deadline= deadline=-5 log= log=relative lanes=0 lanes=many commit=often poll=never require=luck; do
  refuses "rmemfs -o $option" "${option%%=*}" rmemfs -o "$option" "$DIR" "$MNT"
done
for how in "" -f; do
  refuses "rmemfs ${how:-in the background} -o log= in /proc" '^rmemfs: log: /proc/nope/x: ' rmemfs $how -o log=/proc/nope/x "$DIR" "$MNT"
  refuses "rmemfs ${how:-in the background} -o log= in no directory" "^rmemfs: log: $WORK/no-such/logs/x: " rmemfs $how -o "log=$WORK/no-such/logs/x" "$DIR" "$MNT"
done
[ ! -e "$WORK/no-such" ] || fail "the directory of a log was made"
refuses "rmemd --log in no directory" "^rmemd: log: $WORK/no-such/x: " rmemd --size 64M --listen "unix:$WORK/x.sock" --log "$WORK/no-such/x"
refuses "a mount point that does not exist" 'no-such-mnt' rmemfs "$DIR" "$WORK/no-such-mnt"
refuses "a mount point that is a file" 'letter' rmemfs "$DIR" "$WORK/letter"

say "a mounted file system"
mount_fs
echo kept >"$MNT/kept"
mkdir "$WORK/mnt2"
refuses "a second mount" 'mounted|in use' rmemfs "$DIR" "$WORK/mnt2"
refuses "mkfs --force of a mounted one" 'mounted|in use' mkfs.rmemfs --force --node "${NODE_ADDRESS[1]}" "$DIR"
refuses "fsck -y of a mounted one" 'mounted|in use' fsck.rmemfs -y "$DIR"
refuses "fsck -n of a mounted one" 'mounted|in use' fsck.rmemfs -n "$DIR"
[ "$(cat "$MNT/kept")" = kept ] || fail "the mount was disturbed"
say "a stale mount point"
kill_now mount; MOUNT_PID=
refuses "a stale mount point" "$MNT" rmemfs "$DIR" "$MNT"
while grep -q " $MNT fuse" /proc/self/mounts; do detach "$MNT"; done
wait_for 10 flock -n "$DIR/lock" true
mount_fs
[ "$(cat "$MNT/kept")" = kept ] || fail "the file is gone after a stale mount"
umount_fs

say "damage"
cp -a "$DIR" "$WORK/sound"
sound() { rm -rf "$DIR"; cp -a "$WORK/sound" "$DIR"; }
size=$(stat -c %s "$DIR/superblock")
for at in 0 9 40 100 $((size / 2)) $((size - 1)); do
  old=$(od -An -tu1 -j "$at" -N 1 "$DIR/superblock" | tr -d ' ')
  printf "\\x$(printf %02x $((old ^ 0x41)))" | dd of="$DIR/superblock" bs=1 seek="$at" conv=notrunc status=none
  refuses "superblock, byte $at changed" 'superblock' rmemfs "$DIR" "$MNT"
  sound
done
for length in 0 1 63 $((size - 1)); do
  truncate -s "$length" "$DIR/superblock"
  refuses "superblock cut to $length bytes" 'superblock' rmemfs "$DIR" "$MNT"
  sound
done
head -c "$size" /dev/urandom >"$DIR/superblock"
refuses "superblock of noise" 'superblock' rmemfs "$DIR" "$MNT"
sound
"$HELPERS/edit_superblock" "$DIR" incompat
refuses "an unknown incompatible feature" 'feature' rmemfs "$DIR" "$MNT"
refuses "an unknown incompatible feature, fsck" 'feature' fsck.rmemfs -y "$DIR"
sound
"$HELPERS/edit_superblock" "$DIR" ro_compat
refuses "an unknown read-only compatible feature" 'feature' rmemfs "$DIR" "$MNT"
sound
rm "$DIR/journal"
refuses "no journal" 'journal' rmemfs "$DIR" "$MNT"
sound
mkfs.rmemfs --node "${NODE_ADDRESS[1]}" "$WORK/other" >/dev/null
cp "$WORK/other/journal" "$DIR/journal"
refuses "a journal of another file system" 'journal' rmemfs "$DIR" "$MNT"
sound
rm -rf "$DIR/db"; cp -a "$WORK/other/db" "$DIR/db"
RENEWED='LOG.*|CURRENT|MANIFEST-.*|OPTIONS-.*|[0-9]+\.log'
refuses "a metadata store of another file system" 'another|db|store' rmemfs "$DIR" "$MNT"
sound

RENEWED=

say "nodes"
"$HELPERS/edit_superblock" "$DIR" key
refuses "a node refuses the key" 'refused' rmemfs -o deadline=3000 "$DIR" "$MNT"
sound
if [ "$TRANSPORT" = shm ]; then
  spawn impostor "$HELPERS/other_version_node" "$WORK/impostor.sock"
  wait_for 5 test -S "$WORK/impostor.sock"
  refuses "mkfs, a node of another version" 'version' mkfs.rmemfs --node "shm:$WORK/impostor.sock" "$WORK/never"
  kill_node 1; rm -f "$WORK/node1.sock"; ln -s "$WORK/impostor.sock" "$WORK/node1.sock"
  refuses "rmemfs, a node of another version" 'version' rmemfs -o deadline=3000 "$DIR" "$MNT"
  rm "$WORK/node1.sock"
else
  kill_node 1
fi
[ "$TRANSPORT" = shm ] && reason="(No such file or directory|Connection refused)" || reason="Connection refused"
refuses "rmemfs, a node that does not answer" "${NODE_ADDRESS[1]#*:}: $reason: the memory node" rmemfs -o deadline=3000 "$DIR" "$MNT"
refuses "rmemctl, a node that does not answer" "${NODE_ADDRESS[1]#*:}: $reason: the memory node" rmemctl node describe "${NODE_ADDRESS[1]}"
start_node 1
signal STOP node1
refuses "rmemfs, a node that is frozen" "${NODE_ADDRESS[1]#*:}: .*: the memory node" rmemfs -o deadline=3000 "$DIR" "$MNT"
signal CONT node1
mount_fs
[ "$(cat "$MNT/kept")" = kept ] || fail "the file is gone after all that"
umount_fs
fsck_clean
[ $failures = 0 ] || fail "$failures of $((failures + PASSED)) bad inputs are not answered as they should be"
