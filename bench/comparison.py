"""The mounts side by side: every kind of work on every file system, in rounds, and the limits on their ratios.

Within a round each work runs on all of them in turn, and a ratio is made of two runs of one round only; the figure is
the median of the rounds' ratios. The floor runs first and last in each turn: how far its two runs differ says how noisy
the machine was. A verdict whose limit lies between the rounds' smallest and largest ratio is "unsure" when that noise is
above NOISY. GlusterFS, sshfs and the kernel's own file systems take part in two rounds only, the two slow ones with
fewer operations; ratios are of the time per operation.
"""
import json
import math
import os
import resource
import statistics
import subprocess
import tarfile
import io
import time
from dataclasses import dataclass, field
from pathlib import Path

from systems import (COPY_MIB, PROGRAMS, Bench, Ext4, Failed, Gluster, Null, Passthrough, Rmemfs, Sshfs, Tmpfs, run, say,
                     statistics_of)

NOISY = 1.15             # median factor between two runs of the floor in one round
FLOOR, COPYING, PASSTHROUGH, GLUSTER, SSHFS = "floor", "floor, copying", "passthrough_ll", "GlusterFS", "sshfs"
SHM, TCP, FILE = "rmemfs shm", "rmemfs tcp", "rmemfs shm, journal on a file"
ALL_ROUNDS = (FLOOR, COPYING, PASSTHROUGH, SHM, TCP, FILE)
SMALL_FILES = 20000


@dataclass
class Work:
    key: str
    title: str
    kind: str                # metadata, small (4 KiB), bandwidth, append, untar
    count: int = 0
    slow_count: int = 0
    arguments: tuple = ()    # of bench_mount
    work: str = ""           # of bench_mount, if not the key
    forget: bool = False     # the kernel forgets names, attributes and pages before
    only: tuple = ()         # systems, if not all
    without: tuple = ()


def metadata(name, title, **more):
    return [Work(name, title, "metadata", 4000, 500, **more),
            Work(name + "_8", title + ", 8 processes", "metadata", 8000, 800, ("-p", 8), work=name, **more)]


def small(name, title, depths=(1, 4, 32), **more):
    return [Work(f"{name}_q{depth}", f"{title}, depth {depth}", "small", 5000, 1000, ("-q", depth), work=name, **more)
            for depth in depths]


# In the order of their needs; each inner list is done by one system after the other before the next begins.
WORKS = [
    # passthrough_ll holds a descriptor for what the kernel knows: it is made to forget before more is made.
    *[list(works) for works in zip(metadata("create", "create", forget=True), metadata("rename", "rename"),
                                   metadata("unlink", "unlink"))],
    *[[work] for work in metadata("stat", "stat, cold", forget=True)],
    *[[work] for work in metadata("stat_warm", "stat, warm")],
    *[[work] for work in metadata("open_read", "open, read 4 KiB, close, cold", forget=True)],
    [Work("readdir", "readdir, per name", "metadata", 100000, 3000, forget=True)],
    [Work("append", "append 4 KiB, fsync", "append", 1000, 300)],
    *[[work] for work in small("random_read", "4 KiB direct read")],
    *[[work] for work in small("random_write", "4 KiB direct write")],
    [Work("mmap_read", "4 KiB of a mapping, cold", "small", 4000, 1000)],
    # 1 GiB is made and removed again before the next system's turn, so that one such file is there at a time.
    [Work("write", "write 1 GiB, fsync", "bandwidth", 1024, 256),
     Work("read", "read 1 GiB, cold", "bandwidth", 1024, 256), Work("remove", "", "")],
    [Work("untar", "untar small files, per file", "untar", SMALL_FILES, 2000, forget=True, without=(COPYING,)),
     Work("rm_r", "rm -r of them, per file", "metadata", SMALL_FILES, 2000, without=(COPYING,))],
    [Work("git_status", "git status, cold, per file", "metadata", SMALL_FILES, 2000, forget=True, without=(COPYING,))],
    [Work("du", "du, cold, per file", "metadata", SMALL_FILES, 2000, forget=True, without=(COPYING,))],
]
QUICK = {"metadata": 8, "small": 5, "append": 5, "bandwidth": 8, "untar": 10}   # counts are divided by this


