#!/usr/bin/python3
"""./dev bench: measures what has a limit, prints one table, writes build/bench/results.json.

Its parts (name one or more to run only those; --quick: fewer operations and rounds):
  journal    bench_journal      what a transaction costs
  transport  bench_transport    operations against memcpy and a bare ping-pong
  mount      two mounts of rmemfs, its node over shm and over tcp, against libfuse's own passthrough_ll on tmpfs
  --vm       rmemctl ping over RDMA against perftest, both in one guest with soft-RoCE (tests/vm/run-vm), and nothing
             else; it is an emulator, so its figures say nothing, its ratios something

Every limit is a ratio within one run, because absolute figures are the machine's. The mount comparison runs each kind of
work on the three mounts in turn, round after round, takes the ratio within each round, and reports their median with the
smallest and largest: how noisy it was stands beside it.
"""
import gzip
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "build/release"
OUT = ROOT / "build/bench"
BIN = RELEASE / "bin"
EXAMPLES = Path("/usr/share/doc/libfuse3-dev/examples")
SPEED_LIMIT = 0.7        # of passthrough_ll's speed, at least
INODE_LIMIT = 1024       # bytes of resident memory per cached inode, at most
# work, count, count with --quick; in the order of their needs
WORKS = [("prepare", 4000, 1000), ("stat", 4000, 1000), ("stat_twice", 4000, 1000), ("open_read", 4000, 1000),
         ("create", 4000, 1000), ("rename", 4000, 1000), ("unlink", 4000, 1000), ("write", 256, 64), ("read", 256, 64),
         ("random_read", 10000, 2000), ("random_write", 10000, 2000)]
NAMES = {"prepare": "create and write 4 KiB", "stat": "stat, cold", "stat_twice": "stat, warm",
         "open_read": "open + read 4 KiB", "create": "create", "rename": "rename", "unlink": "unlink",
         "write": "sequential write", "read": "sequential read, cold", "random_read": "random 4 KiB direct read",
         "random_write": "random 4 KiB direct write"}
UNJUDGED = {"prepare"}   # shown without a limit
VM_BANDWIDTH_LIMIT = 0.9  # of perftest's, at least
VM_LATENCY_LIMIT = 1.2    # of perftest's, at most


class Failed(Exception):
    pass


def say(text):
    print(text, flush=True)


def run(*command, timeout=120):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(str(word) for word in command)}: status {done.returncode}: "
                     f"{(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


