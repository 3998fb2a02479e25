#!/bin/bash
# Truncated and random bytes to every listening socket: nothing crashes, nothing grows without bound, everything goes on.
source "$(dirname "$0")/lib.sh"
rounds=$(pick 400 10000)
new_fs
"$HELPERS/pattern" write "$MNT/file" 3000000 5

# hammer NAME PID SOCKET: resident memory settles: a second storm of the same size may not add what the first one did.
hammer() {
  local before after
  say "$rounds connections to the $1, twice"
  "$HELPERS/garbage" "$3" "$rounds" 1 || fail "the $1 stopped accepting"
  sleep 1
  before=$(rss_kib "$2")
  "$HELPERS/garbage" "$3" "$rounds" 2 || fail "the $1 stopped accepting"
  sleep 1
  alive "$2" || fail "the $1 died"
  after=$(rss_kib "$2")
  [ $((after - before)) -le 20000 ] || fail "the $1 grew from $before to $after KiB"
  wait_for 15 eval "[ \$(ls /proc/$2/fd | wc -l) -lt 100 ]" || fail "the $1 keeps $(ls "/proc/$2/fd" | wc -l) descriptors"
  pass "the $1: $before KiB, then $after KiB"
}
hammer "memory node" "${PID[node1]}" "${NODE_LISTEN[1]}"
hammer "mount's admin socket" "$MOUNT_PID" "unix:$DIR/admin.sock"
timeout 10 rmemctl status "$MNT" >/dev/null || fail "rmemctl status"
remount_fs
"$HELPERS/pattern" check "$MNT/file" 3000000 5 || fail "the file changed"
"$HELPERS/pattern" write "$MNT/file2" 3000000 6 || fail "no file can be written any more"
pass "the file system is as before"
umount_fs
fsck_clean
