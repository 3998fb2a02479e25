#!/usr/bin/python3
"""The documents speak of this tree as it is.

In *.md at the top and in docs/: every backticked path of this tree exists, every backticked `Class::function` or
`function()` occurs in the sources, every ./dev command named is one. Everywhere: no path of a particular machine, no TODO.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ["util", "journal", "transport", "control", "manager", "memnode", "fs", "recovery", "tools", "bench", "tests",
           "man", "cmake", ".ci", "docs"]
TEXT = {".cc", ".h", ".py", ".sh", ".md", ".txt", ".proto", ".5", ".7", ".8", ".1", ".json", ".supp", ""}
MACHINE = re.compile(r"(?<![\w.~-])/(?:home/\w|root/|work/|Users/)|\.\./shared\b")
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")
COMMANDS = {"run", "stop", "build", "test", "check", "format", "bench", "install", "clean", "help"}
# Functions of other people that the documents name.
FOREIGN = {"memcpy", "fsync", "fdatasync", "epoll_wait", "umount", "mmap", "stat", "write", "read", "rename", "poll",
           "fuse_session_custom_io", "clone", "kill"}


def source_text():
    parts = []
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".cc", ".h", ".proto", ".sh", ".py"):
                parts.append(path.read_text(errors="replace"))
    return "\n".join(parts)


def check_document(path, source, problems):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{path.name}:{number}"
        for command in re.findall(r"\./dev ([a-z]+)", line):
            if command not in COMMANDS:
                problems.append(f"{where}: ./dev has no command \"{command}\"")
        for word in re.findall(r"`([^`]+)`", line):
            if re.fullmatch(r"[\w.-]+(?:/[\w.-]+)+/?", word) and word.split("/")[0] in FOLDERS:
                if not (ROOT / word).exists():
                    problems.append(f"{where}: there is no {word}")
            found = re.fullmatch(r"(?:(\w+)::)?(\w+)\(\)", word) or re.fullmatch(r"(\w+)::(\w+)", word)
            if found and found.group(2) not in FOREIGN:
                for part in filter(None, found.groups()):
                    if not re.search(rf"\b{re.escape(part)}\b", source):
                        problems.append(f"{where}: \"{part}\" of {word} is nowhere in the sources")


def main():
    problems, documents = [], sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
    source = source_text()
    for path in documents:
        check_document(path, source, problems)
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()] + documents
    for path in files:
        if path.suffix not in TEXT or "corpus" in path.parts or path == Path(__file__).resolve():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if MACHINE.search(line) or UNFINISHED.search(line):
                problems.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    for problem in problems:
        print(problem)
    print(f"{len(documents)} documents, {len(files)} files, {len(problems)} problems")
    return 1 if problems or not documents else 0


if __name__ == "__main__":
    sys.exit(main())