class Daemon:
    """A process of ours, ended by its own pid."""

    def __init__(self, name, *command):
        self.log = OUT / f"{name}.log"
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                        stdout=self.log.open("w"), stderr=subprocess.STDOUT)

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
        if subprocess.run(["fusermount3", "-u", str(path)], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise Failed(f"{path} cannot be unmounted")


class Passthrough:
    """libfuse's passthrough_ll, its defaults, on a directory of tmpfs."""
    name = "passthrough_ll"

    def __init__(self, work):
        self.backing = Path(tempfile.mkdtemp(prefix="rmemfs-bench.", dir="/dev/shm"))
        self.mount_point = work / "passthrough"
        self.mount_point.mkdir()
        self.program = OUT / "passthrough_ll"
        self.daemon = None

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

    def mount(self):
        self.daemon = Daemon("passthrough_ll", self.program, "-f", "-o", f"source={self.backing}", self.mount_point)
        wait_until("passthrough_ll", lambda: self.daemon.require_alive() or is_mounted(self.mount_point))

    def unmount(self):
        unmount(self.mount_point)
        if self.daemon is not None:
            self.daemon.process.wait(10)

    def close(self):
        try:
            self.unmount()
        finally:
            if self.daemon is not None:
                self.daemon.stop()
            shutil.rmtree(self.backing, ignore_errors=True)


class Rmemfs:
    """A mount of ours, its node a process of its own over `transport`."""

    def __init__(self, work, transport):
        self.name = f"rmemfs, {transport}"
        self.directory, self.mount_point = work / f"{transport}-fs", work / f"{transport}-mnt"
        self.mount_point.mkdir()
        self.pool = Path(f"/dev/shm/rmemfs-bench.{os.getpid()}.{transport}")
        if transport == "shm":
            path = work / "node.sock"
            listen, self.address = f"unix:{path}", f"shm:{path}"
        else:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                listen = self.address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        ready, theirs = os.pipe()
        log = (OUT / f"rmemd-{transport}.log").open("w")
        self.node = subprocess.Popen([str(BIN / "rmemd"), "--size", "2G", "--pool", str(self.pool), "--listen", listen,
                                      "--ready-fd", str(theirs)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     pass_fds=[theirs])
        os.close(theirs)
        os.read(ready, 1)
        os.close(ready)
        if self.node.poll() is not None:
            raise Failed(f"rmemd ended: {(OUT / f'rmemd-{transport}.log').read_text()[-400:].strip()}")
        run(BIN / "mkfs.rmemfs", "--node", self.address, self.directory)

    def mount(self):
        run(BIN / "rmemfs", self.directory, self.mount_point)

    def unmount(self):
        unmount(self.mount_point)
        # The daemon lets go of the directory's lock once it has put its metadata in order.
        wait_until("rmemfs's end", lambda: subprocess.run(["flock", "-n", str(self.directory / "lock"), "true"],
                                                          check=False).returncode == 0)

    def pid(self):
        return int(json.loads(run(BIN / "rmemctl", "status", "--json", self.directory))["pid"])

    def close(self):
        try:
            self.unmount()
        finally:
            if self.node.poll() is None:
                self.node.terminate()
                try:
                    self.node.wait(10)
                except subprocess.TimeoutExpired:
                    self.node.kill()
                    self.node.wait()
            self.pool.unlink(missing_ok=True)


def drop_caches(systems):
    """Makes the kernel forget names and attributes, as root at once, otherwise by mounting anew."""
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("2\n")
    except OSError:
        for system in systems:
            system.unmount()
            system.mount()


def resident_bytes(pid):
    """Memory that the process alone holds: mapped pools are not its own."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024


def row(part, name, value, unit, ratio=None, low=None, high=None, limit=None, ok=None):
    return {"part": part, "name": name, "value": value, "unit": unit, "ratio": ratio, "low": low, "high": high,
            "limit": limit, "ok": ok}


def compare_mounts(systems, quick):
    rounds = 3 if quick else 7
    seconds = {work: {system.name: [] for system in systems} for work, _, _ in WORKS}
    for number in range(rounds):
        order = systems if number % 2 == 0 else systems[::-1]
        for work, count, quick_count in WORKS:
            if work == "stat":
                drop_caches(systems)
            for system in order:
                text = run(RELEASE / "bench/bench_mount", system.mount_point, work, quick_count if quick else count)
                seconds[work][system.name].append(json.loads(text))
        say(f"  round {number + 1} of {rounds}")
    rows, base = [], systems[0].name
    for work, _, _ in WORKS:
        for system in systems[1:]:
            pairs = zip(seconds[work][base], seconds[work][system.name])
            ratios = [theirs["seconds"] / ours["seconds"] for theirs, ours in pairs]
            ours = seconds[work][system.name]
            if work in ("write", "read"):
                speed, unit = statistics.median(one["bytes"] / one["seconds"] / 1e6 for one in ours), "MB/s"
            else:
                speed, unit = statistics.median(one["operations"] / one["seconds"] for one in ours), "op/s"
            ratio, judged = statistics.median(ratios), work not in UNJUDGED
            rows.append(row(f"mount {system.name.split()[-1]}", NAMES[work], round(speed), unit, round(ratio, 2),
                            round(min(ratios), 2), round(max(ratios), 2), f">= {SPEED_LIMIT}" if judged else None,
                            ratio >= SPEED_LIMIT if judged else None))
    return rows


def measure_inodes(system, quick):
    """Growth of the mount daemon's memory while the kernel looks at many files that a fresh mount has never seen."""
    count = 20000 if quick else 100000
    run(RELEASE / "bench/bench_mount", system.mount_point, "create", count, timeout=300)
    system.unmount()
    system.mount()
    names = [str(system.mount_point / "made" / f"a{i}") for i in range(count)]
    for name in names[:1000]:
        os.stat(name)
    pid = system.pid()
    before = resident_bytes(pid)
    for name in names[1000:]:
        os.stat(name)
    growth = resident_bytes(pid) - before
    per_inode = growth / (count - 1000)
    return [row("memory", f"resident bytes per cached inode ({count})", round(per_inode), "bytes", None, None, None,
                f"<= {INODE_LIMIT}", per_inode <= INODE_LIMIT)]


def bench_mounts(quick):
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise Failed("/dev/fuse is missing or not ours to open, so no mount can be measured")
    work = Path(tempfile.mkdtemp(prefix="rmemfs-bench."))
    systems, rows = [], []
    try:
        Passthrough.compile()
        for make in (lambda: Passthrough(work), lambda: Rmemfs(work, "shm"), lambda: Rmemfs(work, "tcp")):
            systems.append(make())
            systems[-1].mount()
        rows += compare_mounts(systems, quick)
        rows += measure_inodes(systems[1], quick)
    finally:
        problems = []
        for system in systems:
            try:
                system.close()
            except (Failed, subprocess.TimeoutExpired, OSError) as problem:
                problems.append(str(problem))
        shutil.rmtree(work, ignore_errors=True)
        for problem in problems:
            say(f"  cleaning up: {problem}")
    return rows


def bench_program(part, program, *arguments):
    """Rows of a program that prints JSON lines: name, value, unit, ratio, limit, ok."""
    path = RELEASE / "bench" / program
    if not path.exists():
        raise Failed(f"{path.relative_to(ROOT)} was not built")
    done = subprocess.run([str(path), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=240, check=False)
    rows = []
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            one = json.loads(line)
            limit = one.get("limit")
            rows.append(row(part, one["name"].removeprefix(part + ": "), one.get("value"), one.get("unit", ""), one.get("ratio"), one.get("low"),
                            one.get("high"), f"<= {limit:g}" if isinstance(limit, (int, float)) else limit,
                            one.get("ok") if limit is not None else None))
    if not rows:
        raise Failed(f"{program} printed no figure (status {done.returncode}): {done.stderr.strip()[-300:]}")
    return rows


def bench_vm(quick):
    """Ratios of rmemctl ping to perftest within each round of bench/rdma_guest.sh."""
    rounds = 2 if quick else 5
    done = subprocess.run([str(ROOT / "tests/vm/run-vm"), "--timeout", str(120 + 60 * rounds), "--read", str(ROOT), "--",
                           "bash", str(ROOT / "bench/rdma_guest.sh"), str(BIN), str(rounds)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    (OUT / "vm.log").write_text(done.stdout)
    if done.returncode != 0:
        raise Failed(f"the guest ended with {done.returncode}: {done.stdout.strip()[-400:]}")
    figures = {}
    for line in done.stdout.splitlines():
        words = line.split()
        if len(words) == 5 and words[0] == "figure":
            figures[int(words[1]), words[2], words[3]] = float(words[4])
    rows = []
    for what, size in (("write_bw", "64 KiB"), ("read_bw", "64 KiB"), ("write_lat", "4 KiB"), ("read_lat", "4 KiB")):
        ours = [figures[number, "ours", what] for number in range(rounds)]
        ratios = [mine / figures[number, "perftest", what] for number, mine in enumerate(ours)]
        ratio, kind = statistics.median(ratios), what.split("_", maxsplit=1)[0]
        if what.endswith("bw"):
            name, value, unit = f"{kind} {size}, bandwidth / ib_{what}", statistics.median(ours) / 1e6, "MB/s"
            limit, ok = f">= {VM_BANDWIDTH_LIMIT}", ratio >= VM_BANDWIDTH_LIMIT
        else:
            name, value, unit = f"{kind} {size}, latency / ib_{what}", statistics.median(ours) * 1e6, "us"
            limit, ok = f"<= {VM_LATENCY_LIMIT}", ratio <= VM_LATENCY_LIMIT
        rows.append(row("vm", name, round(value, 1), unit, round(ratio, 2), round(min(ratios), 2), round(max(ratios), 2),
                        limit, ok))
    return rows


def machine():
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown processor")
    release = ".".join(os.uname().release.split(".")[:2])   # the rest names somebody's build of it
    return f"{os.cpu_count()} x {model}, Linux {release}, load {os.getloadavg()[0]:.1f} before"


def number(value):
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def print_table(rows, where):
    lines = ["| part | what | figure | ratio | min..max | limit | |", "|---|---|---:|---:|---|---|---|"]
    for one in rows:
        spread = f"{number(one['low'])}..{number(one['high'])}" if one["low"] is not None else ""
        verdict = {True: "ok", False: "MISSED", None: ""}[one["ok"]]
        lines.append(f"| {one['part']} | {one['name']} | {number(one['value'])} {one['unit']} | {number(one['ratio'])} | "
                     f"{spread} | {number(one['limit'])} | {verdict} |")
    text = "\n".join(lines)
    say(f"\n{where}\n\n{text}")
    return text


def main(arguments):
    # Each program's argument is how long it measures; none: its own choice.
    parts = {"journal": lambda quick: bench_program("journal", "bench_journal", *(["40"] if quick else [])),
             "transport": lambda quick: bench_program("transport", "bench_transport", *(["11"] if quick else [])),
             "mount": bench_mounts}
    quick = "--quick" in arguments
    if "--vm" in arguments:
        parts = {"vm": bench_vm}
    wanted = [word for word in arguments if word not in ("--quick", "--vm")]
    for word in wanted:
        if word not in parts:
            say(f"bench: there is no \"{word}\"; there are {', '.join(parts)}, --quick and --vm")
            return 2
    OUT.mkdir(parents=True, exist_ok=True)
    where, started, rows, errors = machine(), time.monotonic(), [], []
    for name in wanted or parts:
        say(f"measuring: {name}")
        try:
            rows += parts[name](quick)
        except (Failed, subprocess.TimeoutExpired, OSError, ValueError, KeyError) as error:
            errors.append(f"{name}: {error}")
    table = print_table(rows, where)
    for error in errors:
        say(f"not measured: {error}")
    missed = [one for one in rows if one["ok"] is False]
    say(f"{len(rows)} figures, {len(missed)} limits missed, {len(errors)} parts not measured, "
        f"{time.monotonic() - started:.0f} s; build/bench/results.json has them")
    (OUT / "results.json").write_text(json.dumps({"machine": where, "quick": quick, "rows": rows, "errors": errors},
                                                 indent=1) + "\n")
    (OUT / "table.md").write_text(f"{where}\n\n{table}\n")
    return 1 if missed or errors else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
