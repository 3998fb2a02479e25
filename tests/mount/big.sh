#!/bin/bash
# Large things: a file of several chunks, a file of 100 GiB that is one byte, a directory of 100,000 entries.
CHUNK=4M
source "$(dirname "$0")/lib.sh"
new_fs

length=$(pick 50000001 700000001)
say "a file of $length bytes over chunks of 4 MiB"
"$HELPERS/pattern" write "$MNT/chunks" "$length" 11
sum=$(sha256sum <"$MNT/chunks")

say "a file of 100 GiB with one byte at its end"
printf x | dd of="$MNT/sparse" bs=1 seek=$((100 * 1024 * 1024 * 1024 - 1)) status=none
sparse_holds() {
  [ "$(stat -c %s "$MNT/sparse")" = $((100 << 30)) ] || fail "its size is $(stat -c %s "$MNT/sparse")"
  [ "$(du -k "$MNT/sparse" | cut -f 1)" -le 4096 ] || fail "it uses $(du -k "$MNT/sparse" | cut -f 1) KiB"
  [ "$(tail -c 1 "$MNT/sparse")" = x ] || fail "its last byte is not there"
  head -c 1000000 "$MNT/sparse" | cmp -n 1000000 - /dev/zero || fail "it does not begin with zeros"
  python3 - "$MNT/sparse" <<'END' || fail "SEEK_DATA and SEEK_HOLE do not find the byte"
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
data = os.lseek(fd, 0, os.SEEK_DATA)
assert size - (1 << 20) <= data < size, data
assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
assert os.lseek(fd, data, os.SEEK_HOLE) == size
END
}
within 5000 "the sparse file" sparse_holds
entries=100000
say "a directory of $entries entries"
"$HELPERS/many" create "$MNT/dir" $entries
"$HELPERS/many" count "$MNT/dir" $entries
remount_fs
[ "$(sha256sum <"$MNT/chunks")" = "$sum" ] || fail "the large file changed over a remount"
"$HELPERS/pattern" check "$MNT/chunks" "$length" 11 || fail "the large file holds other bytes"
pass "the file over several chunks"
sparse_holds
pass "the sparse file after a remount"
"$HELPERS/many" count "$MNT/dir" $entries
"$HELPERS/many" delete "$MNT/dir" $entries
[ -z "$(ls -A "$MNT/dir")" ] || fail "the directory is not empty"
rmdir "$MNT/dir"
pass "$entries entries: created, listed once each, deleted"
umount_fs
fsck_clean
