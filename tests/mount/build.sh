#!/bin/bash
# rmemfs is built on the mount, from sources on the mount: in CI the lowest shelf and the journal, otherwise everything.
source "$(dirname "$0")/lib.sh"
need cmake ninja g++
new_fs
mkdir "$MNT/src"
tar -C "$SOURCE" --exclude=./build --exclude=./.git -cf - . | tar -C "$MNT/src" -xf -
export CCACHE_DISABLE=1
say "configure and build"
cmake -G Ninja -S "$MNT/src" -B "$MNT/build" -DCMAKE_BUILD_TYPE= -DCMAKE_CXX_FLAGS=-O0 >"$WORK/configure.log"
read -r -a targets <<<"$(pick unit_journal all)"
cmake --build "$MNT/build" -j 2 --target "${targets[@]}" >"$WORK/build.log"
pass "built ${targets[*]}"
journal_test=$(find "$MNT/build" -type f -name unit_journal)
remount_fs
say "what was built runs from a fresh mount"
TMPDIR=$MNT "$journal_test" --log_level=error >"$WORK/unit.log" 2>&1 || fail "unit_journal, built on the mount, fails"
pass "unit_journal runs on the mount"
again=$(cmake --build "$MNT/build" -j 2 --target "${targets[@]}")
case $again in *"no work to do"*) pass "after a remount ninja has nothing to do" ;; *) fail "ninja builds again after a remount: $again" ;; esac
umount_fs
