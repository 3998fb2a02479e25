"""The file systems that ./dev bench compares: each can be mounted, asked which processes serve it, and taken away.

Nothing is left behind: what a system makes is registered with the Bench that owns it before it is made, and undone in
reverse, also after Ctrl-C. Daemons are in sessions of their own, so that a terminal's Ctrl-C reaches only the bench,
which then ends them in order. Every server listens on 127.0.0.1 or on a unix socket.
"""
import contextlib
import getpass
import gzip
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "build/release"
OUT = ROOT / "build/bench"
BIN = RELEASE / "bin"
PROGRAMS = RELEASE / "bench"
EXAMPLES = Path("/usr/share/doc/libfuse3-dev/examples")
POOL = "2G"              # of each memory node
COPY_MIB = 1024          # what the copying floor copies to and from
EXT4_BYTES = 3 << 30


class Failed(Exception):
    pass


def say(text):
    print(text, flush=True)


def run(*command, timeout=300, env=None, cwd=None):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=timeout, check=False, env=env, cwd=cwd)
    if done.returncode != 0:
        raise Failed(f"{' '.join(str(word) for word in command)}: status {done.returncode}: "
                     f"{(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


class Daemon:
    """A process of ours, ended by its own pid."""

    def __init__(self, name, *command, env=None, pass_fds=()):
        self.log = OUT / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, env=env, pass_fds=pass_fds, start_new_session=True)

    @property
    def pid(self):
        return self.process.pid

    def require_alive(self):
        if self.process.poll() is not None:
            raise Failed(f"{self.process.args[0]} ended: {self.log.read_text()[-400:].strip()}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def is_mounted(path):
    return any(line.split()[1] == str(path) for line in Path("/proc/self/mounts").read_text().splitlines())


def wait_until(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: nothing after {seconds} s")
        time.sleep(0.02)


def unmount(path):
    for _ in range(50):
        if not is_mounted(path):
            return
        if subprocess.run(["umount", str(path)], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise Failed(f"{path} cannot be unmounted")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children_of(pids):
    """The processes themselves and all that descend from them."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found = set(pids)
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def processor_seconds(pids, threads=""):
    """What the threads (whose names begin with `threads`) of these processes have used; exact to the nanosecond."""
    nanoseconds = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            with contextlib.suppress(OSError):
                if (task / "comm").read_text().startswith(threads):
                    nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


class Bench:
    """Temporary directories on the local disk (`disk`) and in memory (`memory`), and what is to be undone."""

    def __init__(self):
        self.undo = contextlib.ExitStack()
        self.disk = self.directory(None)
        self.memory = self.directory("/dev/shm")

    def directory(self, where):
        path = Path(tempfile.mkdtemp(prefix="rmemfs-bench.", dir=where))
        self.undo.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Cleaning up is not interrupted.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.undo.close()
        except (Failed, subprocess.TimeoutExpired, OSError) as problem:
            say(f"  cleaning up: {problem}")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def daemon(self, name, *command, **more):
        daemon = Daemon(name, *command, **more)
        self.undo.callback(daemon.stop)
        return daemon

    def mount_point(self, name):
        path = self.disk / name
        path.mkdir()
        self.undo.callback(unmount, path)
        return path


class System:
    """One file system of a comparison."""
    name = ""
    checked = True     # it keeps what is written
    slow = False       # it gets fewer operations
    few_files = False  # it cannot serve many files at once: it gets small trees and directories
    backing = None     # where its files are, if they can be made there directly

    def __init__(self, bench):
        self.bench = bench
        self.roots = []      # processes that serve it, without their descendants

    def processor(self):
        return processor_seconds(children_of(self.roots))


class Null(System):
    """bench/nullfs: our lanes and adapter, and nothing below."""
    name = "floor"
    checked = False

    def __init__(self, bench, lanes=None, copy_mib=None, name="floor"):
        super().__init__(bench)
        self.name, label = name, name.replace(" ", "-").replace(",", "")
        self.directory = bench.directory(None)
        self.mount_point = bench.mount_point(label)
        options = (["-l", lanes] if lanes else []) + (["-c", copy_mib] if copy_mib else [])
        daemon = bench.daemon(f"nullfs-{label}", PROGRAMS / "nullfs", *options, self.directory, self.mount_point)
        wait_until("nullfs", lambda: daemon.require_alive() or is_mounted(self.mount_point))
        self.roots = [daemon.pid]


class Passthrough(System):
    """libfuse's passthrough_ll, its defaults, on a directory of tmpfs."""
    name = "passthrough_ll"

    def __init__(self, bench):
        super().__init__(bench)
        self.compile()
        self.backing = bench.memory / "passthrough"
        self.backing.mkdir()
        self.mount_point = bench.mount_point("passthrough")
        # It holds a descriptor for every file that the kernel knows.
        descriptors = self.most_descriptors()
        self.few_files = descriptors < 250000
        daemon = bench.daemon("passthrough_ll", "prlimit", f"--nofile={descriptors}:{descriptors}", OUT / "passthrough_ll",
                              "-f", "-o", f"source={self.backing}", self.mount_point)
        wait_until("passthrough_ll", lambda: daemon.require_alive() or is_mounted(self.mount_point))
        self.roots = [daemon.pid]

    @staticmethod
    def most_descriptors():
        """What the kernel allows, where this process may raise its limit; what it has otherwise."""
        most = int(Path("/proc/sys/fs/nr_open").read_text())
        if subprocess.run(["prlimit", f"--nofile={most}:{most}", "true"], stderr=subprocess.DEVNULL,
                          check=False).returncode == 0:
            return most
        return resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    @staticmethod
    def compile():
        for name in ("passthrough_ll.c", "passthrough_helpers.h"):
            plain, packed = EXAMPLES / name, EXAMPLES / (name + ".gz")
            if plain.exists():
                shutil.copy(plain, OUT / name)
            elif packed.exists():
                (OUT / name).write_bytes(gzip.decompress(packed.read_bytes()))
            else:
                raise Failed(f"{plain} is missing: libfuse3-dev brings it unless dpkg was told to leave out documents "
                             "(see /etc/dpkg/dpkg.cfg.d); then reinstall libfuse3-dev without that rule")
        flags = run("pkg-config", "--cflags", "--libs", "fuse3").split()
        run("gcc", "-O2", "-w", OUT / "passthrough_ll.c", "-o", OUT / "passthrough_ll", *flags)


GLUSTER_BRICK = """
volume posix
  type storage/posix
  option directory {brick}
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume io-threads
  type performance/io-threads
  subvolumes locks
end-volume
volume brick
  type debug/io-stats
  option unique-id brick
  subvolumes io-threads
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port {port}
  option transport.socket.nodelay on
  option auth.addr.brick.allow 127.0.0.1
  subvolumes brick
end-volume
"""
# What glusterd writes for a volume of one brick.
GLUSTER_CLIENT = """
volume client
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port {port}
  option remote-subvolume brick
  option transport.socket.nodelay on
end-volume
volume dht
  type cluster/distribute
  subvolumes client
end-volume
volume write-behind
  type performance/write-behind
  subvolumes dht
end-volume
volume open-behind
  type performance/open-behind
  subvolumes write-behind
end-volume
volume quick-read
  type performance/quick-read
  subvolumes open-behind
end-volume
volume md-cache
  type performance/md-cache
  subvolumes quick-read
end-volume
"""


class Gluster(System):
    """GlusterFS: one brick on tmpfs, one process for it and one for the mount, volume files by hand."""
    name = "GlusterFS"
    slow = True

    def __init__(self, bench):
        super().__init__(bench)
        brick, port = bench.memory / "brick", free_port()
        brick.mkdir()
        self.mount_point = bench.mount_point("gluster")
        brick_file, client_file = bench.disk / "brick.vol", bench.disk / "client.vol"
        brick_file.write_text(GLUSTER_BRICK.format(brick=brick, port=port))
        client_file.write_text(GLUSTER_CLIENT.format(port=port))
        server = bench.daemon("gluster-brick", "glusterfsd", "-N", "-f", brick_file, "-l", OUT / "gluster-brick.txt")
        wait_until("the brick's port", lambda: server.require_alive() or not self.refused(port))
        client = bench.daemon("gluster-client", "glusterfs", "-N", "-f", client_file, "-l", OUT / "gluster-client.txt",
                              self.mount_point)
        wait_until("GlusterFS", lambda: client.require_alive() or is_mounted(self.mount_point))
        self.roots = [server.pid, client.pid]

    @staticmethod
    def refused(port):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0


class Sshfs(System):
    """sshfs through an sshd of its own, with its own keys, over loopback."""
    name = "sshfs"
    slow = True

    def __init__(self, bench):
        super().__init__(bench)
        self.backing, keys, port = bench.memory / "sshfs", bench.disk / "keys", free_port()
        self.backing.mkdir()
        keys.mkdir(mode=0o700)
        for name in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name)
        config = keys / "sshd_config"
        config.write_text(f"Port {port}\nListenAddress 127.0.0.1\nHostKey {keys}/host\n"
                          f"AuthorizedKeysFile {keys}/user.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
                          "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
                          "Subsystem sftp internal-sftp\n")
        Path("/run/sshd").mkdir(exist_ok=True)   # sshd's empty directory, which its service makes at start
        server = bench.daemon("sshd", *self.sshd(bench), "-D", "-e", "-f", config)
        wait_until("sshd", lambda: server.require_alive() or not Gluster.refused(port))
        self.mount_point = bench.mount_point("sshfs-mount")
        options = (f"port={port},IdentityFile={keys}/user,UserKnownHostsFile=/dev/null,StrictHostKeyChecking=no,"
                   "LogLevel=ERROR,IdentitiesOnly=yes")
        client = bench.daemon("sshfs", "sshfs", "-f", "-o", options, f"{getpass.getuser()}@127.0.0.1:{self.backing}",
                              self.mount_point)
        wait_until("sshfs", lambda: client.require_alive() or is_mounted(self.mount_point))
        self.roots = [server.pid, client.pid]

    @staticmethod
    def sshd(bench):
        """sshd as installed; or as ./dev unpacked it, which then sees its user in a passwd of its own."""
        installed, unpacked = Path("/usr/sbin/sshd"), OUT / "openssh-server/usr/sbin/sshd"
        if installed.exists():
            return [installed]
        passwd = bench.disk / "passwd"
        passwd.write_text(Path("/etc/passwd").read_text() + "sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin\n")
        return ["unshare", "--mount", "sh", "-c", f'mount --bind {passwd} /etc/passwd && exec {unpacked} "$@"', "sshd"]


class Tmpfs(System):
    name = "tmpfs"

    def __init__(self, bench):
        super().__init__(bench)
        self.mount_point = bench.memory / "tmpfs"
        self.mount_point.mkdir()


class Ext4(System):
    """ext4 on a loop device over a file on the local disk."""
    name = "ext4"

    def __init__(self, bench):
        super().__init__(bench)
        image = bench.disk / "ext4.img"
        with image.open("wb") as file:
            file.truncate(EXT4_BYTES)
        run("/sbin/mkfs.ext4", "-q", "-F", image)
        self.mount_point = bench.mount_point("ext4")
        run("mount", "-o", "loop", image, self.mount_point)


class Rmemfs(System):
    """A mount of ours, its node a process of its own over `transport` (shm or tcp).

    journal "memory": the journal is on tmpfs and libpmem is told to take it for persistent memory, so that it costs
    what it costs there (PMEM_IS_PMEM_FORCE); "file": it is an ordinary file beside the store, on the local disk.
    """

    def __init__(self, bench, name, transport="shm", journal="memory", options="", pool=POOL, pool_path=None):
        super().__init__(bench)
        self.name, label = name, name.replace(" ", "-").replace(",", "")
        self.directory = bench.disk / f"{label}-fs"
        self.options = options
        self.env = dict(os.environ)
        if journal == "memory":
            self.env["PMEM_IS_PMEM_FORCE"] = "1"
        pool_path = pool_path or bench.memory / f"{label}.pool"
        if transport == "shm":
            path = bench.disk / f"{label}.sock"
            listen, address = f"unix:{path}", f"shm:{path}"
        else:
            listen = address = f"tcp://127.0.0.1:{free_port()}"
        ready, theirs = os.pipe()
        try:
            self.node = bench.daemon(f"rmemd-{label}", BIN / "rmemd", "--size", pool, "--pool", pool_path, "--listen",
                                     listen, "--ready-fd", theirs, pass_fds=[theirs])
        finally:
            os.close(theirs)
        os.read(ready, 1)
        os.close(ready)
        self.node.require_alive()
        place = ["--journal", bench.memory / f"{label}.journal"] if journal == "memory" else []
        run(BIN / "mkfs.rmemfs", *place, "--node", address, self.directory, env=self.env)
        self.mount_point = bench.mount_point(label)
        bench.undo.callback(self.wait_unlocked)
        bench.undo.callback(unmount, self.mount_point)
        self.mount()

    def mount(self):
        began = time.perf_counter()
        run(BIN / "rmemfs", *(["-o", self.options] if self.options else []), self.directory, self.mount_point,
            env=self.env)
        seconds = time.perf_counter() - began
        self.roots = [self.pid(), self.node.pid]
        return seconds

    def wait_unlocked(self):
        """The daemon lets go of the directory's lock once it has put its metadata in order."""
        wait_until("rmemfs's end", lambda: subprocess.run(["flock", "-n", str(self.directory / "lock"), "true"],
                                                          check=False).returncode == 0)

    def unmount(self):
        unmount(self.mount_point)
        self.wait_unlocked()

    def kill(self):
        os.kill(self.pid(), signal.SIGKILL)
        self.wait_unlocked()
        run("umount", "-l", self.mount_point)

    def pid(self):
        return int(json.loads(run(BIN / "rmemctl", "status", "--json", self.directory))["pid"])


def statistics_of(system):
    """Counters of a mount with rmemctl's socket (rmemfs and nullfs), by name."""
    text = run(BIN / "rmemctl", "stats", system.directory)
    return {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if len(line.split()) == 2}
