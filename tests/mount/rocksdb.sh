#!/bin/bash
# RocksDB's own library on the mount: small buffers, much compaction, kill -9 of the program and of the mount while it writes.
# Every acknowledged batch is there and whole, every block and file has its checksum; ldb and sst_dump find nothing either.
source "$(dirname "$0")/lib.sh"
must_have ldb sst_dump db_bench
load=$HELPERS/rocksdb_load
seed=${RMEMFS_SEED:-$(($(date +%s) % 100000))}
say "seed $seed"
new_fs
check() {   # MODE WHEN
  local how
  for how in "$1" buffered; do   # what was written through mappings is read without them, too
    "$load" check "$MNT/$1" "$WORK/$1.acknowledged" "$seed" "$how" >"$WORK/check.txt" 2>&1 || { cat "$WORK/check.txt" >&2; fail "$1 $2, $how (seed $seed)"; }
    [ "$1" = mapped ] || break
  done
  [ "$(ldb --db="$MNT/$1" checkconsistency 2>&1)" = OK ] || fail "$1: ldb checkconsistency $2 (seed $seed)"
}
kills=0
for ((round = 1; round <= $(pick 1 10); round++)); do
  for mode in buffered mapped direct recycled; do
    kills=$((kills + 1))
    victim=$([ $(((kills + round) % 2)) = 0 ] && echo load || echo mount)
    spawn load "$load" fill "$MNT/$mode" "$WORK/$mode.acknowledged" "$seed" "$mode"
    sleep "$(pick 0 5).$((RANDOM % 500 + 400))"
    alive "${PID[load]}" || fail "$mode: the program ended before the kill"
    kill_now $victim
    if [ $victim = mount ]; then
      MOUNT_PID=
      status=0
      ended load 30 || fail "$mode: the program goes on without its file system"
      reap load || status=$?
      # A write or an open fails; Debian's library asserts (134) that nothing follows a failed write; a mapping has no page (135).
      case $mode-$status in *-1 | *-2 | *-134 | mapped-135) ;; *) fail "$mode: the program ended with status $status" ;; esac
      detach "$MNT"
      mount_fs
    fi
    check $mode "after kill -9 of the $victim"
    say "$mode, kill -9 of the $victim: $(cat "$WORK/check.txt")"
  done
done
pass "every acknowledged batch is there"
say "db_bench, which checks checksums as it reads"
db_bench --db="$MNT/bench" --benchmarks=fillrandom,overwrite,compact,verifychecksum,verifyfilechecksums,readrandom,readseq \
  --num="$(pick 20000 500000)" --value_size=400 --threads=2 --verify_checksum=1 --compression_type=none --write_buffer_size=1048576 \
  --target_file_size_base=1048576 --file_checksum=1 --mmap_read="$(pick 0 1)" >"$WORK/db_bench.log" 2>&1 || fail db_bench
grep -q '^readseq' "$WORK/db_bench.log" || fail "db_bench did not come to its end"
pass db_bench
remount_fs
for mode in buffered mapped direct recycled; do check $mode "after a remount"; done
for mode in buffered mapped direct recycled bench; do
  sst_dump --file="$MNT/$mode" --command=verify >"$WORK/sst_dump.log" 2>&1 || fail "$mode: sst_dump"
  ! grep -qi 'corrupt' "$WORK/sst_dump.log" || fail "$mode: sst_dump finds a table that is wrong"
  [ "$(grep -c 'The file is ok' "$WORK/sst_dump.log")" = "$(find "$MNT/$mode" -name '*.sst' | wc -l)" ] || fail "$mode: sst_dump passed over tables"
done
pass "ldb and sst_dump find nothing after a remount"
umount_fs
fsck_clean
