# shellcheck shell=bash
# Runs in a guest (mount.sh): rmemd and rmemfs of one machine over rdma://, with the words of the mount tests.
export RDMA_IP=10.77.0.1 POOL=192M
# shellcheck source=tests/mount/lib.sh
source "$RMEMFS_SOURCE/tests/mount/lib.sh" rdma 1
on=transport=rdma,deadline=4000

start_nodes
make_fs
mount_fs $on
say "mounted in $MOUNT_MS ms"
within 20000 "copying a tree" cp -a "$SOURCE/transport" "$SOURCE/manager" "$MNT/"
remount_fs $on
for tree in transport manager; do
  diff -r "$SOURCE/$tree" "$MNT/$tree" || fail "the copied tree differs"
done
pass "a copied tree is the same through a cold cache"

# The data plane is one-sided: the node's process does not run at all.
spawn io "$HELPERS/watchdog" "$MNT/io" 4 5500 io none
wait_for 20 grep -q ready "$WORK/io.log" || fail "the watchdog does not begin"
signal_nodes STOP
before=$(cpu_ticks "${PID[node1]}")
signal USR1 io
status=0
reap io || status=$?
cat "$WORK/io.log"
[ $status = 0 ] || fail "a call failed, or was too slow, while the node was frozen"
[ "$(cpu_ticks "${PID[node1]}")" = "$before" ] || fail "the frozen node used CPU time"
grep -q '^State:.T' "/proc/${PID[node1]}/status" || fail "the node was not frozen"
signal_nodes CONT
pass "reads, writes, fsync and mmap go on while rmemd is stopped, and it uses no CPU time"

# What the device is given, by the mount's counters.
remember() { rmemctl stats --json "$1" >"$WORK/counters"; }   # remember MOUNT
since() {   # since MOUNT COUNTER...: how much they have grown
  local mount=$1; shift
  rmemctl stats --json "$mount" | python3 -c '
import json, sys
before, after = (json.load(f) for f in (open(sys.argv[1]), sys.stdin))
print(*(int(after[name] - before[name]) for name in sys.argv[2:]))' "$WORK/counters" "$@"
}
direct() { dd if=/dev/urandom of="$1" bs=1M count="$2" oflag=direct conv=notrunc status=none; }   # direct FILE MIB
of_writes=(requests.write transport.writes transport.work_requests transport.doorbells transport.completions)
direct "$MNT/counted" 8   # both lanes have been there
sleep 0.5
remember "$MNT"
direct "$MNT/counted" 8
found=$(since "$MNT" "${of_writes[@]}")
[ "$found" = "8 8 8 8 8" ] || fail "8 writes of 1 MiB are, in ${of_writes[*]}: $found"
pass "a write of 1 MiB is one WRITE, one doorbell and one completion"

need sqlite3 fio
db=$MNT/test.db
[ "$(sqlite3 "$db" 'PRAGMA journal_mode=wal;')" = wal ] || fail "journal_mode=wal is refused"
{
  echo 'CREATE TABLE t(i INT PRIMARY KEY, x TEXT);'
  for ((i = 1; i <= 100; i++)); do echo "BEGIN; INSERT INTO t VALUES($i, hex(randomblob(200))); COMMIT;"; done
} | sqlite3 -bail "$db" || fail "sqlite3"
fio --name=verify --directory="$MNT" --size=6M --rw=randwrite --bsrange=512-64k --bs_unaligned=1 --ioengine=psync --verify=crc32c \
  --verify_fatal=1 --verify_state_save=0 --do_verify=1 --output="$WORK/fio.log" || { cat "$WORK/fio.log" >&2; fail "fio"; }
pass "fio reads back what it wrote"

spawn load "$HELPERS/crash_load" run "$MNT/r" "$WORK/ops" 2 7 600
# shellcheck disable=SC2016  # eval's
wait_for 20 eval '[ "$(cat "$WORK"/ops.* | grep -c ^ack)" -gt 100 ]' || fail "the load does not get going"
kill_mount
reap load || true   # its first error ended it
mount_fs $on
"$HELPERS/crash_load" verify "$MNT/r" "$WORK/ops" || fail "something acknowledged is lost"
[ "$(sqlite3 "$db" 'PRAGMA integrity_check; SELECT count(*) FROM t;')" = $'ok\n100' ] || fail "the database after kill -9"
pass "kill -9 of the mount loses nothing that was acknowledged"

kill_node 1
start_node 1
wait_for 10 "$HELPERS/pattern" write "$MNT/again" 1000000 3 || fail "the mount does not go on after the node's restart"
diff -r "$SOURCE/transport" "$MNT/transport" || fail "the tree after the node's restart"
pass "a node that is killed and started with its pool goes on where it was"
umount_fs
fsck_clean