@dataclass
class Sample:
    seconds: float           # per operation
    p50: float = 0.0         # microseconds
    p99: float = 0.0
    cpu: float = 0.0         # seconds per operation: program, daemon and node


@dataclass
class Limit:
    work: Work
    system: str
    against: str
    text: str                # what the ratio is
    bound: float
    at_least: bool           # or at most
    values: list = field(default_factory=list)


def limits():
    """Issue by issue: what a work on one of ours has to reach. (system, against, at least, bound) by kind of work."""
    out = []
    for work in (one for group in WORKS for one in group if one.kind):
        def add(system, against, text, bound, at_least, of=work):
            out.append(Limit(of, system, against, text, bound, at_least))
        if work.kind == "bandwidth":
            add(SHM, COPYING, "speed / floor that copies", 0.8, True)
        elif work.kind == "append":
            add(SHM, FLOOR, "time / floor", 1.5, False)
        elif work.kind != "untar":
            add(SHM, FLOOR, "time / floor", 1.25, False)
        four = work.key in ("create", "rename", "unlink")
        half = work.key in ("random_read_q1", "random_write_q1")
        add(SHM, PASSTHROUGH, "speed / passthrough_ll", 4 if four else 2.5 if half else 3 if work.kind == "untar" else 1,
            True)
        if work.key.startswith("stat_warm"):
            continue     # the kernel answers, whoever mounted
        for peer in (GLUSTER, SSHFS):
            if work.key.startswith("create"):
                bound = 20
            else:
                bound = {"metadata": 10, "untar": 10, "small": 4, "append": 4, "bandwidth": 3}[work.kind]
            add(TCP, peer, f"speed / {peer}", bound, True)
    return out


def forget_everything():
    """The kernel drops its dentries, inodes and pages (those that are not dirty, which is nobody's here)."""
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


class Tree:
    """Archives of many small files, and a git repository of them per system whose .git is in memory."""

    def __init__(self, bench, quick):
        self.bench, self.quick = bench, quick
        self.env = {**os.environ, "HOME": str(bench.disk), "GIT_CONFIG_NOSYSTEM": "1"}

    @staticmethod
    def work(key):
        return next(one for group in WORKS for one in group if one.key == key)

    def archive_for(self, system):
        count = count_of(self.work("untar"), system, self.quick)
        path = self.bench.memory / f"{count}.tar"
        if path.exists():
            return path
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for i in range(count):
                if i % 100 == 0:
                    folder = tarfile.TarInfo(f"d{i // 100}")
                    folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, 1500000000
                    tar.addfile(folder)
                content = (f"file {i} " * 1000)[:1024 + (i * 7919) % 7168].encode()
                one = tarfile.TarInfo(f"d{i // 100}/f{i}")
                one.size, one.mode, one.mtime = len(content), 0o644, 1500000000
                tar.addfile(one, io.BytesIO(content))
        return path

    def untar(self, system, name):
        place = system.mount_point / name
        place.mkdir()
        self.timed_untar(system, place)

    def timed_untar(self, system, place):
        run("tar", "-x", "--no-same-owner", "-f", self.archive_for(system), "-C", place)

    def git(self, system, *words):
        return run("git", f"--git-dir={self.bench.memory}/{system.name.replace(' ', '-')}.git",
                   f"--work-tree={system.mount_point}/kept", *words, env=self.env)

    def prepare(self, system):
        self.untar(system, "kept")
        self.git(system, "init", "-q")
        self.git(system, "config", "gc.auto", "0")
        self.git(system, "add", "-A")

    def command(self, key, system):
        """Seconds that the whole command took, its processes included."""
        if key == "untar":
            place = system.mount_point / "unpacked"
            place.mkdir()
            self.archive_for(system)
            act = lambda: self.timed_untar(system, place)
        elif key == "rm_r":
            act = lambda: run("rm", "-r", system.mount_point / "unpacked")
        elif key == "du":
            act = lambda: run("du", "-s", system.mount_point / "kept")
        else:
            act = lambda: self.git(system, "status", "--porcelain")
        before, began = children_seconds(), time.perf_counter()
        said = act()
        seconds = time.perf_counter() - began
        if key == "git_status" and "\n D " in "\n" + said:
            raise Failed(f"{system.name}: git misses files: {said[:200]}")
        return seconds, children_seconds() - before


