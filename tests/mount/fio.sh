#!/bin/bash
# fio with checksums in every block: sequential, random, mixed, mmap, direct and buffered; read again through a cold cache.
source "$(dirname "$0")/lib.sh"
need fio
new_fs
size=$(pick 24M 1G)
run() {   # NAME OPTION...
  local name=$1; shift
  fio --name="$name" --directory="$MNT" --size="$size" --verify=crc32c --verify_fatal=1 --verify_dump=0 --randrepeat=1 --verify_state_save=0 \
    --output="$WORK/fio-$name.log" "$@" || { cat "$WORK/fio-$name.log" >&2; fail "fio $name"; }
  pass "fio $name"
}
jobs=(
  "sequential --rw=write --bs=1M --ioengine=psync"
  "sequential-direct --rw=write --bs=128k --ioengine=libaio --iodepth=8 --direct=1"
  "random --rw=randwrite --bs=4k --ioengine=psync"
  "random-direct --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 --direct=1"
  "odd-sizes --rw=randwrite --bs=3584 --ioengine=psync --fsync=64"
  "mmap --rw=randwrite --bs=4k --ioengine=mmap"
)
for job in "${jobs[@]}"; do
  read -r -a words <<<"$job"
  run "${words[@]}" --do_verify=1
done
run mixed --rw=randrw --rwmixread=40 --bsrange=512-64k --bs_unaligned=1 --ioengine=psync --do_verify=1
sum_of() { ( cd "$MNT" && cat mixed.* four-processes.* | sha256sum ); }
run four-processes --rw=randwrite --bs=16k --numjobs=4 --size="$(pick 8M 128M)" --ioengine=psync --fsync=32 --do_verify=1 --group_reporting
written=$(sum_of)
remount_fs
[ "$(sum_of)" = "$written" ] || fail "the mixed and the four processes' files read otherwise through a cold cache"
say "the same files through a cold cache"
for job in "${jobs[@]}"; do
  read -r -a words <<<"$job"
  run "${words[@]}" --verify_only=1
done
umount_fs
fsck_clean
