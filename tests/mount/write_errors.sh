#!/bin/bash
# Writing to a node that dies: a write that fails in part says how much is written, size and bytes agree with that, and
# what a mapping could not write back is told by fsync once to every descriptor.
source "$(dirname "$0")/lib.sh"
new_fs deadline=1000
cat >"$WORK/write.py" <<'END'
import errno, mmap, os, sys
what, path, mark, ready = sys.argv[1:]
MiB = 1 << 20

def block(i): return (b"%015d\n" % i) * (MiB // 16)
def wait_for_death():
    open(ready, "w").close()
    while not os.path.exists(mark): pass

# What the kernel has not cached.
def stored(path):
    f = os.open(path, os.O_RDONLY)
    os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
    out = b""
    while part := os.read(f, MiB): out += part
    os.close(f)
    return out

if what == "load":
    # Until a write fails or is short: what had been said to be written is the file.
    f = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    open(ready, "w").close()
    done, error = 0, None
    while done < 400 * MiB:
        piece = (block(done // MiB) + block(done // MiB + 1))[done % MiB:][:MiB]
        try:
            n = os.write(f, piece)
        except OSError as e:
            error = e.errno
            break
        assert os.fstat(f).st_size == done + n
        done += n
    assert os.fstat(f).st_size == done, (os.fstat(f).st_size, done)
    print(done, errno.errorcode.get(error, "short"))
elif what == "verify":
    done = int(mark)
    bytes = stored(path)
    assert len(bytes) == done, (len(bytes), done)
    for i in range(0, done, MiB): assert bytes[i:i + MiB] == block(i // MiB)[:done - i], i
elif what == "mapping":
    first = os.open(path, os.O_CREAT | os.O_RDWR)
    os.write(first, block(0))
    os.fsync(first)
    second = os.open(path, os.O_RDWR)
    memory = mmap.mmap(first, MiB)
    wait_for_death()
    memory[5000:5005] = b"never"
    def fsync(f):
        try:
            os.fsync(f)
        except OSError as e:
            return errno.errorcode[e.errno]
        return "ok"
    told = [fsync(first), fsync(second), fsync(first), fsync(second), fsync(os.open(path, os.O_RDONLY))]
    assert told == ["EIO", "EIO", "ok", "ok", "ok"], told
END
say "a node dies under a write"
rm -f "$WORK/ready"
spawn load timeout 60 python3 "$WORK/write.py" load "$MNT/load" - "$WORK/ready"
wait_for 20 eval '[ -e "$WORK/ready" ] && [ "$(stat -c %s "$MNT/load")" -gt 3000000 ]' || fail "the load does not get going"
kill_node 1
reap load || { cat "$WORK/load.log" >&2; fail "size and result do not agree"; }
read -r done how <"$WORK/load.log"
[ "$how" = EIO ] || fail "it ended with $how after $done bytes"
[ "$(stat -c %s "$MNT/load")" = "$done" ] || fail "another size than the $done bytes that were written"
start_node 1
wait_for 15 cat "$MNT/load" || fail "the file cannot be read when the node is back"
python3 "$WORK/write.py" verify "$MNT/load" "$done" - || fail "other bytes than what was written"
pass "$how after $done bytes, which are the file"
say "a node dies under a mapping"
rm -f "$WORK/ready"
spawn mapping timeout 60 python3 "$WORK/write.py" mapping "$MNT/mapping" "$WORK/dead" "$WORK/ready"
wait_for 20 test -e "$WORK/ready" || fail "the mapping is not there"
kill_node 1
touch "$WORK/dead"
reap mapping || { cat "$WORK/mapping.log" >&2; fail "fsync does not tell every descriptor once"; }
start_node 1
wait_for 15 cat "$MNT/mapping" || fail "the file cannot be read when the node is back"
remount_fs
"$HELPERS/pattern" write "$MNT/after" 300000 5 && "$HELPERS/pattern" check "$MNT/after" 300000 5 || fail "the mount is not usable afterwards"
python3 "$WORK/write.py" verify "$MNT/load" "$done" - || fail "other bytes after a remount"
pass "fsync tells each descriptor once"
umount_fs
fsck_clean
