#!/usr/bin/python3
"""The manual pages: clean under mandoc, and in step with the programs.

Usage: check_man.py DIRECTORY-OF-PROGRAMS. Every option that a program's --help shows (of its subcommands too) is in its
page, and every option that the page's list items document is in --help. fsck.rmemfs(8) has exactly the problem codes of
recovery/problem.h, rmemfs(8) every -o option that tools/mount_options.cc reads and the table of util/error.h, each name of
which a test expects (tests/mount/errors.sh, which produces the numbers, or a unit test).
"""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = {"rmemd": "rmemd.8", "rmemfs": "rmemfs.8", "mkfs.rmemfs": "mkfs.rmemfs.8", "fsck.rmemfs": "fsck.rmemfs.8",
         "rmemctl": "rmemctl.8", "rmemfs-dump": "rmemfs-dump.8"}
OTHER_PAGES = ["rmemfs-format.5", "rmemfs-rdma.7"]
OPTION = r"(?<![\w/.=-])(--[a-z][a-z0-9-]*|-[a-zA-Z])(?![\w])"


def output(command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, check=False)


def help_texts(program):
    """--help, and the --help of each subcommand that it lists."""
    first = output([program, "--help"])
    texts = [first.stdout]
    listed = re.split(r"^(?:Subcommands|Commands):?\s*$", first.stdout, flags=re.M | re.I)
    for name in re.findall(r"^ {2}([a-z][a-z-]*)(?: |$)", listed[1], re.M) if len(listed) > 1 else []:
        texts.append(output([program, name, "--help"]).stdout)
    return first.returncode, texts


def options_of_help(texts):
    """The options at the start of a help text's lines, e.g. "  -n,--no-change  ..."."""
    found = set()
    for text in texts:
        for line in text.splitlines():
            head = re.match(r"\s*(-[^\s].*?)(?:\s{2,}|$)", line)
            if head:
                found |= set(re.findall(OPTION, head.group(1)))
    return found


def options_of_page(path):
    """(all options that the page's text names, those that its list items document)"""
    rendered = output(["mandoc", "-T", "ascii", "-O", "width=200", str(path)]).stdout
    rendered = re.sub(r".\x08", "", rendered)
    documented = set()
    for line in path.read_text().splitlines():
        if re.match(r"\.It\b.*\bFl\b", line):
            documented |= {"-" + word for word in re.findall(r"\bFl (-?[A-Za-z0-9][a-z0-9-]*)", line)}
    return set(re.findall(OPTION, rendered)), documented


def check_tables(problems):
    page = (ROOT / "man/fsck.rmemfs.8").read_text()
    real = set(re.findall(r"X\(k(\w+), (0x[0-9a-f]{4}),", (ROOT / "recovery/problem.h").read_text()))
    told = {(name, code) for code, name in re.findall(r"^\.It Li (0x[0-9a-f]{4}) Li (\w+)", page, re.M)}
    problems += [f"man/fsck.rmemfs.8 does not have problem {code} {name}" for name, code in sorted(real - told)]
    problems += [f"man/fsck.rmemfs.8 has problem {code} {name}, which is none" for name, code in sorted(told - real)]
    page = (ROOT / "man/rmemfs.8").read_text()
    for name in re.findall(r'\bname == "(\w+)"', (ROOT / "tools/mount_options.cc").read_text()):
        if not re.search(rf"\bCm {name}\b", page):
            problems.append(f"man/rmemfs.8 does not have -o {name}")


def check_errors(problems):
    codes = re.findall(r'X\((k\w+), (E\w+), "([^"]*)"\)', (ROOT / "util/error.h").read_text())
    meanings = {}
    for _, number, sentence in codes:
        meanings.setdefault(number, []).append(sentence)
    page = (ROOT / "man/rmemfs.8").read_text().split(".Sh ERROR NUMBERS")[1].split(".El")[0]
    told = dict(re.findall(r"^\.It Er (E\w+)\n(.*)$", page, re.M))
    for number in sorted(meanings.keys() | told.keys()):
        must = "; ".join(meanings.get(number, ["(none)"])) + "."
        is_told = told.get(number, "(none)")
        if is_told[:1].lower() + is_told[1:] != must[:1].lower() + must[1:]:
            problems.append(f"man/rmemfs.8 says of {number}: {is_told} util/error.h says: {must}")
    # What only turns numbers into names and back proves nothing.
    tests = [path for path in (ROOT / "tests/unit").rglob("*_test.cc") if path.name != "values_test.cc"]
    text = "".join(path.read_text() for path in [*tests, ROOT / "tests/mount/errors.sh"])
    problems += [f"no test expects {name} of util/error.h" for name, _, _ in codes if not re.search(rf"\b{name}\b", text)]
    if len(codes) < 30:
        problems.append(f"util/error.h has {len(codes)} codes for this check")


def main():
    programs = Path(sys.argv[1])
    problems = []
    for page in [*PAGES.values(), *OTHER_PAGES]:
        path = ROOT / "man" / page
        if not path.is_file():
            problems.append(f"man/{page} is missing")
            continue
        lint = output(["mandoc", "-T", "lint", "-W", "warning", str(path)])
        problems += [line.replace(str(ROOT) + "/", "") for line in lint.stdout.splitlines()]
    if not problems:
        check_tables(problems)
        check_errors(problems)
    for name, page in PAGES.items():
        path = ROOT / "man" / page
        if not path.is_file():
            continue
        status, texts = help_texts(str(programs / name))
        shown = options_of_help(texts)
        if status != 0 or not shown:
            problems.append(f"{name} --help ends with status {status} and shows {len(shown)} options")
            continue
        named, documented = options_of_page(path)
        for option in sorted(shown - named - {"-h", "--help"}):
            problems.append(f"man/{page} does not have {option}, which {name} --help shows")
        for option in sorted(documented - shown - {"-h", "--help"}):
            problems.append(f"man/{page} documents {option}, which {name} --help does not show")
    for problem in problems:
        print(problem)
    print(f"{len(PAGES) + len(OTHER_PAGES)} pages, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
