#!/bin/bash
# stress-ng's file system class, each stressor checking its own work: all of it for two minutes, or what matters most here.
source "$(dirname "$0")/lib.sh"
must_have stress-ng
new_fs
mkdir "$MNT/stress"
# In CI those that have most to do with a file system's own code; the rest of the class is the kernel's.
if [ -n "$LONG" ]; then
  # binderfs mounts a file system of its own, of which a kernel without it says that resources are lacking.
  stressors=(--class filesystem --exclude binderfs --sequential 2 --timeout 3)
else
  stressors=(--timeout 10)
  for name in copy-file dentry dir dirdeep fallocate filename fpunch getdent hdd iomix link locka mknod rename utime xattr; do
    stressors+=("--$name" 1)
  done
fi
say "stress-ng ${stressors[*]}"
status=0
( cd "$MNT/stress" && stress-ng "${stressors[@]}" --verify --temp-path "$MNT/stress" --hdd-bytes 32M --iomix-bytes 32M --fallocate-bytes 64M \
  --metrics-brief --oomable ) >"$WORK/stress.log" 2>&1 || status=$?
if [ $status != 0 ] || grep -q 'stress-ng: fail' "$WORK/stress.log"; then
  grep -vE ' info: ' "$WORK/stress.log" >&2
  fail "stress-ng ended with status $status"
fi
alive "$MOUNT_PID" || fail "the daemon died"
pass "$(sed -n 's/.*info: *\[[0-9]*\] \(successful run.*\)/\1/p' "$WORK/stress.log")"
left=$(find "$MNT/stress" -mindepth 1)
[ -z "$left" ] || fail "stress-ng left behind: $left"
umount_fs
fsck_clean
