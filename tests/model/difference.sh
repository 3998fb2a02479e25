#!/bin/bash
# Random system calls on rmemfs and on ext4 (tmpfs where no loop device is to be had), with the same answers.
# $1: self-test, or nothing for the comparison itself. DIFFERENCE_ARGS: more arguments for the program.
mode=${1:-compare}
source "$(dirname "$0")/../mount/lib.sh" shm 1
[ "$(id -u)" = 0 ] || skip "only root can be several users"
REFERENCE=$WORK/reference
mkdir "$REFERENCE"
args=()
# Access times are not the subject here: both sides leave them alone when something is read.
options=noatime,nosuid,nodev
truncate -s 2G "$WORK/ext4"
loop=
if command -v mkfs.ext4 >/dev/null && mkfs.ext4 -q -F "$WORK/ext4" && loop=$(losetup -f --show "$WORK/ext4" 2>/dev/null) &&
  mount -o "$options" "$loop" "$REFERENCE" 2>/dev/null; then
  say "the reference is ext4"
  # Unwritten extents stay unwritten, however small.
  echo 0 >"/sys/fs/ext4/${loop#/dev/}/extent_max_zeroout_kb" 2>/dev/null || true
else
  [ -z "$loop" ] || losetup -d "$loop"
  loop=
  mount -t tmpfs -o "$options,huge=never,size=2G" rmemfs-test "$REFERENCE" || skip "no file system can be mounted here"
  say "the reference is tmpfs"
  args+=(--no-zero-range)
fi
end_reference() { umount "$REFERENCE" 2>/dev/null || umount -l "$REFERENCE" 2>/dev/null || true; [ -z "$loop" ] || losetup -d "$loop" 2>/dev/null || true; }
# The status is the test's, not that of the unmounting.
at_end() { local status=$?; set +e; end_reference; (exit $status); cleanup; }
trap at_end EXIT
new_fs noatime
chmod 755 "$MNT" "$REFERENCE"
if [ "$mode" = self-test ]; then
  "$HELPERS/kernel_difference" "${args[@]}" --self-test "$MNT" "$REFERENCE" || fail "the mistake was not found"
  pass "a mistake is found and shrunk"
else
  # The manual page lists what is accepted, with the same words.
  page=$(mandoc -T ascii "$SOURCE/man/rmemfs.8" | sed 's/.\x08//g' | tr -s ' \n' ' ')
  while IFS=$'\t' read -r what _; do
    [[ $page == *"$what"* ]] || fail "rmemfs(8) does not say: $what"
  done < <("$HELPERS/kernel_difference" --accepted)
  pass "rmemfs(8) says what is accepted"
  # The short run makes the same calls each time, so that what it finds is the change's; the long one makes new ones.
  seed=()
  [ -n "$LONG" ] || seed=(--seed 20261125)
  "$HELPERS/kernel_difference" "${args[@]}" --attributes --steps "$(pick 50000 1000000)" ${seed[@]+"${seed[@]}"} ${DIFFERENCE_ARGS:-} "$MNT" "$REFERENCE" || fail "they differ"
  pass "no difference"
fi
end_reference
umount_fs
fsck_clean
