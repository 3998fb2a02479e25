#!/usr/bin/python3
"""Says everything about a tree that a faithful copy has to keep, one line a name, for diff to compare.

usage: tree_state.py make DIRECTORY   a tree with one of everything
       tree_state.py show DIRECTORY   type, mode, owner, time, size, device, contents, links, attributes and access lists
"""
import errno
import hashlib
import os
import socket
import stat
import struct
import sys

LONG_NAME = b"\xc3\xa9" + b"n" * 253


def acl(*entries):
    """The kernel's form of an access list: entries are (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER, NOBODY = 1, 2, 4, 8, 16, 32, 0xFFFFFFFF
LIST = acl((USER_OBJ, 7, NOBODY), (USER, 5, 1234), (GROUP_OBJ, 4, NOBODY), (GROUP, 6, 4321), (MASK, 7, NOBODY), (OTHER, 0, NOBODY))
DEFAULT = acl((USER_OBJ, 7, NOBODY), (USER, 7, 77), (GROUP_OBJ, 5, NOBODY), (MASK, 7, NOBODY), (OTHER, 1, NOBODY))
NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # security.capability: cap_net_raw, effective


def make(top):
    root = os.geteuid() == 0
    os.mkdir(top)
    os.chdir(top)
    for number in range(40):
        folder = b"d%d" % (number % 7)
        os.makedirs(folder, exist_ok=True)
        with open(folder + b"/f%d" % number, "wb") as file:
            file.write(b"%d " % number * (number * number * 37))
    for name in (b"new\nline", b"sp ace ", b"-rf", b"\xff\xfe\x01", b"*?[a]", b"back\\slash", LONG_NAME):
        with open(name, "wb") as file:
            file.write(name)
    os.makedirs(b"empty/" + b"deep/" * 60)
    # Hard links, also of a link and of a FIFO, across directories.
    os.link("d1/f1", "d2/again")
    os.link("d1/f1", "d3/once more")
    os.symlink("d1/f1", "link")
    os.link("link", "d4/same link", follow_symlinks=False)
    os.symlink("nowhere/" + "x" * 4000, "d5/long")
    os.symlink(b"\xff\n", b"odd link")
    os.mkfifo("fifo", 0o640)
    os.link("fifo", "d6/fifo")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    # Holes at the front, between and at the end; one that is nothing else.
    with open("sparse", "wb") as file:
        for offset in (5 << 20, 23 << 20, 40 << 20):
            os.pwrite(file.fileno(), b"data" * 5000, offset)
        file.truncate(50 << 20)
    with open("hole", "wb") as file:
        file.truncate(30 << 20)
    for number in range(30):
        os.setxattr("d0/f0", "user.%d" % number, b"v" * number)
    os.setxattr("d0", "user.directory", b"\0binary\xff")
    os.setxattr("d1/f1", "user.large", os.urandom(1) * 3000)
    os.setxattr("d0/f7", "system.posix_acl_access", LIST)
    os.setxattr("d1", "system.posix_acl_access", LIST)
    os.setxattr("d1", "system.posix_acl_default", DEFAULT)
    os.makedirs("d1/inherits/twice")
    with open("d1/inherits/twice/file", "wb"):
        pass
    if root:
        os.setxattr("d0/f0", "trusted.secret", b"hidden")
        os.setxattr("link", "trusted.of_a_link", b"not followed", follow_symlinks=False)
        os.chown("d2", 4000000000, 12)
        os.chown("d2/f2", 33, 4294967294)
        os.chown("link", 99, 98, follow_symlinks=False)
        os.setxattr("d0/f14", "security.capability", NET_RAW)
        os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod("block", stat.S_IFBLK | 0o600, os.makedev(259, 1048575))
    for mode, name in ((0o4755, "d3/f3"), (0o2751, "d3/f10"), (0o7777, "d4"), (0o1777, "d5"), (0o2775, "d6"), (0o444, "d3/f24")):
        os.chmod(name, mode)
    if root:
        os.chmod("d3/f17", 0)
    # In the past: rsync passes over times of the same second.
    number = 0
    for folder, _, files in os.walk(b".", topdown=False):
        for name in files + [b"."]:
            number += 1
            os.utime(os.path.join(folder, name), ns=(0, (1_700_000_000 - number) * 10**9 + number * 1234567), follow_symlinks=False)
    for number, name in enumerate(("d0/f0", "d1/f1", "d2", "link", "fifo", "sparse", "d5/long", "empty")):
        os.utime(name, ns=(0, (1_000_000_000 + number) * 10**9 + 123456789 + number), follow_symlinks=False)
    os.utime("d6/f6", ns=(0, -86400 * 10**9 + 5))      # before 1970
    os.utime("d6/f13", ns=(0, 4400000000 * 10**9 + 7))  # after 2106
    os.utime("d6/f20", ns=(0, 0))


def attributes(path):
    values = []
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        names = []
    for name in sorted(names):
        values.append("%s=%s" % (name, os.getxattr(path, name, follow_symlinks=False).hex()))
    return values


def contents(path, size):
    """A digest of the bytes and where they are; zeros are left out, whether the file system keeps them or not."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        offset = 0
        while offset < size:
            try:
                offset = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            block = os.pread(file.fileno(), 4096 - offset % 4096, offset)
            if block.strip(b"\0"):
                digest.update(b"%d:" % (offset // 4096) + (b"\0" * (offset % 4096) + block).ljust(4096, b"\0"))
            offset += len(block)
    return digest.hexdigest()


def show(top):
    os.chdir(top)
    groups = {}
    for folder, directories, files in os.walk(b"."):
        directories.sort()
        for name in sorted(directories + files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            words = [repr(path), "%o" % status.st_mode, "%d:%d" % (status.st_uid, status.st_gid), "time=%d" % status.st_mtime_ns]
            if kind != stat.S_IFDIR:
                # Names of one inode say the same first name.
                words.append("links=%d of %r" % (status.st_nlink, groups.setdefault((status.st_dev, status.st_ino), path)))
            if kind in (stat.S_IFCHR, stat.S_IFBLK):
                words.append("device=%d:%d" % (os.major(status.st_rdev), os.minor(status.st_rdev)))
            if kind == stat.S_IFLNK:
                words.append("to=%r" % os.readlink(path))
            if kind == stat.S_IFREG:
                words.append("size=%d sha256=%s" % (status.st_size, contents(path, status.st_size)))
            print(*words, *attributes(path))


if __name__ == "__main__":
    {"make": make, "show": show}[sys.argv[1]](sys.argv[2])
