#!/bin/bash
# Access times by the rules of mount(8), of what the kernel asks to read: relatime (the default), strictatime, noatime,
# nodiratime, as on tmpfs; they are there after a remount, and utimensat is exact.
source "$(dirname "$0")/lib.sh"
new_fs
cat >"$WORK/times.py" <<'END'
import os, sys, time
mount, rule = sys.argv[1], sys.argv[2]
os.chdir(mount)
DAY = 24 * 60 * 60

def read(path):            # past the kernel's cache
    f = os.open(path, os.O_RDONLY)
    os.fsync(f)
    os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.read(f, 100)
    os.close(f)

def atime(path): return os.stat(path, follow_symlinks=False).st_atime_ns

# Whether what is done changes the access time, to now; nothing else of the file changes.
def changes(path, what):
    time.sleep(0.02)   # the kernel's own file systems count time in ticks
    before, start = os.stat(path, follow_symlinks=False), time.time_ns() - 10**7
    what()
    after = os.stat(path, follow_symlinks=False)
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns), path
    if before.st_atime_ns == after.st_atime_ns: return False
    assert start <= after.st_atime_ns <= time.time_ns(), path
    return True

def is_so(what, got, relative, strict, never=False):
    expected = {"relatime": relative, "strictatime": strict, "nodiratime": relative, "noatime": never}[rule]
    assert got == expected, f"{rule}: {what}: {'changed' if got else 'unchanged'}"

name = "f." + rule
with open(name, "wb") as f: f.write(b"x" * 5000)
is_so("first read", changes(name, lambda: read(name)), True, True)
is_so("second read", changes(name, lambda: read(name)), False, True)
with open(name, "ab") as f: f.write(b"y")
is_so("read after a write", changes(name, lambda: read(name)), True, True)
os.chmod(name, 0o600)
is_so("read after chmod", changes(name, lambda: read(name)), True, True)
now = time.time_ns()
for age, relative in ((DAY // 2, False), (2 * DAY, True)):
    os.utime(name, ns=(now - age * 10**9 - 7, now - 3 * DAY * 10**9))
    assert atime(name) == now - age * 10**9 - 7
    # utimensat itself has just changed ctime, which relatime looks at.
    is_so("read after utimensat", changes(name, lambda: read(name)), True, True)
    assert rule != "noatime" or atime(name) == now - age * 10**9 - 7
future = now + 1000 * 10**9
os.utime(name, ns=(future, now))
before = atime(name)
read(name)
is_so("read of what was read in the future", atime(name) != before, False, True)

os.mkdir("d." + rule)
open(f"d.{rule}/entry", "w").close()
got = changes("d." + rule, lambda: os.listdir("d." + rule))
assert got == (rule in ("relatime", "strictatime")), f"{rule}: listing: {got}"
os.symlink("target", "l." + rule)
is_so("readlink", changes("l." + rule, lambda: os.readlink("l." + rule)), True, True)
# Explicit times of both kinds at once, to the nanosecond.
os.utime(name, ns=(123456789, 987654321))
status = os.stat(name)
assert (status.st_atime_ns, status.st_mtime_ns) == (123456789, 987654321)
with open(name, "ab") as f: f.write(b"z")
read(name)
print(" ".join(str(atime(path)) for path in (name, "d." + rule, "l." + rule)))
END
# The rules are the kernel's.
if [ "$(id -u)" = 0 ]; then
  mkdir "$WORK/tmpfs"
  for rule in relatime strictatime noatime nodiratime; do
    mount -t tmpfs -o "$rule" rmemfs-test "$WORK/tmpfs" || fail "a tmpfs cannot be mounted"
    python3 "$WORK/times.py" "$WORK/tmpfs" $rule >/dev/null || fail "tmpfs has other rules: $rule"
    umount "$WORK/tmpfs"
  done
  pass "tmpfs has the same rules"
fi
times() { python3 "$WORK/times.py" "$MNT" "$1" >"$WORK/times.$1" || fail "$1"; pass "$1"; }
kept() {   # after the mount's end
  local rule=$1
  [ "$(python3 -c "
import os
os.chdir('$MNT')
print(' '.join(str(os.stat(p, follow_symlinks=False).st_atime_ns) for p in ('f.$rule', 'd.$rule', 'l.$rule')))")" = "$(cat "$WORK/times.$rule")" ] || fail "$rule: other times after a remount"
  pass "$rule: the same times after a remount"
}
times relatime
remount_fs strictatime,lazytime
kept relatime
times strictatime
remount_fs noatime
kept strictatime
times noatime
remount_fs relatime,nodiratime
kept noatime
times nodiratime
remount_fs ro
kept nodiratime
before=$(cat "$WORK/times.nodiratime")
cat "$MNT/f.nodiratime" >/dev/null
kept nodiratime
umount_fs
fsck_clean
