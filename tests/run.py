#!/usr/bin/python3
"""Builds and runs the tests of ./dev test, in an order that keeps two cores busy, and prints one table.

tests/expected.txt is the one list of what must run where. A test that is registered but not listed, or listed but not
registered, fails the run. A skipped test is shown with its reason; with RMEMFS_EXPECT_ALL=1 it fails the run.

Stages: the dev build; its unit, model, crash and check tests, then its mount tests and those in guests (vm), one at a time
because they look at the clock; meanwhile the sanitizer builds compile with what the tests leave idle (SCHED_IDLE: mount tests wait a lot); at last
what needs the processors whole: the sanitizer runs and the fuzzing. The linter runs in ./dev check only, or when named.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOGS = BUILD / "test-logs"
LABELS = ("unit", "model", "crash", "fuzz", "check", "lint", "mount", "vm")
BUILDS = ("dev", "asan", "tsan")
JOBS = int(os.environ.get("DEV_JOBS") or os.cpu_count() or 1)
SANITIZERS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1:detect_leaks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": f"halt_on_error=1:second_deadlock_stack=1:suppressions={ROOT}/tests/tsan.supp",
    "LSAN_OPTIONS": f"suppressions={ROOT}/tests/lsan.supp:print_suppressions=0",
}


class Failed(Exception):
    """A step without which nothing else makes sense."""


class Outcome:
    def __init__(self, build, label, name, status, seconds, output="", reason=""):
        self.build, self.label, self.name, self.status = build, label, name, status
        self.seconds, self.output, self.reason = seconds, output, reason


def say(text):
    print(text, flush=True)


def read_expected():
    """name -> (label, builds)."""
    expected = {}
    for number, line in enumerate((ROOT / "tests/expected.txt").read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        label, name, *builds = words
        if label not in LABELS or not builds or set(builds) - set(BUILDS) or name in expected:
            raise Failed(f"tests/expected.txt:{number}: not \"LABEL NAME BUILD...\", or a name given twice")
        expected[name] = (label, builds)
    return expected


def run_logged(log, command, idle=False):
    """Runs a command with its output in build/LOG; raises with the log's end."""
    path = BUILD / log
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as out:
        status = subprocess.run([*(["chrt", "--idle", "0"] if idle else []), *command], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
                                stdin=subprocess.DEVNULL, check=False).returncode
    if status != 0:
        tail = "\n".join(path.read_text(errors="replace").splitlines()[-40:])
        raise Failed(f"{tail}\n\"{' '.join(command)}\" failed; the whole output is in {path}")


def configure(build):
    launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    run_logged(f"{build}-configure.log", ["cmake", "--preset", build, *launcher])


def compile_targets(build, targets, idle=False):
    started = time.monotonic()
    run_logged(f"{build}-build.log", ["ninja", "-C", f"build/{build}", "-j", str(JOBS), *targets], idle)
    say(f"built {build} in {time.monotonic() - started:.0f} s")


def registered(build):
    """What CTest knows: name -> label."""
    text = subprocess.run(["ctest", "--test-dir", f"build/{build}", "--show-only=json-v1"], cwd=ROOT, check=True,
                          stdout=subprocess.PIPE).stdout
    tests = {}
    for test in json.loads(text)["tests"]:
        labels = [p["value"] for p in test.get("properties", []) if p["name"] == "LABELS"]
        tests[test["name"]] = next((one for one in labels[0] if one in LABELS), "none") if labels else "none"
    return tests


def executables(build, names):
    """The ninja targets (bin/...) that the named tests run."""
    root, targets = re.escape(str(BUILD / build) + "/"), set()
    for path in (BUILD / build).rglob("CTestTestfile.cmake"):
        for line in path.read_text().splitlines():
            found = re.match(r'add_test\((?:\[=*\[(.*?)\]=*\]|"?([^\s"]+)"?) ', line)
            if found and (found.group(1) or found.group(2)) in names:
                targets |= set(re.findall(root + r'(bin/[^\s";\]]+)', line))
    return sorted(targets)


def reason_of(output):
    found = re.search(r"^\W*(?:skipped|SKIPPED)[:,]?\s*(.*)$", output, re.M)
    return found.group(1).strip() if found else ""


