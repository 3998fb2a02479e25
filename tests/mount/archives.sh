#!/bin/bash
# Copies that keep everything: rsync -aHAXc there and back, tar with sparse files, access lists and attributes there and back.
# The tree has one of everything (tree_state.py), and every copy has to say the same of itself.
source "$(dirname "$0")/lib.sh"
must_have rsync tar python3 getfacl setfacl getfattr
here=$(cd "$(dirname "$0")" && pwd)
new_fs
state() { python3 "$here/tree_state.py" show "$1"; }
same() {   # TREE WHAT
  state "$1" >"$WORK/state.now"
  diff -u "$WORK/state" "$WORK/state.now" >&2 || fail "$2 differs"
  pass "$2"
}
# Kilobytes that files of this directory take: the holes of a copy have to be holes.
taken() { ( cd "$1" && du -ck --apparent-size /dev/null sparse hole >/dev/null && du -ck sparse hole | tail -n 1 | cut -f 1 ); }
thin() { [ "$(taken "$1")" -le 2048 ] || fail "the holes of $2 take $(taken "$1") KiB"; }

python3 "$here/tree_state.py" make "$WORK/source"
[ "$(id -u)" != 0 ] || cp -a "$(pick /usr/include/linux/netfilter /usr/include)" "$WORK/source/include"
state "$WORK/source" >"$WORK/state"
lines=$(wc -l <"$WORK/state")
[ "$lines" -gt 100 ] || fail "the tree has only $lines names"
for word in trusted.secret system.posix_acl_access system.posix_acl_default security.capability 'device=259:1048575' 'links=3'; do
  [ "$(id -u)" != 0 ] || grep -q "$word" "$WORK/state" || fail "the tree lost its $word where it was made"
done

say "rsync -aHAXc of $lines names, there and back"
copy=(rsync -aHAXcS --numeric-ids --specials --devices --delete)
"${copy[@]}" "$WORK/source/" "$MNT/there/"
same "$MNT/there" "rsync to the mount"
thin "$MNT/there" "what rsync wrote"
changed=$("${copy[@]}" -ni "$WORK/source/" "$MNT/there/")
[ -z "$changed" ] || fail "rsync would copy again: $changed"
"${copy[@]}" "$MNT/there/" "$WORK/back/"
same "$WORK/back" "rsync back"
rm -rf "$WORK/back"
"${copy[@]}" --link-dest=../there "$MNT/there/" "$MNT/snapshot/"
[ "$(stat -c %i "$MNT/snapshot/d0/f0")" = "$(stat -c %i "$MNT/there/d0/f0")" ] || fail "rsync --link-dest made no links"
rm -rf "$MNT/snapshot"
same "$MNT/there" "what a snapshot of hard links, made and deleted, left behind"

say "access lists and attributes, as getfacl and getfattr write them down"
written_down() { cd "$1"; find . -print0 | sort -z | xargs -0 "${@:2}" --; }
lists=(getfacl -Pn) attributes=(getfattr -hd -m - -e hex)
for what in lists attributes; do
  declare -n command=$what
  ( written_down "$WORK/source" "${command[@]}" ) >"$WORK/$what.source"
  ( written_down "$MNT/there" "${command[@]}" ) >"$WORK/$what"
  cmp "$WORK/$what.source" "$WORK/$what" || fail "${command[0]} says something else on the mount"
done
cp -a "$MNT/there" "$MNT/copied"
same "$MNT/copied" "cp -a on the mount"
( cd "$MNT/copied" && setfacl -RPbk . )
[ -z "$(cd "$MNT/copied" && getfacl -RPsn .)" ] || fail "setfacl -b left access lists"
( cd "$MNT/copied" && setfacl --restore="$WORK/lists" )
( written_down "$MNT/copied" "${lists[@]}" ) | cmp - "$WORK/lists" || fail "setfacl --restore restored something else"
pass "getfacl, setfacl --restore, getfattr"
rm -rf "$MNT/copied"

say "tar there and back, with a file that is larger than the pool and nearly all hole"
truncate -s 1T "$MNT/there/huge"
printf 'at the end' >>"$MNT/there/huge"
rm "$MNT/there/d6/fifo"   # GNU tar makes two FIFOs of two names
state "$MNT/there" >"$WORK/state"
keep=(--format=posix --sparse --acls --xattrs --xattrs-include='*' --numeric-owner)
tar "${keep[@]}" --hole-detection=seek -C "$MNT/there" -cf "$MNT/all.tar" . 2>"$WORK/tar.log"
mkdir "$MNT/out"
tar "${keep[@]}" --same-permissions --same-owner -C "$MNT/out" -xf "$MNT/all.tar"
[ "$(stat -c %s "$MNT/all.tar")" -lt $((200 << 20)) ] || fail "the archive has the holes in it"
# A socket is what tar leaves out; it has said so.
grep -q 'socket: socket ignored' "$WORK/tar.log" || fail "tar: $(cat "$WORK/tar.log")"
cp -a "$MNT/there/socket" "$MNT/out/socket"
touch -r "$MNT/there" "$MNT/out"
same "$MNT/out" "tar on the mount"
thin "$MNT/out" "what tar wrote"
# It compares holes byte by byte.
tar "${keep[@]}" -C "$MNT/there" --exclude=./huge -df "$MNT/all.tar" || fail "tar --compare finds a difference"
rm -rf "$MNT/out"
mkdir "$WORK/out"
tar "${keep[@]}" --same-permissions --same-owner -C "$WORK/out" -xf "$MNT/all.tar"
cp -a "$MNT/there/socket" "$WORK/out/socket"
same "$WORK/out" "tar back"

remount_fs
same "$MNT/there" "the tree after a remount"
thin "$MNT/there" "a remount"
rm -rf "$MNT/there" "$MNT/all.tar"
[ -z "$(ls -A "$MNT")" ] || fail "something is left"
umount_fs
fsck_clean