def children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def count_of(work, system, quick):
    if system.slow or (system.few_files and work.count >= SMALL_FILES):
        return work.slow_count
    return max(work.count // QUICK[work.kind], 80) if quick else work.count


class Comparison:
    def __init__(self, bench, quick):
        self.bench, self.quick = bench, quick
        self.systems, self.samples, self.requests = [], {}, {}

    def takes_part(self, work, system):
        if system.name == COPYING and work.kind not in ("bandwidth", ""):
            return False
        return system.name not in work.without and (not work.only or system.name in work.only)

    def set_up(self):
        makers = [Null, lambda b: Null(b, copy_mib=COPY_MIB, name=COPYING), Passthrough, lambda b: Rmemfs(b, SHM),
                  lambda b: Rmemfs(b, TCP, "tcp"), lambda b: Rmemfs(b, FILE, "shm", "file")]
        if not self.quick:
            makers += [Gluster, Sshfs, Tmpfs, Ext4]
        self.systems = [make(self.bench) for make in makers]
        say(f"  mounted: {', '.join(system.name for system in self.systems)}")
        self.tree = Tree(self.bench, self.quick)
        big = 64 if self.quick else 256
        for system in self.systems:
            if system.name == COPYING:
                continue
            for key in ("stat", "stat_8"):
                work = Tree.work(key)
                self.bench_mount(system, "prepare", count_of(work, system, self.quick), work.arguments)
            self.bench_mount(system, "prepare_big", 64 if system.slow else big)
            self.make_many(system)
            self.tree.prepare(system)
        say("  files made")

    def make_many(self, system):
        count = count_of(Tree.work("readdir"), system, self.quick)
        if system.backing is None:
            self.bench_mount(system, "make_many", count)
        else:
            run(PROGRAMS / "bench_mount", system.backing, "make_many", count)

    def bench_mount(self, system, work, count, arguments=()):
        unchecked = [] if system.checked else ["-u"]
        return json.loads(run(PROGRAMS / "bench_mount", *unchecked, *arguments, system.mount_point, work, count))

    def measure(self, system, work):
        if work.key == "remove":
            (system.mount_point / "sequential").unlink()
            return None
        count = count_of(work, system, self.quick)
        before = system.processor()
        if work.kind == "untar" or work.key in ("rm_r", "du", "git_status"):
            seconds, cpu = self.tree.command(work.key, system)
            p50 = p99 = 0.0
        else:
            one = self.bench_mount(system, work.work or work.key, count, work.arguments)
            count, seconds, cpu, p50, p99 = (one[name] for name in ("operations", "seconds", "cpu_s", "p50_us", "p99_us"))
        return Sample(seconds / count, p50, p99, (cpu + system.processor() - before) / count)

    def turn(self, number, group):
        """One round of one group of works on all systems that take part."""
        both = [one for one in self.systems if one.name in ALL_ROUNDS or number in (0, 2)]
        others = [one for one in both if one.name != FLOOR]
        shift = number % len(others)
        floor = self.systems[0]
        order = [floor, *others[shift:], *others[:shift], floor]
        seen = set()
        for system in order:
            for work in group:
                if not self.takes_part(work, system):
                    continue
                # Nobody's work makes the kernel learn names of another system: once for all, and for the second floor.
                if work.forget and system is floor:
                    forget_everything()
                if work.key.startswith("stat_warm"):
                    # What the kernel does not know yet is asked for now, when nothing is counted.
                    self.bench_mount(system, "stat", count_of(work, system, self.quick), work.arguments)
                counting = number == 0 and system.name in (FLOOR, SHM) and system.name not in seen
                before = statistics_of(system) if counting and work.kind else {}
                sample = self.measure(system, work)
                if before:
                    after = statistics_of(system)
                    self.requests[work.key, system.name] = {name: after[name] - before[name] for name in after
                                                            if name in before}
                if sample is not None:
                    name = "floor again" if system.name in seen else system.name
                    self.samples.setdefault((work.key, name), {})[number] = sample
            seen.add(system.name)

    def rounds(self, most, seconds):
        """As many rounds as there is time for, at least three."""
        began = time.monotonic()
        done = 0
        while done < most and (done < 3 or (time.monotonic() - began) * (done + 1) / done <= seconds):
            for group in WORKS:
                self.turn(done, group)
            done += 1
            say(f"  round {done}: {time.monotonic() - began:.0f} s")
        return done

    # What came out.
    def pairs(self, key, one, other):
        a, b = self.samples.get((key, one), {}), self.samples.get((key, other), {})
        return [(a[number], b[number]) for number in sorted(a) if number in b]

    def noise(self, key):
        ratios = [abs(math.log(a.seconds / b.seconds)) for a, b in self.pairs(key, FLOOR, "floor again")]
        return math.exp(statistics.median(ratios)) if ratios else None

    def floor_seconds(self, key, number):
        runs = [self.samples[key, name][number].seconds for name in (FLOOR, "floor again")
                if number in self.samples.get((key, name), {})]
        return sum(runs) / len(runs)

    def ratios(self, limit):
        """Time ratios, or speed ratios when more is better."""
        out = []
        ours, theirs = self.samples.get((limit.work.key, limit.system), {}), \
            self.samples.get((limit.work.key, limit.against), {})
        for number in sorted(ours):
            if number not in theirs:
                continue
            base = self.floor_seconds(limit.work.key, number) if limit.against == FLOOR else theirs[number].seconds
            ratio = ours[number].seconds / base
            out.append(1 / ratio if limit.at_least else ratio)
        return out

    def verdict(self, limit, values):
        ratio = statistics.median(values)
        good = [value >= limit.bound if limit.at_least else value <= limit.bound for value in values]
        ok = ratio >= limit.bound if limit.at_least else ratio <= limit.bound
        noise = self.noise(limit.work.key)
        if noise is not None and noise > NOISY and any(good) and not all(good):
            return None
        return ok

    def judged(self):
        out = []
        for limit in limits():
            values = self.ratios(limit)
            if values:
                out.append((limit, values, self.verdict(limit, values)))
        return out

    def median(self, key, system, what="seconds"):
        samples = self.samples.get((key, system), {})
        return statistics.median(getattr(one, what) for one in samples.values()) if samples else None


def requests_equal(comparison):
    """The kernel's requests by kind of each work on the floor and on rmemfs over shm: they must be the same, or the floor
    is none. FORGETs come when the kernel likes and are left out; so is what a work that reads a different amount ahead
    may differ in by a few."""
    lines, different = [], []
    for group in WORKS:
        for work in group:
            ours, floor = (comparison.requests.get((work.key, name)) for name in (SHM, FLOOR))
            if not ours or not floor:
                continue
            kinds = [name for name in ours if name.startswith("requests.") and name != "requests.forget"]
            text = ", ".join(f"{name.split('.')[1]} {ours[name]:.0f}" +
                             (f" (floor {floor[name]:.0f})" if floor[name] != ours[name] else "")
                             for name in kinds if ours[name] or floor[name])
            lines.append(f"  {work.title}: {text or 'none'}")
            total = sum(ours[name] for name in kinds)
            if sum(abs(ours[name] - floor[name]) for name in kinds) > 0.02 * total + 8:
                different.append(work.title)
    return lines, different
