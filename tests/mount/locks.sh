#!/bin/bash
# Locks between processes answer, wait, wake and end as those of tmpfs do; and they end with the daemon, not after it.
POOL=256M
source "$(dirname "$0")/lib.sh"
new_fs
reference=/dev/shm/rmemfs-test.$$.reference   # cleaned up with the pools
mkdir "$reference" "$MNT/locks"
"$HELPERS/lock_check" "$reference" >"$WORK/must" || fail "lock_check on tmpfs"
"$HELPERS/lock_check" "$MNT/locks" >"$WORK/is" || fail "lock_check"
diff "$WORK/must" "$WORK/is" >"$WORK/diff" || { head -n 40 "$WORK/diff" >&2; fail "the answers differ from those of tmpfs"; }
# What the standard says, whatever both say.
for line in "c: write 0+1, waiting: EDEADLK" "c: woken: ok" "b: exclusive: EAGAIN" "b: its child: the child may not" \
  "b: who has the end: write 9223372036854775807+0 by a process" "a: past the end: EOVERFLOW"; do
  grep -qxF -- "$line" "$WORK/is" || fail "no \"$line\""
done
! grep -q NOT "$WORK/is" || fail "somebody was not woken"
pass "$(wc -l <"$WORK/is") answers are those of tmpfs"

say "a lock is gone after kill -9 of the daemon"
echo x >"$MNT/locks/held"
spawn holder flock --no-fork -x "$MNT/locks/held" sleep 60
wait_for 10 eval "! flock -n '$MNT/locks/held' true" || fail "the lock is not taken"
kill_mount
mount_fs
flock -n "$MNT/locks/held" true || fail "the lock is still there in the new mount"
pass "a lock is gone after kill -9 of the daemon"
umount_fs
