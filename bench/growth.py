"""Figures of rmemfs alone that must not grow: with files, with time, with lanes; and what a mount takes to begin."""
import json
import math
import re
import statistics
import time
from pathlib import Path

from comparison import NOISY
from report import row
from systems import PROGRAMS, Bench, Null, Rmemfs, children_of, processor_seconds, run, say, statistics_of

GROWTH_LIMIT = 1.2       # of the time per operation, with a hundred times as many files
INODE_LIMIT = 512        # bytes of resident memory per inode that the kernel has cached
LANES_LIMIT = 1.7        # of one lane's speed, with two and eight client processes
MOUNT_LIMIT = 1.0        # seconds
IDLE_LIMIT = 0.002       # of one processor, all threads of daemon and node together
IDLE_SECONDS = 5
FOLDERS, FILL_SECONDS = 10, 120


def bench_mount(system, work, count, *arguments, below="."):
    unchecked = [] if system.checked else ["-u"]
    return json.loads(run(PROGRAMS / "bench_mount", *unchecked, *arguments, system.mount_point / below, work, count))


def fill(system, count, seconds):
    """Makes up to `count` empty files in ten directories of four each; fewer where the machine is too slow for the time.
    Returns how many there are in each directory, and how many directories."""
    began, each = time.monotonic(), count // FOLDERS
    for number in range(FOLDERS):
        if number > 0 and (time.monotonic() - began) * (number + 1) / number > seconds:
            say(f"  {each * number} files made in {time.monotonic() - began:.0f} s; there is no time for {count}")
            return each, number
        (system.mount_point / f"g{number}").mkdir()
        bench_mount(system, "create", each, "-p", 4, below=f"g{number}")
    return each, FOLDERS


def per_operation(one):
    return one["seconds"] / one["operations"]


def forget_names():
    """The kernel drops dentries and inodes, but keeps pages: the store's files stay in memory."""
    Path("/proc/sys/vm/drop_caches").write_text("2\n")


def resident_bytes(pid):
    """Memory that the process alone holds: mapped pools are not its own."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024


def judge_ratio(part, name, unit, value, ratios, limit, at_least, noise=None):
    """A row for paired runs; unsure as in comparison.py. Without the floor's noise, it is how far the ratios spread."""
    ratio = statistics.median(ratios)
    if noise is None:
        noise = math.exp(statistics.median(abs(math.log(one / ratio)) for one in ratios))
    good = [one >= limit if at_least else one <= limit for one in ratios]
    unsure = noise > NOISY and any(good) and not all(good)
    ok = None if unsure else (ratio >= limit if at_least else ratio <= limit)
    return row(part, name, value, unit, ratio, min(ratios), max(ratios), f"{'>=' if at_least else '<='} {limit}", ok, unsure)


