#!/bin/bash
# fio with checksums in every block: sequential, random, mixed, mmap, direct and buffered; read again through a cold cache.
source "$(dirname "$0")/lib.sh"
must_have fio
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

# Every way that fio has of reading and writing: one process, one job each, after one another.
engines=("sync" "psync" "vsync" "pvsync" "pvsync2" "libaio --iodepth=16" "libaio --iodepth=16 --direct=1" "posixaio --iodepth=8"
  "io_uring --iodepth=16" "io_uring --iodepth=16 --direct=1 --fixedbufs" "io_uring --iodepth=16 --registerfiles --sqthread_poll"
  "mmap" "splice")
offered=$(fio --enghelp)
for engine in "${engines[@]}"; do
  grep -qx "[[:space:]]*${engine%% *}" <<<"$offered" || fail "fio has no ${engine%% *}"
done
with_engines() {   # NAME SHIFT OPTION...: every engine on the file that the one SHIFT places before it wrote
  local number words jobs=()
  for number in "${!engines[@]}"; do
    read -r -a words <<<"${engines[number]}"
    jobs+=(--name="$1-$number" --stonewall --rw=randwrite --bs=4k --size="$(pick 2M 256M)" --ioengine="${words[@]}" "${@:3}"
      --filename="$MNT/engine-$(((number + $2) % ${#engines[@]}))" --verify=crc32c --verify_fatal=1 --verify_dump=0
      --verify_state_save=0 --randrepeat=1)
  done
  fio --output="$WORK/fio-$1.log" "${jobs[@]}" || { cat "$WORK/fio-$1.log" >&2; fail "fio $1"; }
  [ "$(grep -c "^$1-.*err= *0" "$WORK/fio-$1.log")" = ${#engines[@]} ] || fail "fio did not run every engine"
  [ "$(find "$MNT" -name 'engine-*' -size "$(pick 2048 262144)k" | wc -l)" = ${#engines[@]} ] || fail "fio $1 wrote other files"
  pass "fio $1: ${#engines[@]} engines"
}
with_engines engines 0 --do_verify=1
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
with_engines other-engines 5 --verify_only=1
umount_fs
fsck_clean
