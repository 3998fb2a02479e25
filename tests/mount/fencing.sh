#!/bin/bash
# A mount that was frozen while another one took over is refused by the nodes: it cannot write, and it says so.
source "$(dirname "$0")/lib.sh"
new_fs deadline=3000
"$HELPERS/pattern" write "$MNT/file" 1000000 5
cp -a "$DIR" "$WORK/twin"
rm -f "$WORK/twin/admin.sock"
# The same file system from a copy of its directory: what a second host with a stale view would do. The lock is in the
# directory, so only the nodes' epochs stand between the two.
mkdir "$WORK/mnt2"
spawn twin rmemfs -f -o deadline=3000 "$WORK/twin" "$WORK/mnt2"
wait_for 15 mountpoint -q "$WORK/mnt2" || { tail -3 "$WORK/twin.log"; fail "the copy, with a newer epoch, does not mount"; }
status=0
"$HELPERS/pattern" write "$MNT/late" 1000000 6 >"$WORK/late.txt" || status=$?
[ $status != 0 ] || fail "the older mount can still write"
grep -Eq 'ESTALE|EIO' "$WORK/late.txt" || fail "the older mount's write failed with $(cat "$WORK/late.txt")"
"$HELPERS/pattern" check "$WORK/mnt2/file" 1000000 5 || fail "the newer mount cannot read"
"$HELPERS/pattern" write "$WORK/mnt2/new" 1000000 7 || fail "the newer mount cannot write"
"$HELPERS/pattern" check "$WORK/mnt2/new" 1000000 7 || fail "the newer mount's file"
pass "the older mount is fenced ($(cat "$WORK/late.txt")), the newer one works"
umount "$WORK/mnt2"
ended twin 15 || fail "the newer mount does not end"
reap twin || fail "the newer mount ended with status $?"
detach "$MNT"
ended mount 15 || fail "the fenced mount does not end"
reap mount || true