# The same on huge pages, which a device registers as they are.
free_pages() { awk '/^HugePages_Free/ { print $2 }' /proc/meminfo; }
before=$(free_pages)
spawn huge rmemd --insecure --size 24M --hugepages 2M --listen "rdma://$RDMA_IP:7481"
wait_for 10 grep -q ' lending ' "$WORK/huge.log" || fail "a node on huge pages does not start: $(cat "$WORK/huge.log")"
mkfs.rmemfs --node "rdma://$RDMA_IP:7481" --chunk-size 4M "$WORK/huge" >/dev/null || fail "mkfs on huge pages"
mkdir "$WORK/mnt2"
spawn second rmemfs -f -o transport=rdma "$WORK/huge" "$WORK/mnt2"
wait_for 15 mountpoint -q "$WORK/mnt2" || fail "no mount of a node on huge pages: $(cat "$WORK/second.log")"
"$HELPERS/pattern" write "$WORK/mnt2/file" 9000000 4 || fail "writing to huge pages"
echo 3 >/proc/sys/vm/drop_caches
"$HELPERS/pattern" check "$WORK/mnt2/file" 9000000 4 || fail "reading from huge pages"
[ "$(free_pages)" -lt "$before" ] || fail "the node took no huge page"
umount "$WORK/mnt2"
ended second 15 || fail "the mount of the node on huge pages does not end"
kill_now second; kill_now huge
pass "a node on huge pages"

# A node that makes writes persistent (as if: it is ordinary memory): one PERSIST for what fsync finds new.
# The guest has no file system but in memory, so it is taken for persistent.
PMEM_IS_PMEM_FORCE=1 spawn pmem rmemd --insecure --size 24M --pool pmem:/dev/shm/pmem --listen "rdma://$RDMA_IP:7482"
wait_for 10 grep -q ' lending ' "$WORK/pmem.log" || fail "a node with a persistent pool does not start: $(cat "$WORK/pmem.log")"
mkfs.rmemfs --node "rdma://$RDMA_IP:7482" --chunk-size 8M "$WORK/persistent" >/dev/null || fail "mkfs on a persistent pool"
mkdir "$WORK/mnt3"
spawn third rmemfs -f -o transport=rdma "$WORK/persistent" "$WORK/mnt3"
wait_for 15 mountpoint -q "$WORK/mnt3" || fail "no mount of a node with a persistent pool: $(cat "$WORK/third.log")"
python3 - "$WORK/mnt3/file" rmemctl stats --json "$WORK/mnt3" <<'END' || fail "the operations of fsync"
import json, mmap, os, subprocess, sys
names = ["transport.persists", "transport.work_requests", "transport.doorbells"]
def counters():
    found = json.loads(subprocess.run(sys.argv[2:], stdout=subprocess.PIPE, check=True).stdout)
    return [int(found[name]) for name in names]
def grown(what):
    before = counters()
    what()
    return [after - earlier for after, earlier in zip(counters(), before)]
block = mmap.mmap(-1, 4096)
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_DIRECT)
def write():
    assert os.pwrite(file, block, 0) == 4096
write()           # new blocks are made persistent before they are named
os.fsync(file)
write()
os.fsync(file)
attached = 0      # by one more lane: the first PERSIST of each asks for the region, too
for _ in range(8):
    assert grown(write)[0] == 0, "a write in place waits for fsync"
    first, second = grown(lambda: os.fsync(file)), grown(lambda: os.fsync(file))
    print("fsync after a write, and a second one:", *(f"{n} {a} {b}" for n, a, b in zip(names, first, second)))
    attached += first == [1, 2, 2]
    assert first in ([1, 1, 1], [1, 2, 2]) and second == [0, 0, 0], (first, second)
assert attached < os.cpu_count(), "the region is asked for again and again"
END
umount "$WORK/mnt3"
ended third 15 || fail "the mount of the node with a persistent pool does not end"
kill_now third; kill_now pmem
pass "an fsync is one PERSIST, a second one nothing"

# Without RDMA on the way the mount says so and goes on over tcp, or refuses.
kill_node 1
NODE_LISTEN[1]=tcp://${NODE_ADDRESS[1]#rdma://}
start_node 1
status=0
rmemfs -f -o transport=rdma "$DIR" "$MNT" >"$WORK/refused.log" 2>&1 || status=$?
[ $status != 0 ] || fail "transport=rdma does not refuse"
grep -q 'transport=rdma: no RDMA to memory node' "$WORK/refused.log" || fail "the refusal is: $(cat "$WORK/refused.log")"
: >"$WORK/mount.log"
mount_fs
[ "$(grep -c 'is reached over tcp: nobody listens there for RDMA' "$WORK/mount.log")" = 1 ] || fail "the fall-back is not said once: $(cat "$WORK/mount.log")"
diff -r "$SOURCE/transport" "$MNT/transport" || fail "the tree over tcp"
umount_fs
pass "transport=auto falls back to tcp and says why, transport=rdma refuses"
