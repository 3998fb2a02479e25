#!/bin/bash
# Package managers on the mount. Python: a virtual environment, pip, a package with its tests, and Python's own tests of files,
# run in it. In the long run also Node: npm installs the tree of packages that npm itself consists of.
source "$(dirname "$0")/lib.sh"
python=/usr/bin/python3   # Debian's, whatever else is on the PATH
must_have $python
new_fs
export PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CACHE_DIR=$MNT/cache PIP_ROOT_USER_ACTION=ignore PYTHONNOUSERSITE=1
say "venv, with the pip that comes with Python"
$python -m venv "$MNT/venv" || fail "python3 -m venv"
python=$MNT/venv/bin/python
"$python" -m pip --version >/dev/null || fail "pip does not run"
"$python" -m pip check >"$WORK/pip.log" 2>&1 || { cat "$WORK/pip.log" >&2; fail "pip check"; }

say "a package is installed from its sources, and its tests run"
mkdir -p "$MNT/project/tests" "$MNT/project/tally"
cat >"$MNT/project/setup.py" <<'PYTHON'
from setuptools import setup
setup(name="tally", version="1.0", packages=["tally"], entry_points={"console_scripts": ["tally = tally:main"]})
PYTHON
cat >"$MNT/project/tally/__init__.py" <<'PYTHON'
import dbm, shelve, sys

def count(path, words):
    with shelve.open(path) as shelf:
        for word in words:
            shelf[word] = shelf.get(word, 0) + 1
        return dict(shelf)

def main():
    print(sum(count(sys.argv[1], sys.argv[2:]).values()))
PYTHON
cat >"$MNT/project/tests/test_tally.py" <<'PYTHON'
import concurrent.futures, os, tempfile, unittest
import tally

class Tally(unittest.TestCase):
    def test_it_is_installed_in_the_environment(self):
        self.assertTrue(os.path.dirname(tally.__file__).endswith("/project/tally"), tally.__file__)

    def test_counts_are_kept(self):
        with tempfile.TemporaryDirectory() as directory:
            path = directory + "/shelf"
            tally.count(path, ["a", "b", "a"])
            self.assertEqual(tally.count(path, ["b"]), {"a": 2, "b": 2})

    def test_processes_have_their_own(self):
        with tempfile.TemporaryDirectory() as directory, concurrent.futures.ProcessPoolExecutor(4) as pool:
            paths = ["%s/%d" % (directory, i) for i in range(16)]
            self.assertEqual(list(pool.map(tally.count, paths, [["x"] * 5] * 16)), [{"x": 5}] * 16)
PYTHON
( cd "$MNT/project" && "$python" -m pip install --no-build-isolation --no-use-pep517 -e . ) >"$WORK/pip.log" 2>&1 || { cat "$WORK/pip.log" >&2; fail "pip install"; }
export TMPDIR=$MNT/tmp
mkdir "$TMPDIR"
run_tests() {
  ( cd "$MNT/project" && "$python" -m unittest discover -s tests ) >"$WORK/unittest.log" 2>&1 || { cat "$WORK/unittest.log" >&2; fail "the package's tests $1"; }
  [[ $(tail -n 1 "$WORK/unittest.log") = OK ]] || fail "the package's tests $1"
}
run_tests "on the mount"
pass "venv, pip install, and the package's tests"

say "Python's own tests of files, their temporary directory on the mount"
tests=(test_shutil test_tempfile test_mmap test_fcntl test_glob test_pathlib test_mailbox test_file test_fileio test_largefile
  test_genericpath test_posixpath test_dbm_dumb test_shelve test_filecmp test_fileinput)
[ -z "$LONG" ] || tests+=(test_os test_posix test_zipfile test_tarfile test_import test_gzip test_bz2 test_lzma test_dbm test_stat)
status=0
( cd "$MNT" && timeout 900 "$python" -m test --tempdir "$TMPDIR" "${tests[@]}" ) >"$WORK/regrtest.log" 2>&1 </dev/null || status=$?
grep -q "^All ${#tests[@]} tests OK\|^${#tests[@]} tests OK" "$WORK/regrtest.log" && [ $status = 0 ] || { tail -n 60 "$WORK/regrtest.log" >&2; fail "Python's own tests (status $status)"; }
pass "${#tests[@]} of Python's own tests"

remount_fs
run_tests "after a remount"
"$python" -m pip check >/dev/null || fail "pip check after a remount"
# RECORD has a digest of every file that was installed.
"$python" - <<'PYTHON' || fail "what pip installed is other after a remount"
import base64, hashlib, importlib.metadata as metadata, sys
checked = 0
for distribution in metadata.distributions(path=[p for p in sys.path if "/venv/" in p]):
    for file in distribution.files or []:
        if file.hash:
            digest = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()).rstrip(b"=").decode()
            if digest != file.hash.value: sys.exit("%s is other than its RECORD says" % file)
            checked += 1
print(checked, "files are as their RECORD says")
if checked < 500: sys.exit("too few")
PYTHON
pass "the environment after a remount"

if [ -n "$LONG" ]; then
  must_have node npm
  here=$(cd "$(dirname "$0")" && pwd)
  say "npm install"
  mkdir "$MNT/app"
  spawn registry node "$here/npm_registry.js" "$WORK/port" "$MNT/app/package.json"
  wait_for 30 test -s "$WORK/port" || fail "the registry does not start"
  printf '%s\n' "registry=http://127.0.0.1:$(cat "$WORK/port")/" "cache=$MNT/npm-cache" audit=false fund=false update-notifier=false \
    >"$WORK/npmrc"
  export npm_config_userconfig=$WORK/npmrc HOME=$WORK
  as_npm() { ( cd "$MNT/app" && npm "$@" ) >"$WORK/npm.log" 2>&1 || { tail -n 30 "$WORK/npm.log" >&2; fail "npm $*"; }; }
  as_npm install
  installed=$(find "$MNT/app/node_modules" -name package.json | grep -cE 'node_modules/(@[^/]*/)?[^/]*/package.json$')
  [ "$installed" -gt 100 ] || fail "npm installed only $installed packages"
  check_tree() {
    as_npm ls --all
    as_npm cache verify
    ! grep -q 'Corrupted\|Missing content' "$WORK/npm.log" || { cat "$WORK/npm.log" >&2; fail "npm's cache $1"; }
    [ "$(cd "$MNT/app" && node node_modules/.bin/semver 1.2.3 -i minor)" = 1.3.0 ] || fail "an installed program does not run $1"
  }
  check_tree "after npm install"
  cp -a "$MNT/app/node_modules" "$WORK/node_modules"
  remount_fs
  kill_now registry
  say "npm ci from the cache alone, after a remount"
  as_npm ci --offline
  check_tree "after npm ci"
  diff -r --no-dereference "$WORK/node_modules" "$MNT/app/node_modules" || fail "npm ci made another tree"
  pass "npm install, npm ci: $installed packages, the same tree, no fault in npm's cache"
fi
umount_fs
fsck_clean
