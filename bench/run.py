#!/usr/bin/python3
"""./dev bench: measures what has a limit, prints tables, writes build/bench/results.json and build/bench/results.png.

Its parts (name one or more to run only those; --quick: fewer operations and rounds, and without GlusterFS, sshfs and the
kernel's file systems):
  journal     bench_journal      what a transaction costs
  transport   bench_transport    operations against memcpy and a bare ping-pong
  structures  bench_growth       allocation and lookup with many chunks and nodes
  mount       rmemfs over shm, over tcp, and with its journal on an ordinary file, beside a file system that does nothing
              (bench/nullfs), passthrough_ll, GlusterFS, sshfs, tmpfs and ext4 (comparison.py)
  growth      many files, memory, idle mounts, lanes, and how soon a mount serves (growth.py)
  --vm        rmemctl ping over RDMA against perftest, both in one guest with soft-RoCE (tests/vm/run-vm), and nothing
              else; it is an emulator, so its figures say nothing, its ratios something

Every limit is a ratio within one run, because absolute figures are the machine's; docs/performance.md says how they are
made and what the yardsticks are. Exits 1 when a limit is missed or something could not be measured. "unsure": the
machine was too noisy to say.
"""
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import comparison
import growth
import report
from report import row
from systems import BIN, OUT, PROGRAMS, ROOT, Bench, Failed, say

MOUNT_ROUNDS, MOUNT_SECONDS = 7, 360     # at most, unless three rounds take longer
TCP_READ_LIMIT = 1.2      # of the floor's time and a bare ping-pong's together
VM_BANDWIDTH_LIMIT = 0.9  # of perftest's, at least
VM_LATENCY_LIMIT = 1.2    # of perftest's, at most


def tcp_round_trip(rows):
    """Seconds of a bare ping-pong that sleeps as a lane does, from the transport part's rows; None without them."""
    for one in rows:
        if one["part"] == "transport" and one["name"].startswith("tcp read 4 KiB, blocking"):
            return one["value"] / 1e6 / one["ratio"]
    return None


def bench_mounts(quick, rows_before):
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise Failed("/dev/fuse is missing or not ours to open, so no mount can be measured")
    if os.geteuid() != 0:
        raise Failed("only root can make the kernel forget what it has cached and mount ext4; run it as root")
    with Bench() as bench:
        one = comparison.Comparison(bench, quick)
        one.set_up()
        rounds = one.rounds(2 if quick else MOUNT_ROUNDS, 60 if quick else MOUNT_SECONDS)
    rows = report.rows_of(one)
    ping = tcp_round_trip(rows_before)
    if ping is not None:
        ours = one.samples["random_read_q1", comparison.TCP]
        ratios = [sample.seconds / (one.floor_seconds("random_read_q1", number) + ping)
                  for number, sample in sorted(ours.items())]
        rows.append(growth.judge_ratio(comparison.TCP, "4 KiB direct read, depth 1: time / (floor + bare ping-pong)", "op/s",
                                       1 / statistics.median(sample.seconds for sample in ours.values()), ratios,
                                       TCP_READ_LIMIT, False, one.noise("random_read_q1")))
    rows += remote_operations(one)
    lines, different = comparison.requests_equal(one)
    rows.append(row("floor", "works that send other requests to rmemfs than to the floor", len(different),
                    ", ".join(different), None, None, None, "<= 0", not different))
    requests = "Requests by kind, of the first round; the floor gets the same:\n\n" + "\n".join(lines)
    tables = [f"{rounds} rounds", report.table_of_speeds(one), report.table_of_latencies(one), requests]
    return rows, tables, one


def remote_operations(one):
    """What an append with its fsync asks of the memory node, where memory is volatile: its data and nothing else."""
    counters = one.requests.get(("append", comparison.SHM))
    if not counters:
        return []
    appends = counters["requests.fsync"] - 1     # one before the clock started
    count = sum(counters[f"transport.{kind}"] for kind in ("reads", "writes", "persists"))
    return [row(comparison.SHM, "remote operations per append and fsync", count / appends, "", None, None, None, "<= 1",
                count <= appends)]


def bench_program(part, program, *arguments):
    """Rows of a program that prints JSON lines: name, value, unit, ratio, limit, ok."""
    path = PROGRAMS / program
    if not path.exists():
        raise Failed(f"{path.relative_to(ROOT)} was not built")
    done = subprocess.run([str(path), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=240, check=False)
    rows = []
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            one = json.loads(line)
            limit = one.get("limit")
            rows.append(row(part, one["name"].removeprefix(part + ": "), one.get("value"), one.get("unit", ""),
                            one.get("ratio"), one.get("low"), one.get("high"),
                            f"<= {limit:g}" if isinstance(limit, (int, float)) else limit,
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


def main(arguments):
    # Each program's argument is how long it measures; none: its own choice.
    programs = {"journal": ("bench_journal", "40"), "transport": ("bench_transport", "11"),
                "structures": ("bench_growth", "5")}
    parts = [*programs, "mount", "growth"]
    quick = "--quick" in arguments
    if "--vm" in arguments:
        parts = ["vm"]
    wanted = [word for word in arguments if word not in ("--quick", "--vm")]
    for word in wanted:
        if word not in parts:
            say(f"bench: there is no \"{word}\"; there are {', '.join(parts)}, --quick and --vm")
            return 2
    OUT.mkdir(parents=True, exist_ok=True)
    where, started, rows, errors, tables, mounts = machine(), time.monotonic(), [], [], [], None
    for name in wanted or parts:
        say(f"measuring: {name}")
        try:
            if name in programs:
                program, quick_argument = programs[name]
                rows += bench_program(name, program, *([quick_argument] if quick else []))
            elif name == "mount":
                more, tables, mounts = bench_mounts(quick, rows)
                rows += more
            elif name == "growth":
                rows += growth.bench_growth(quick)
            else:
                rows += bench_vm(quick)
        except (Failed, subprocess.TimeoutExpired, OSError, ValueError, KeyError) as error:
            errors.append(f"{name}: {error}")
        except KeyboardInterrupt:
            errors.append(f"{name}: interrupted")
            break
    if mounts is not None:
        try:
            report.plot(mounts, OUT / "results.png")
        except Failed as error:
            errors.append(f"plot: {error}")
    text = "\n\n".join([where, report.table_of_rows(rows), *tables])
    say("\n" + text + "\n")
    for error in errors:
        say(f"not measured: {error}")
    missed, unsure = [one for one in rows if one["ok"] is False], [one for one in rows if one["unsure"]]
    if unsure:
        say(f"the machine was too noisy to conclude about {len(unsure)} limits; run it again when it is quiet")
    say(f"{len(rows)} figures, {len(missed)} limits missed, {len(unsure)} unsure, {len(errors)} parts not measured, "
        f"{time.monotonic() - started:.0f} s; build/bench/results.json has them" +
        (", results.png beside it the bars" if mounts is not None else ""))
    (OUT / "results.json").write_text(json.dumps({"machine": where, "quick": quick, "rows": rows,
                                                  "works": report.json_of(mounts) if mounts else {},
                                                  "errors": errors}, indent=1) + "\n")
    (OUT / "table.md").write_text(text + "\n")
    return 1 if missed or errors else 0


def interrupted(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupted)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