def judge(build, label, name, case):
    """One <testcase> of CTest's JUnit file."""
    output = case.findtext("system-out") or ""
    seconds = float(case.get("time") or 0)
    status = case.get("status")
    if status == "run":
        result, reason = "passed", ""
        # Two ways of passing without having tested: every case of a Boost suite disabled, one leg of a matrix skipped.
        passed = re.search(r"(\d+) test cases? out of (\d+) passed", output)
        ran = re.search(r"Running (\d+) test case", output)
        if (passed and int(passed.group(1)) == 0) or (ran and int(ran.group(1)) == 0):
            result, reason = "failed", "it ran no test case"
        elif re.search(r"^\W*skipped:", output, re.M) or re.search(r"\d+ test cases? out of \d+ skipped", output):
            result, reason = "skipped", "in part: " + (reason_of(output) or "disabled cases")
    elif status == "fail":
        failure = case.find("failure")
        result, reason = "failed", (failure.get("message") or "") if failure is not None else ""
    else:
        skipped = case.find("skipped")
        message = (skipped.get("message") or "") if skipped is not None else ""
        result, reason = "skipped", reason_of(output) or message
        if "not found" in message.lower() or "unable to find" in message.lower() or status == "notrun" and not output:
            result, reason = ("failed", "its program is missing") if "SKIP_RETURN_CODE" not in message else (result, reason)
    return Outcome(build, label, name, result, seconds, output, reason)


