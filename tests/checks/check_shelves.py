#!/usr/bin/python3
"""Keeps the shelves: a folder includes only itself and lower shelves, and each foreign library has one home.

Reads the #include lines of every source file and the link lines of every CMakeLists.txt. Tests may include everything of
ours; of foreign headers, the tests of a room may include those of the room.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SHELVES = {"util": 0, "journal": 1, "transport": 1, "control": 1, "manager": 2, "memnode": 2, "fs": 3, "recovery": 3,
           "tools": 4, "bench": 4}
# What an include looks like -> the folders (or single files) that may hold it.
HOMES = [
    (r"fuse.*\.h|linux/fuse\.h", ["fs"]),
    # The second is a program as others write them, which runs on the mount.
    (r"rocksdb/.*", ["manager", "tests/mount/rocksdb_load.cc"]),
    (r"libpmem.*\.h", ["util/pmem.cc"]),
    (r"infiniband/.*|rdma/.*", ["transport"]),
    (r"grpc.*|google/protobuf/.*|.*\.pb\.h", ["control"]),
    (r"spdlog/.*", ["util"]),
    (r"isa-l.*|crc\.h", ["util"]),
    (r"tl/expected\.hpp", ["util"]),
    (r"xxhash\.h", ["manager"]),
    (r"CLI/.*", ["tools"]),
    (r"boost/test/.*", ["tests"]),
]


def allowed(folder, other):
    """May a file of `folder` use `other`?"""
    if folder == "tests":
        return other in SHELVES or other == "tests"
    return other == folder or (other in SHELVES and SHELVES[other] < SHELVES[folder])


def check_file(path, problems):
    name = path.relative_to(ROOT).as_posix()
    folder = name.split("/")[0]
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        found = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not found:
            continue
        quoted, header = found.group(1) == '"', found.group(2)
        home = next((homes for pattern, homes in HOMES if re.fullmatch(pattern, header)), None)
        if home is not None:
            # A room's unit tests may touch what the room may.
            room = name.split("/")[2] if name.startswith("tests/unit/") else folder
            if folder not in home and room not in home and name not in home:
                problems.append(f"{name}:{number}: {header} has its home in {' and '.join(home)}")
        elif quoted:
            other = header.split("/")[0]
            if folder == "tests" and (path.parent / header).is_file():
                continue
            if not (ROOT / header).is_file():
                problems.append(f"{name}:{number}: there is no {header}; write the path from the top of the tree")
            elif not allowed(folder, other):
                problems.append(f"{name}:{number}: {folder} may not include {header}: not a lower shelf")


def check_links(path, problems):
    name = path.relative_to(ROOT).as_posix()
    folder = name.split("/")[0]
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for other in re.findall(r"\brmemfs_(\w+)", line.split("#")[0]):
            if other in SHELVES and not allowed(folder, other):
                problems.append(f"{name}:{number}: {folder} may not link rmemfs_{other}: not a lower shelf")


def main():
    problems, files = [], 0
    for folder in [*SHELVES, "tests"]:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".h", ".cc"):
                files += 1
                check_file(path, problems)
            elif path.name == "CMakeLists.txt":
                check_links(path, problems)
    for problem in problems:
        print(problem)
    print(f"{files} files read, {len(problems)} out of place")
    return 1 if problems or files < 10 else 0


if __name__ == "__main__":
    sys.exit(main())
