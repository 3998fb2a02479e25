#!/bin/bash
# The resident size of rmemfs is bounded whatever the load: many files opened, written, read and deleted; much data.
source "$(dirname "$0")/lib.sh"
new_fs
load() {   # ROUND
  local i
  fio --name=data --directory="$MNT" --size="$(pick 200M 1G)" --rw=randrw --bs=64k --ioengine=libaio --iodepth=32 --direct=1 --output=/dev/null
  "$HELPERS/many" create "$MNT/many$1" "$(pick 20000 200000)"
  tar -C "$MNT" -cf /dev/null "many$1"
  "$HELPERS/many" delete "$MNT/many$1" "$(pick 20000 200000)"
  for ((i = 0; i < 5; i++)); do "$HELPERS/pattern" write "$MNT/file$i" 10000000 "$i"; rm "$MNT/file$i"; done
}
need fio
load 1
first=$(rss_kib "$MOUNT_PID")
load 2
load 3
third=$(rss_kib "$MOUNT_PID")
[ "$first" -le 300000 ] || fail "the daemon holds $first KiB after one round"
[ $((third - first)) -le 40000 ] || fail "the daemon grows: $first KiB after one round, $third KiB after three"
pass "resident memory: $first KiB after one round, $third KiB after three"
umount_fs