def growth_of_files(bench, quick):
    """Few files against a hundred times as many, on two mounts in turn; then what hangs on having very many."""
    few, many = (2000, 50000) if quick else (10000, 1000000)
    rounds, operations = (3, 1000) if quick else (5, 4000)
    small, large = Rmemfs(bench, "rmemfs few", pool="256M"), Rmemfs(bench, "rmemfs many", pool="256M")
    fill(small, few, FILL_SECONDS)
    each, folders = fill(large, many, FILL_SECONDS)
    many = each * folders
    works = ["create", "rename", "unlink", "stat_made"]
    times = {work: {small.name: [], large.name: []} for work in works}
    for number in range(rounds):
        pair = [(small, few // FOLDERS), (large, each)]
        for work in works:
            if work == "stat_made":
                forget_names()
            for system, total in pair if number % 2 == 0 else pair[::-1]:
                if work == "stat_made":
                    one = bench_mount(system, work, min(operations, total), "-p", 4, "-n", total,
                                      below=f"g{number % folders}")
                else:
                    one = bench_mount(system, work, operations)
                times[work][system.name].append(per_operation(one))
    rows = []
    for work in works:
        name = {"stat_made": "stat, cold, 4 processes"}.get(work, work)
        ratios = [b / a for a, b in zip(times[work][small.name], times[work][large.name])]
        rows.append(judge_ratio("growth", f"{name}: time with {many} files / with {few}", "op/s",
                                1 / statistics.median(times[work][large.name]), ratios, GROWTH_LIMIT, False))
    return [*rows, crashed_mount(large, many, quick), inode_memory(large, each, folders)]


def crashed_mount(system, files, quick):
    """Killed with as much in the journal as a burst of creations leaves there, and mounted again."""
    bench_mount(system, "create", 2000 if quick else 20000, "-p", 8)
    counters = statistics_of(system)
    full = 1 - counters["journal.slots_free"] / counters["journal.slots_total"]
    system.kill()
    seconds = system.mount()
    return row("mount", f"after kill -9, {files} files, the journal {full:.0%} full", seconds, "s", None, None, None,
               f"<= {MOUNT_LIMIT}", seconds <= MOUNT_LIMIT)


def inode_memory(system, each, folders):
    """Growth of the daemon's memory while the kernel looks at files that this mount has never seen."""
    bench_mount(system, "stat_made", min(1000, each), "-p", 4, "-n", each, below="g0")
    before = resident_bytes(system.pid())
    looked_at = 0
    for number in range(1, min(folders, 3)):
        looked_at += bench_mount(system, "stat_made", each, "-p", 4, "-n", each, below=f"g{number}")["operations"]
    per_inode = (resident_bytes(system.pid()) - before) / looked_at
    return row("memory", f"resident bytes of the daemon per inode ({looked_at})", per_inode, "bytes", None, None, None,
               f"<= {INODE_LIMIT}", per_inode <= INODE_LIMIT)


def first_mount(bench, quick):
    """A file system of 64 GiB whose pool is a sparse file of a temporary directory: it takes no memory."""
    del quick
    system = Rmemfs(bench, "rmemfs first", pool="64G", pool_path=bench.disk / "first.pool")
    system.unmount()
    seconds = system.mount()
    rows = [row("mount", "an empty file system of 64 GiB", seconds, "s", None, None, None, f"<= {MOUNT_LIMIT}",
                seconds <= MOUNT_LIMIT)]
    return rows


def idle(bench, quick):
    """Mounts that nobody uses, the second one told to poll: asleep after its time."""
    rows = []
    for name, options in (("default", ""), ("poll=100us", "poll=100")):
        system = Rmemfs(bench, f"rmemfs idle {name.split('=', maxsplit=1)[0]}", options=options, pool="256M")
        bench_mount(system, "create", 500)
        time.sleep(2.5)   # what the creations left to do, group commit and journal
        roots = children_of(system.roots)
        before, lanes = processor_seconds(roots), processor_seconds(roots, "lane")
        seconds = 2 if quick else IDLE_SECONDS
        time.sleep(seconds)
        part = (processor_seconds(roots) - before) / seconds
        lanes = (processor_seconds(roots, "lane") - lanes) / seconds
        rows.append(row("idle", f"processor used by an idle mount, {name}; its lanes: {lanes * 100:.3f} %", part * 100, "%",
                        None, None, None, f"<= {IDLE_LIMIT * 100:g}", part <= IDLE_LIMIT))
    return rows


def lanes(bench, quick):
    """Two lanes against one with eight client processes, on rmemfs and, for what the machine gives, on the floor."""
    rounds, count = (3, 2000) if quick else (7, 8000)
    rows = []
    for name, make in (("rmemfs shm", lambda n: Rmemfs(bench, f"rmemfs lanes {n}", options=f"lanes={n}", pool="512M")),
                       ("floor", lambda n: Null(bench, lanes=n, name=f"floor lanes {n}"))):
        one, two = make(1), make(2)
        speeds = {work: [] for work in ("create", "stat", "open_read")}
        value = {}
        for system in (one, two):
            bench_mount(system, "prepare", count, "-p", 8)
        for number in range(rounds):
            for work, found in speeds.items():
                times = {}
                if work != "create":
                    forget_names()
                for system in (one, two) if number % 2 == 0 else (two, one):
                    times[system.name] = per_operation(bench_mount(system, work, count, "-p", 8))
                    if work == "create":
                        bench_mount(system, "rename", count, "-p", 8)
                        bench_mount(system, "unlink", count, "-p", 8)
                found.append(times[one.name] / times[two.name])
                value.setdefault(work, []).append(1 / times[two.name])
        for work, ratios in speeds.items():
            what, speed = f"{name}, {work}, 8 processes: speed of 2 lanes / 1", statistics.median(value[work])
            if name == "floor":
                rows.append(row("lanes", what, speed, "op/s", statistics.median(ratios), min(ratios), max(ratios)))
            else:
                rows.append(judge_ratio("lanes", what, "op/s", speed, ratios, LANES_LIMIT, True))
    return rows


def bench_growth(quick):
    rows = []
    for part in (growth_of_files, first_mount, idle, lanes):
        with Bench() as bench:
            rows += part(bench, quick)
    return rows
