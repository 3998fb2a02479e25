# shellcheck shell=bash
# Runs in a guest (fence.sh): a mount that was frozen while another one took over is refused by the node's device.
export RDMA_IP=10.77.0.1 POOL=192M
# shellcheck source=tests/mount/lib.sh
source "$RMEMFS_SOURCE/tests/mount/lib.sh" rdma 1
new_fs transport=rdma,deadline=4000
"$HELPERS/pattern" write "$MNT/file" 1000000 5
cp -a "$DIR" "$WORK/twin"
rm -f "$WORK/twin/admin.sock"

# The older mount is frozen with writes to the file under way.
# shellcheck disable=SC2016  # the inner shell's
spawn writer bash -c 'while dd if=/dev/urandom of="$1" bs=64k count=15 conv=notrunc,fsync status=none; do :; done' - "$MNT/file"
sleep 1
signal STOP mount
mkdir "$WORK/mnt2"
spawn twin rmemfs -f -o transport=rdma,deadline=4000 "$WORK/twin" "$WORK/mnt2"
wait_for 20 mountpoint -q "$WORK/mnt2" || { tail -3 "$WORK/twin.log"; fail "the newer mount does not come"; }
"$HELPERS/pattern" write "$WORK/mnt2/file" 1000000 7 || fail "the newer mount cannot write"
signal CONT mount
ended writer 20 || fail "the older mount's writer goes on"
reap writer || true   # the loop's status, not dd's
grep -Eq 'dd: .*(Stale file handle|Input/output error)' "$WORK/writer.log" || fail "the writer said: $(cat "$WORK/writer.log")"
ended mount 20 || fail "the older mount's daemon does not end"
reap mount && fail "the older mount's daemon ended with 0"
grep -q 'a newer mount has taken over' "$WORK/mount.log" || fail "the older mount does not say why: $(cat "$WORK/mount.log")"
MOUNT_PID=
pass "the thawed mount is refused, and says so: $(tail -n 1 "$WORK/writer.log")"

umount "$WORK/mnt2"
ended twin 20 || fail "the newer mount does not end"
reap twin || fail "the newer mount ended with status $?"
DIR=$WORK/twin
mount_fs transport=rdma
"$HELPERS/pattern" check "$MNT/file" 1000000 7 || fail "the newer mount's bytes were overwritten"
umount_fs
fsck_clean
pass "nothing of the older mount reached the newer one's file"
