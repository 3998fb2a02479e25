#!/bin/bash
# The kernel keeps names, attributes, listings, links' targets and pages of this mount for long: it is not asked again, and
# nobody sees a stale value.
POOL=256M
source "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "only root can be several users"
requests() { rmemctl stats --json "$MNT" | json "sum(d['requests.' + name] for name in '$*'.split())"; }
new_fs
chmod 755 "$MNT"
"$HELPERS/coherence_check" "$MNT/cases" || fail "a case above"
pass "no stale value"

say "what is kept is not asked for"
mkdir "$MNT/warm"
(cd "$MNT/warm" && seq 200 | xargs touch)
echo some >"$MNT/warm/file"; ln -s file "$MNT/warm/link"
look() {
  local i
  ls -l "$MNT/warm" >/dev/null
  for ((i = 0; i < 20; i++)); do
    stat "$MNT/warm/file" "$MNT/warm/7" >/dev/null
    [ "$(cat "$MNT/warm/link")" = some ] || fail "the file"
    ! stat "$MNT/warm/none" 2>/dev/null || fail "a name that is not there"
    readlink "$MNT/warm/link" >/dev/null
  done
}
look; look
kinds="lookup getattr readlink read open readdir"
before=$(requests $kinds)
look
after=$(requests $kinds)
# A listing asks for the directory to be opened and closed. Of 280 system calls on what is kept, the rest asks nothing.
[ $((after - before)) -le 12 ] || fail "$((after - before)) requests for what the kernel has"
pass "$((after - before)) requests for 280 looks at what the kernel has"
umount_fs
fsck_clean
