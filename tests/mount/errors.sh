#!/bin/bash
# Every error number of the table in rmemfs(8) is produced here, by a system call on the mount where one can meet it, else by
# the program that says its sentence. The table's rows are read from the page: one that nothing here produces fails the test.
# (Each name kX of util/error.h is in this file or in a unit test; check_man sees to that.)
POOL=64M CHUNK=4M
source "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "only root can be several users"
: >"$WORK/produced"
# says NAME ERRNO PATTERN COMMAND...: the command fails and says so.
says() {
  local name=$1 number=$2 pattern=$3 status=0; shift 3
  "$@" >"$WORK/said" 2>&1 </dev/null || status=$?
  [ $status != 0 ] || fail "$name: it succeeded: $*"
  grep -qE -- "$pattern" "$WORK/said" || fail "$name: it does not say \"$pattern\" but: $(cat "$WORK/said")"
  echo "$number $name: $(head -n 1 "$WORK/said")" >>"$WORK/produced"
}
cat >"$WORK/calls.py" <<'END_OF_CALLS'
import ctypes, errno, os, sys

mount, cases = sys.argv[1], sys.argv[2:]
libc = ctypes.CDLL(None, use_errno=True)
at = lambda name: mount + "/" + name


def as_user(call):
    """The call's error in a child that is nobody in particular."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([]), os.setgid(1234), os.setuid(1234), call()
        except OSError as error:
            os.write(write, b"%d" % error.errno)
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    raise OSError(int(os.read(read, 9) or 0), "as user")


def in_c(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "libc")


def work_until_refused():
    """In the directory itself: a mount that is refused unmounts, and its path leads elsewhere then."""
    there = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    print("begun", flush=True)
    while True:
        os.mkdir("late", dir_fd=there)
        os.rmdir("late", dir_fd=there)


def seek_to_data():
    os.lseek(os.open(at("file"), os.O_RDONLY), 100, os.SEEK_DATA)


CASES = {
    "kNotFound": ("ENOENT", lambda: os.stat(at("none"))),
    "kExists": ("EEXIST", lambda: os.mkdir(at("file"))),
    "kNotDirectory": ("ENOTDIR", lambda: os.rename(at("dir"), at("file"))),
    "kIsDirectory": ("EISDIR", lambda: os.rename(at("file"), at("empty"))),
    "kNotEmpty": ("ENOTEMPTY", lambda: os.rmdir(at("dir"))),
    "kNameTooLong": ("ENAMETOOLONG", lambda: os.mkdir(at("n" * 256))),
    "kNoSpace": ("ENOSPC", lambda: os.posix_fallocate(os.open(at("file"), os.O_RDWR), 0, 1 << 30)),
    "kTooManyLinks": ("EMLINK", lambda: os.link(at("linked"), at("one-more"))),
    "kInvalid": ("EINVAL", lambda: os.rename(at("dir"), at("dir/in/side"))),
    "kAccess": ("EACCES", lambda: as_user(lambda: os.open(at("secret"), os.O_RDONLY))),
    "kNotPermitted": ("EPERM", lambda: as_user(lambda: os.chmod(at("file"), 0o777))),
    "kReadOnly": ("EROFS", lambda: os.mkdir(at("new"))),
    "kTooBig": ("EFBIG", lambda: os.truncate(at("file"), (1 << 62) + 1)),
    "kNoSuchOffset": ("ENXIO", seek_to_data),
    "kNotSupported": ("EOPNOTSUPP", lambda: os.setxattr(at("file"), "system.nonsense", b"x")),
    "kRange": ("ERANGE", lambda: in_c(libc.getxattr(at("file").encode(), b"user.long", ctypes.create_string_buffer(4), 4))),
    "kNoAttribute": ("ENODATA", lambda: os.getxattr(at("file"), "user.none")),
    "kCorrupt": ("EUCLEAN", lambda: os.stat(at("damaged"))),
    "kUnreachable": ("EIO", lambda: open(at("file"), "rb").read()),
    "kDeadline": ("EIO", lambda: open(at("file"), "rb").read()),
    "kRegionLost": ("EIO", lambda: open(at("file"), "rb").read()),
    "kFenced": ("ESTALE", work_until_refused),
}

for case in cases or CASES:
    number, call = CASES[case]
    try:
        call()
        sys.exit("%s: it succeeded" % case)
    except OSError as error:
        if errno.errorcode.get(error.errno) not in (number, "ENOTSUP" if number == "EOPNOTSUPP" else number):
            sys.exit("%s: %s instead of %s" % (case, errno.errorcode.get(error.errno, error.errno), number))
        print(number, case + ":", os.strerror(error.errno))
END_OF_CALLS
# calls NAME...: system calls on the mount.
calls() { python3 "$WORK/calls.py" "$MNT" "$@" >>"$WORK/produced" || fail "the call above"; }

mkdir "$WORK/mnt2"
new_fs deadline=1500
chmod 755 "$MNT"
mkdir -p "$MNT/dir/in" "$MNT/empty"
"$HELPERS/pattern" write "$MNT/file" 40 1
truncate -s 200 "$MNT/file"; echo long >"$MNT/linked"; echo x >"$MNT/damaged"
(umask 077; echo x >"$MNT/secret")
python3 -c 'import os,sys; os.setxattr(sys.argv[1], "user.long", b"0123456789")' "$MNT/file"
linked=$(stat -c %i "$MNT/linked") damaged=$(stat -c %i "$MNT/damaged")
truncate -s 40 "$MNT/file"
calls kNotFound kExists kNotDirectory kIsDirectory kNotEmpty kNameTooLong kNoSpace kInvalid kAccess kNotPermitted kTooBig \
  kNoSuchOffset kNotSupported kRange kNoAttribute
says kLocked EBUSY 'in use' rmemfs "$DIR" "$WORK/mnt2"
umount_fs

say "metadata that another run left"
"$HELPERS/edit_metadata" "$DIR" "$linked" links 2147483648
"$HELPERS/edit_metadata" "$DIR" "$damaged" damage
mount_fs deadline=1500
[ "$(stat -c %h "$MNT/linked")" = 2147483648 ] || fail "the count of links: $(stat -c %h "$MNT/linked")"
calls kTooManyLinks kCorrupt
umount_fs
mount_fs ro
calls kReadOnly
umount_fs

say "nodes"
mount_fs deadline=1500
signal STOP node1
calls kDeadline
signal CONT node1
wait_for 10 eval '! rmemctl nodes "$MNT" | grep -q unreachable' || fail "the node is not heard of after SIGCONT"
remount_fs deadline=1500     # nothing of the file in the kernel's cache
kill_node 1
calls kUnreachable
rm -f "${NODE_POOL[1]}"
start_node 1                 # without what it had
wait_for 10 eval 'rmemctl lost "$MNT" | grep -q file' || fail "nothing is lost: $(rmemctl lost "$MNT")"
calls kRegionLost

say "another mount takes over"
cp -a "$DIR" "$WORK/twin"
rm -f "$WORK/twin/admin.sock"
spawn late python3 "$WORK/calls.py" "$MNT" kFenced
wait_for 10 grep -q begun "$WORK/late.log" || fail "nobody works on the older mount"
spawn twin rmemfs -f "$WORK/twin" "$WORK/mnt2"
wait_for 15 mountpoint -q "$WORK/mnt2" || fail "the copy does not mount: $(tail -n 3 "$WORK/twin.log")"
# The older one hears of it with its next heartbeat; then it ends.
ended late 15 || fail "the older mount goes on"
reap late || fail "the older mount: $(cat "$WORK/late.log")"
tail -n 1 "$WORK/late.log" >>"$WORK/produced"
umount "$WORK/mnt2"
ended twin 15 || fail "the newer mount does not end"
reap twin || fail "the newer mount ended with status $?"
detach "$MNT"
ended mount 15 || fail "the fenced mount does not end"
reap mount || true
MOUNT_PID=

say "programs"
# How many descriptors the test has itself depends on who runs it: with one of these limits the first file is one too many.
too_few() {
  local limit
  for limit in {4..12}; do
    ! prlimit --nofile="$limit" fsck.rmemfs -n "$WORK/twin" 2>&1 | grep 'open objects' || break
  done
  return 1
}
says kTooMany ENFILE 'a limit on open objects is reached' too_few
says kNoMemory ENOMEM 'not enough memory' rmemd --size 32T --listen "unix:$WORK/x.sock"
spawn impostor "$HELPERS/other_version_node" "$WORK/impostor.sock"
wait_for 5 test -S "$WORK/impostor.sock"
says kVersion EPROTONOSUPPORT 'another protocol version' mkfs.rmemfs --node "shm:$WORK/impostor.sock" "$WORK/never"
at=$(($(stat -c %s "$DIR/superblock") / 2))
old=$(od -An -tu1 -j $at -N 1 "$DIR/superblock" | tr -d ' ')
printf "\\x$(printf %02x $((old ^ 1)))" | dd of="$DIR/superblock" bs=1 seek=$at conv=notrunc status=none
says kChecksum EBADMSG 'a checksum does not match' rmemfs "$DIR" "$MNT"

sort -u "$WORK/produced"
sed -n '/^\.Sh ERROR NUMBERS/,/^\.El/ s/^\.It Er //p' "$SOURCE/man/rmemfs.8" | sort -u >"$WORK/table"
[ "$(wc -l <"$WORK/table")" -gt 20 ] || fail "the table of rmemfs(8) is not found"
awk '{ print $1 }' "$WORK/produced" | sort -u >"$WORK/numbers"
[ -z "$(comm -23 "$WORK/table" "$WORK/numbers")" ] || fail "nothing here produces $(comm -23 "$WORK/table" "$WORK/numbers" | tr '\n' ' ')"
pass "all $(wc -l <"$WORK/table") rows of the table are produced"