def run_tests(build, names, jobs, long):
    """CTest on the named tests of one build; the outcome of each."""
    if not names:
        return []
    environment = dict(os.environ, **SANITIZERS, BOOST_TEST_REPORT_LEVEL="short", BOOST_TEST_COLOR_OUTPUT="no",
                       RMEMFS_BIN=str(BUILD / build / "bin"), RMEMFS_SOURCE=str(ROOT))
    environment.pop("RMEMFS_LONG", None)
    if long:
        environment["RMEMFS_LONG"] = "1"
    junit = BUILD / f"ctest-{build}.xml"
    junit.unlink(missing_ok=True)
    pattern = "^(" + "|".join(re.escape(name) for name in names) + ")$"
    command = ["ctest", "--test-dir", f"build/{build}", "-R", pattern, "-j", str(jobs), "--no-tests=error",
               "--timeout", "36000" if long else "900", "--output-junit", str(junit),
               "--test-output-size-passed", "200000", "--test-output-size-failed", "2000000"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    shown = {}
    for line in process.stdout:
        found = re.match(r"\s*\d+/\d+ Test\s+#\d+: (\S+) \.*\s*(\S.*)$", line)
        if found:
            shown[found.group(1)] = found.group(2)
            say(f"  {build:5} {found.group(1):32} {found.group(2)}")
    process.wait()
    outcomes, labels = [], registered(build)
    if junit.exists():
        for case in ElementTree.parse(junit).getroot().iter("testcase"):
            outcomes.append(judge(build, labels.get(case.get("name"), "none"), case.get("name"), case))
    for outcome in outcomes:
        if outcome.status == "failed" and not outcome.reason:
            words = re.sub(r"^\*+|\s+[\d.]+ sec$", "", shown.get(outcome.name, "")).lower()
            outcome.reason = "" if words == "failed" else words
    reported = {outcome.name for outcome in outcomes}
    outcomes += [Outcome(build, labels.get(name, "none"), name, "failed", 0.0, reason="CTest did not report it")
                 for name in names if name not in reported]
    folder = LOGS / build
    folder.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes:
        (folder / f"{outcome.name}.log").write_text(outcome.output)
    return outcomes


def compare_lists(expected, build):
    """Differences between tests/expected.txt and what CTest has, as failed outcomes."""
    known, outcomes = registered(build), []
    for name, (label, builds) in expected.items():
        if build not in builds:
            continue
        if name not in known:
            outcomes.append(Outcome(build, label, name, "failed", 0.0, reason="expected, but not registered with CTest"))
        elif known[name] != label:
            outcomes.append(Outcome(build, label, name, "failed", 0.0, reason=f"registered with label {known[name]}"))
    if build == "dev":
        outcomes += [Outcome(build, label, name, "failed", 0.0, reason="not listed in tests/expected.txt")
                     for name, label in known.items() if name not in expected]
    return outcomes


def report(outcomes, started, strict):
    order = {name: number for number, name in enumerate(LABELS)}
    outcomes.sort(key=lambda o: (BUILDS.index(o.build), order.get(o.label, 99), o.name))
    bad = [o for o in outcomes if o.status == "failed" or (strict and o.status == "skipped")]
    for outcome in bad:
        tail = outcome.output.rstrip().splitlines()[-30:]
        say(f"\n--- {outcome.build} {outcome.name}: {outcome.status} {outcome.reason}".rstrip())
        for line in tail:
            say("    " + line)
        if outcome.output:
            say(f"    (all of it: build/test-logs/{outcome.build}/{outcome.name}.log)")
    say(f"\n{'build':6}{'kind':7}{'test':36}{'seconds':>8}  result")
    for outcome in outcomes:
        say(f"{outcome.build:6}{outcome.label:7}{outcome.name:36}{outcome.seconds:8.1f}  {outcome.status}"
            + (f" ({outcome.reason})" if outcome.reason else ""))
    seconds = time.monotonic() - started
    count = {s: sum(o.status == s for o in outcomes) for s in ("passed", "failed", "skipped")}
    say(f"\n{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped in "
        f"{seconds // 60:.0f} min {seconds % 60:.0f} s" + ("; skipped counts as failed here" if strict and count["skipped"] else ""))
    (BUILD / "test-results.json").write_text(json.dumps(
        {"seconds": round(seconds, 1), "tests": [{k: v for k, v in vars(o).items() if k != "output"} for o in outcomes]},
        indent=1) + "\n")
    return 1 if bad or not count["passed"] else 0


def select(expected, wanted):
    """build -> names. A wanted word is a test, a label, or a build; nothing wanted means all but lint."""
    known = set(expected) | set(LABELS) | {"asan", "tsan"}
    for word in wanted:
        if word not in known:
            say(f"tests: there is no test, label or build \"{word}\"; ./dev test --list shows them")
            sys.exit(2)
    chosen = {build: [] for build in BUILDS}
    for name, (label, builds) in expected.items():
        for build in builds:
            named = name in wanted or label in wanted
            if (not wanted and label != "lint") or (build == "dev" and named) or (build in wanted and (named or not set(wanted) - set(BUILDS))):
                chosen[build].append(name)
    return chosen


def main(arguments):
    long = "--long" in arguments
    options = [a for a in arguments if a.startswith("-")]
    wanted = [a for a in arguments if not a.startswith("-")]
    if set(options) - {"--long", "--list"}:
        say("tests: only --long and --list are options of ./dev test")
        return 2
    started = time.monotonic()
    expected = read_expected()
    if "--list" in options:
        for name, (label, builds) in sorted(expected.items(), key=lambda item: (LABELS.index(item[1][0]), item[0])):
            say(f"{label:7}{name:36}{' '.join(builds)}")
        return 0
    strict = os.environ.get("RMEMFS_EXPECT_ALL") == "1"
    chosen = select(expected, wanted)
    by_label = lambda names, *labels: [n for n in names if expected[n][0] in labels]
    if not any(chosen.values()):
        say("tests: nothing to run")
        return 2
    shutil.rmtree(LOGS, ignore_errors=True)
    outcomes, errors = [], []

    def sanitizers():
        try:
            for build in ("asan", "tsan"):
                if chosen[build]:
                    configure(build)
                    outcomes.extend(compare_lists(expected, build) if not wanted else [])
                    compile_targets(build, executables(build, chosen[build]), idle=True)
        except (Failed, subprocess.CalledProcessError, OSError) as error:
            errors.append(str(error))

    if chosen["dev"]:
        configure("dev")
        outcomes += compare_lists(expected, "dev") if not wanted else []
        # A single named test needs its own program only; the mount tests, the guests and the manual's check need all of them.
        needs_all = not wanted or by_label(chosen["dev"], "mount", "vm", "check", "lint", "fuzz")
        compile_targets("dev", [] if needs_all else executables("dev", chosen["dev"]))
    background = threading.Thread(target=sanitizers)
    background.start()
    missing = {o.name for o in outcomes if o.reason.startswith("expected, but")}
    names = [n for n in chosen["dev"] if n not in missing]
    outcomes += run_tests("dev", by_label(names, "unit", "model", "crash", "check", "lint"), JOBS, long)
    outcomes += run_tests("dev", by_label(names, "mount"), 1, long)
    outcomes += run_tests("dev", by_label(names, "vm"), 1, long)
    background.join()
    if errors:
        raise Failed("\n".join(errors))
    missing = {(o.build, o.name) for o in outcomes if o.reason.startswith("expected, but")}
    for build in ("asan", "tsan"):
        outcomes += run_tests(build, [n for n in chosen[build] if (build, n) not in missing], JOBS, long)
    outcomes += run_tests("dev", by_label(names, "fuzz"), JOBS, long)
    return report(outcomes, started, strict)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as failure:
        say(str(failure))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
