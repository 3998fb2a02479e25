#!/bin/bash
# Names, links, loops and renames, answered as tmpfs answers them; and a large directory that is read while it changes.
POOL=256M
source "$(dirname "$0")/lib.sh"
new_fs
reference=/dev/shm/rmemfs-test.$$.reference   # cleaned up with the pools
mkdir "$reference" "$MNT/names"
[ "$(stat -f -c %T "$reference")" = tmpfs ] || fail "$reference is not on tmpfs"
"$HELPERS/names_check" "$reference" "$WORK" >"$WORK/must" || fail "names_check on tmpfs"
"$HELPERS/names_check" "$MNT/names" "$WORK" >"$WORK/is" || fail "names_check"
diff "$WORK/must" "$WORK/is" >"$WORK/diff" || { head -n 40 "$WORK/diff" >&2; fail "the answers differ from those of tmpfs"; }
pass "$(wc -l <"$WORK/is") answers are those of tmpfs"
say "a large directory"
entries=$(pick 20000 1000000)
"$HELPERS/directory_check" "$MNT/large" "$entries" "$(pick 5 "$RANDOM")" || fail "reading it while it changes"
pass "a directory of $entries entries"
umount_fs
fsck_clean
