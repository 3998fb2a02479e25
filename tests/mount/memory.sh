#!/bin/bash
# The resident size of rmemfs is bounded whatever the load: many files opened, written, read and deleted; much data. What it
# keeps of the metadata is bounded by -o cache=: more with a larger one, and less than the load would fill without.
source "$(dirname "$0")/lib.sh"
new_fs cache=16M
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
[ "$first" -le 160000 ] || fail "the daemon holds $first KiB after one round"
[ $((third - first)) -le 40000 ] || fail "the daemon grows: $first KiB after one round, $third KiB after three"
pass "resident memory: $first KiB after one round, $third KiB after three"
umount_fs

# Every file is looked at, in a fresh mount: the inodes, and the blocks of the store that they came from.
mount_fs cache=8M
files=$(pick 80000 600000)
for ((d = 0; d < 10; d++)); do "$HELPERS/many" create "$MNT/d$d" $((files / 10)); done
umount_fs
declare -A grown=()
referenced() { rmemctl stats --json "$MNT" | json "int(d['inodes.referenced'])"; }
look_at_all() { local d; for ((d = 0; d < 10; d++)); do "$HELPERS/many" stat "$MNT/d$d" $((files / 10)); done; }
for cache in 8M 32M 256M; do
  mount_fs cache=$cache,attr_timeout=0,entry_timeout=0   # the kernel asks for each of them every time
  before=$(rss_kib "$MOUNT_PID")
  look_at_all
  grown[$cache]=$(($(rss_kib "$MOUNT_PID") - before))
  say "cache=$cache: ${grown[$cache]} KiB for the metadata of $files files"
  if [ $cache = 8M ]; then
    # Beside its cache the daemon has an entry for each inode that the kernel remembers, and for none that it forgot.
    [ "$(referenced)" -ge $((files / 2)) ] || fail "the kernel remembers $(referenced) of $files inodes: nothing is tested"
    echo 2 >/proc/sys/vm/drop_caches
    wait_for 20 eval '[ "$(referenced)" -le 1000 ]' || fail "the daemon still has $(referenced) inodes that the kernel has forgotten"
    look_at_all
    again=$(($(rss_kib "$MOUNT_PID") - before))
    [ $((again - grown[$cache])) -le 8000 ] || fail "cache=$cache: the second look at the files takes $again KiB, the first ${grown[$cache]} KiB"
  fi
  umount_fs
done
# The option's own sum, and 16M for the allocator and what the mount keeps besides.
[ "${grown[8M]}" -le 24576 ] || fail "cache=8M holds ${grown[8M]} KiB"
[ "${grown[32M]}" -le 49152 ] || fail "cache=32M holds ${grown[32M]} KiB"
[ $((grown[32M] - grown[8M])) -ge 4096 ] || fail "cache=32M holds ${grown[32M]} KiB, cache=8M ${grown[8M]} KiB: it makes no difference"
[ $((grown[256M] - grown[32M])) -ge 8192 ] || fail "the load fills no more than 32M (${grown[256M]} KiB with cache=256M): nothing is tested"
pass "resident memory follows -o cache=: ${grown[8M]}, ${grown[32M]}, ${grown[256M]} KiB with 8M, 32M, 256M"
