#!/bin/bash
# The disk under the metadata directory fills up: changes end with EROFS, status says read-only and why, and once there
# is room again the next mount has everything that was acknowledged.
source "$(dirname "$0")/lib.sh"
private_namespace "$@"
mkdir "$WORK/disk"
mount -t tmpfs -o size=64m tmpfs "$WORK/disk"
DIR=$WORK/disk/fs
field() { rmemctl status --json "$MNT" | json "d['$1']"; }

start_nodes
make_fs --journal-slots 4096
mount_fs
[ "$(field state)" = serving ] || fail "a fresh mount is $(field state)"
[ -z "$(field reason)" ] || fail "a fresh mount has a reason: $(field reason)"
mkdir "$MNT/d"
"$HELPERS/pattern" write "$MNT/file" 3000000 5

say "the disk is filled, and names are made until they are refused"
dd if=/dev/zero of="$WORK/disk/filler" bs=64k 2>"$WORK/dd.err" && fail "the disk is not full"
dd if=/dev/zero bs=4k 2>"$WORK/dd.err" >>"$WORK/disk/filler" && fail "the disk is not full"
[ "$(df --output=avail -B1 "$WORK/disk" | tail -n 1)" -lt 65536 ] || fail "the disk still has room"
# One line per acknowledged name, then the error that ended it. What is under way when the store fails may end with EIO, and
# whether it was done is not known: its name is set aside.
: >"$WORK/doubtful"
python3 - "$MNT/d" "$WORK/made" "$WORK/doubtful" <<'END' || fail "no change was refused"
import errno, os, sys, time
end = time.monotonic() + 40
with open(sys.argv[2], "w") as made:
    i = 0
    while time.monotonic() < end:
        name = "%06d-" % i + "n" * 200
        try:
            os.close(os.open(sys.argv[1] + "/" + name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
        except OSError as error:
            print("after", i, "names:", errno.errorcode[error.errno], flush=True)
            if error.errno == errno.EIO and os.stat(sys.argv[3]).st_size == 0:
                with open(sys.argv[3], "w") as doubtful:
                    doubtful.write(name + "\n")
                i += 1
                continue
            sys.exit(0 if error.errno == errno.EROFS else 1)
        made.write(name + "\n")
        i += 1
sys.exit(1)
END
[ -s "$WORK/made" ] || fail "nothing was acknowledged"
pass "EROFS after $(wc -l <"$WORK/made") names"

[ "$(field state)" = read-only ] || fail "status says $(field state)"
[ -n "$(field reason)" ] || fail "status gives no reason"
rmemctl status "$MNT" | grep -q '^state *read-only: .*metadata store failed' || fail "status does not say why: $(rmemctl status "$MNT" | head -n 1)"
pass "status: $(rmemctl status "$MNT" | head -n 1)"
mkdir "$MNT/no" 2>"$WORK/no.err" && fail "a change was accepted after EROFS"
grep -qi 'read-only' "$WORK/no.err" || fail "mkdir: $(cat "$WORK/no.err")"
"$HELPERS/pattern" check "$MNT/file" 3000000 5 || fail "reads do not go on"
there() { [ "$(cd "$MNT/d" && ls | grep -vxF -f "$WORK/doubtful" | sort | sha256sum)" = "$(sort "$WORK/made" | sha256sum)" ]; }
there || fail "not all names are there while it is read-only"
pass "reads go on"

say "room is made, and it is mounted again"
rm "$WORK/disk/filler"
remount_fs
[ "$(field state)" = serving ] || fail "after a remount status says $(field state)"
there || fail "of $(wc -l <"$WORK/made") acknowledged names there are $(ls "$MNT/d" | wc -l)"
"$HELPERS/pattern" check "$MNT/file" 3000000 5 || fail "the file is damaged after a remount"
touch "$MNT/d/more" && rm "$MNT/d/more"
pass "everything that was acknowledged is there"
umount_fs
fsck_clean
