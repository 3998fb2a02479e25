#!/usr/bin/python3
"""clang-tidy, with the checks of .clang-tidy, on every source file. Usage: check_lint.py BUILD-DIRECTORY [FILE...]

A file whose text, headers' texts, flags and checks are those of the last clean run is not looked at again.
"""
import concurrent.futures
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Flags of g++ that clang does not know, and outputs that a linter must not write.
DROPPED = re.compile(r"-Wno-tsan|-fcoroutines|-Werror|-M[DMFTQ]*")


def arguments_of(entry):
    words = shlex.split(entry["command"])
    start = next(i for i, word in enumerate(words) if word.endswith(("g++", "c++", "clang++", "clang++-14")))
    kept, skip = [], False
    for word in words[start + 1:]:
        if skip:
            skip = False
        elif word in ("-o", "-MF", "-MT", "-MQ", "-c"):
            skip = word != "-c"
        elif word != entry["file"] and not DROPPED.fullmatch(word):
            kept.append(word)
    return kept


def entries_of(build):
    """One entry of the compilation database for each of our files."""
    entries = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        generated = entry["file"].startswith(str(build)) or not entry["file"].startswith(str(ROOT))
        if not generated:
            entries.setdefault(entry["file"], entry)
    # Most fuzz targets are compiled by clang++ beside the build and are not in the database: a neighbour's flags do.
    neighbour = str(ROOT / "tests/fuzz/journal_fuzz.cc")
    for path in map(str, ROOT.glob("tests/fuzz/*_fuzz.cc")):
        if neighbour in entries:
            command = entries[neighbour]["command"].replace(neighbour, path)
            entries.setdefault(path, {**entries[neighbour], "file": path, "command": command})
    return entries


def headers_digest():
    """One digest of all our headers: any change looks at everything again."""
    digest = hashlib.sha256((ROOT / ".clang-tidy").read_bytes())
    for path in sorted(ROOT.glob("*/**/*.h")):
        if "build" not in path.parts:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def lint(entry, headers, stamps):
    path, arguments = Path(entry["file"]), arguments_of(entry)
    key = hashlib.sha256((headers + "\0".join(arguments)).encode() + path.read_bytes()).hexdigest()
    stamp = stamps / key
    if stamp.exists():
        return ""
    done = subprocess.run(["clang-tidy", "--quiet", str(path), "--", *arguments, "-Wno-unknown-warning-option"],
                          cwd=entry["directory"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        stamp.touch()
        return ""
    return done.stdout or done.stderr


def main():
    build = Path(sys.argv[1]).resolve()
    wanted = [str((ROOT / name).resolve()) for name in sys.argv[2:]]
    entries = {path: entry for path, entry in entries_of(build).items() if not wanted or path in wanted}
    stamps = build / "lint"
    stamps.mkdir(exist_ok=True)
    headers, bad = headers_digest(), 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for text in pool.map(lambda entry: lint(entry, headers, stamps), entries.values()):
            if text:
                bad += 1
                print(text.replace(str(ROOT) + "/", ""), end="")
    print(f"{len(entries)} files looked at, {bad} with something to say")
    return 1 if bad or not entries else 0


if __name__ == "__main__":
    sys.exit(main())
