#!/bin/bash
# Which requests the kernel sends for what programs do: none that it need not send. Each count is an upper bound of its
# kind, and a kind that is not named is not asked at all; FORGET is left out, it comes when the kernel likes.
source "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "only root can be several users"
N=50
new_fs
touch "$WORK/sums" && chmod 666 "$WORK/sums"

count() { rmemctl stats --json "$MNT" >"$WORK/$1.json"; }
# asked "WHAT" KIND=N...: since `count before`. `others` are requests of kinds that have no counter of their own.
asked() {
  local what=$1; shift
  count after
  python3 - "$WORK" "$what" "$@" <<'END' || fail "$what"
import json, sys
work, what, *limits = sys.argv[1:]
before, after = (json.load(open(f"{work}/{name}.json")) for name in ("before", "after"))
sent = {k.split(".")[1]: after[k] - before[k] for k in after if k.startswith("requests.") and k != "requests.failed"}
forgets = sent.pop("forget")
sent["others"] = after["lane.requests"] - before["lane.requests"] - sum(sent.values()) - forgets
sent = {kind: number for kind, number in sent.items() if number}
allowed = {kind: int(number) for kind, number in (limit.split("=") for limit in limits)}
print(f"{what}: {sent or 'nothing'}")
bad = {kind: number for kind, number in sent.items() if number > allowed.get(kind, 0)}
if bad:
    sys.exit(f"{what}: {bad} instead of at most {allowed}")
END
  pass "$what"
}
# does 'PYTHON', in the mount's root; as_user 'SHELL', in its directory d.
does() { count before; python3 -I -c "import os, mmap, select
os.chdir('$MNT')
$1"; }
as_user() { count before; setpriv --reuid 4711 --regid 4711 --clear-groups bash -c "cd '$MNT/d' && $1"; }

# The first of each kind: what is answered "not implemented" is not asked again.
first() {
  does "
path = 'd/first' + str(os.getpid()); os.makedirs('d', exist_ok=True)
f = os.open(path, os.O_CREAT | os.O_RDWR)
os.write(f, b'x'); os.fsync(f); os.ftruncate(f, 10); os.lseek(f, 0, os.SEEK_DATA)
poll = select.poll(); poll.register(f); poll.poll(0)
os.close(f); os.access(path, os.R_OK); os.listdir('d')
d = os.open('d', os.O_RDONLY); os.fsync(d); os.close(d)"
  stat "$MNT"/d/first* >/dev/null
}
first
does "
for i in range($N):
    f = os.open(f'd/{i}', os.O_CREAT | os.O_EXCL | os.O_WRONLY); os.write(f, b'x' * 4096); os.close(f)"
# getattr: of the directory, which each creation has changed, for its permissions; getxattr: security.capability.
asked "create, write, close" lookup=$N getattr=$((N + 1)) make_node=$N write=$N getxattr=$N
does "[os.stat(f'd/{i}') for i in range($N)]"
asked "stat after writing" getattr=$((N + 1))
does "[os.stat(f'd/{i}') for i in range($N)]"
asked "stat"
does "
for i in range($N):
    f = os.open(f'd/{i}', os.O_RDONLY); os.read(f, 4096); os.close(f)"
asked "open, read, close of what was written"
does "os.listdir('d')"
asked "listing" readdir=8
does "os.listdir('d')"
asked "listing again" getattr=1
count before; ls -l "$MNT/d" >/dev/null
asked "ls -l, which asks for attributes itself" getattr=1 getxattr=$((4 * N))
does "
f = os.open('d/1', os.O_WRONLY)
for i in range($N): os.pwrite(f, b'y' * 100, 0)
os.close(f)"
asked "write after write" write=$N getxattr=1
does "
f = os.open('d/1', os.O_WRONLY | os.O_APPEND)
for i in range($N): os.write(f, b'y' * 10); os.fstat(f)"
asked "write and fstat in turn" write=$N getattr=$((N + 1)) getxattr=$N
does "
f = os.open('d/1', os.O_RDWR)
for i in range($N): os.pread(f, 10, 0); os.fsync(f)
select.select([f], [f], [], 0); os.access('d/1', os.W_OK); os.lseek(f, 0, os.SEEK_END)"
asked "read, fsync, select, access, lseek" fsync=$N getattr=2
does "
for i in range($N): os.chmod(f'd/{i}', 0o640)"
asked "chmod" setattr=$N getattr=1
does "
for i in range($N): os.rename(f'd/{i}', f'd/r{i}')"
asked "rename" lookup=$N rename=$N getattr=$((N + 1))
does "
for i in range($N): os.rename(f'd/r{i}', f'd/{i}')
for i in range(2 * $N): os.path.exists(f'd/absent{i % $N}')"
asked "rename back, and looking twice for names that are not there" lookup=$((2 * N)) rename=$N getattr=$((N + 1))
does "
for i in range($N): os.mkdir(f'd/x{i}'); os.listdir(f'd/x{i}'); os.rmdir(f'd/x{i}')"
asked "mkdir, listing, rmdir" lookup=$N make_node=$N readdir=$((2 * N)) unlink=$N getattr=$((3 * N + 1))

# Somebody else's files: the access lists of what is not one's own, once. (Some kernels ask for that of the mount's root
# each time; so these go there once only.)
chmod 1777 "$MNT/d"
chmod 644 "$MNT"/d/[0-9]*
as_user "sum {0..$((N - 1))} >$WORK/sums"
asked "open and read by another user" getattr=$((N + 3)) getxattr=$((N + 3)) read=1
as_user "sum {0..$((N - 1))} >$WORK/sums"
asked "open and read by another user again" getattr=1 getxattr=2
as_user "for ((i = 0; i < $N; i++)); do echo x >u\$i; done"
# getxattr: security.capability of the file, and the access list of the directory, whose attributes came anew.
asked "create and write in another user's directory" lookup=$N make_node=$N write=$N getattr=$((N + 3)) getxattr=$((2 * N + 3))

remount_fs
first
count before; stat "$MNT"/d/[0-9]* >/dev/null
asked "stat after mounting" lookup=$((N + 2)) readdir=8 getattr=2
does "
for i in range($N):
    f = os.open(f'd/{i}', os.O_RDONLY); os.read(f, 4096); os.close(f)"
asked "open, read, close" read=$N getattr=1
does "[os.stat(f'd/{i}') for i in range($N)]"
asked "stat after reading: the access time may have changed" getattr=$((N + 1))

# Without extended attributes.
python3 -c "
import os
os.setxattr('$MNT/d/2', 'security.capability', bytes.fromhex('01000002' + '00040000' + '00' * 12))
os.setxattr('$MNT/d/2', 'user.x', b'kept')"
remount_fs noxattr
first
does "
for i in range($N):
    f = os.open(f'd/n{i}', os.O_CREAT | os.O_EXCL | os.O_WRONLY); os.write(f, b'x' * 4096); os.close(f)"
asked "noxattr: create, write, close" lookup=$((N + 1)) getattr=$((N + 1)) make_node=$N write=$N getxattr=1
does "
f = os.open('d/n1', os.O_WRONLY | os.O_APPEND)
for i in range($N): os.write(f, b'y' * 10); os.fstat(f)"
asked "noxattr: write and fstat in turn" write=$N getattr=$((N + 1))
does "
f = os.open('d/2', os.O_WRONLY); os.write(f, b'z')
for call in (lambda: os.getxattr('d/2', 'user.x'), lambda: os.setxattr('d/2', 'user.y', b''), lambda: os.listxattr('d/2'),
             lambda: os.removexattr('d/2', 'user.x')):
    try:
        call()
    except OSError as error:
        assert error.errno == 95, error
    else:
        assert False, 'there are attributes'"
pass "noxattr: EOPNOTSUPP"
remount_fs noacl
first
as_user "sum {0..$((N - 1))} >$WORK/sums"
asked "noacl: open and read by another user" lookup=$((N + 2)) read=$N getattr=2
as_user "for ((i = 0; i < $N; i++)); do echo x >v\$i; done"
asked "noacl: create and write in another user's directory" lookup=$N make_node=$N write=$N getattr=$((N + 3)) getxattr=$N
python3 - "$MNT/d/2" <<'END' || fail "noacl"
import os, struct, sys
assert os.getxattr(sys.argv[1], "user.x") == b"kept"
access = struct.pack("<I" + "HHI" * 3, 2, 1, 7, 2**32 - 1, 4, 5, 2**32 - 1, 32, 5, 2**32 - 1)
for call in (lambda: os.setxattr(sys.argv[1], "system.posix_acl_access", access), lambda: os.getxattr(sys.argv[1], "system.posix_acl_access")):
    try:
        call()
    except OSError as error:
        assert error.errno == 95, error
    else:
        assert False, "there are access lists"
END
pass "noacl: attributes, but no access lists"
remount_fs
[ "$(python3 -c "import os; print(os.listxattr('$MNT/d/2'))")" = "['user.x']" ] || fail "a file written with noxattr keeps its capabilities, or loses more"
pass "noxattr: writing takes capabilities away, and nothing else"
umount_fs
fsck_clean
