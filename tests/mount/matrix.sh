#!/bin/bash
# Runs one test over transports and node counts, one after the other.
# usage: matrix.sh SCRIPT SECONDS PAIR...    PAIR: shm:1 tcp:3 ...; with RMEMFS_LONG=1 all four of shm, tcp and 1, 3
#        matrix.sh SCRIPT SECONDS once       a test that brings its own node
# SECONDS limits each run (twenty times as much when long). Exit status 77 when every run was skipped.
set -uo pipefail
script=$1 seconds=$2; shift 2
here=$(cd "$(dirname "$0")" && pwd)
pairs=("$@")
if [ -n "${RMEMFS_LONG:-}" ]; then
  seconds=$((seconds * 20))
  [ "$1" = once ] || pairs=(shm:1 shm:3 tcp:1 tcp:3)
fi
[ "$1" != once ] || pairs=(shm:1)
failed=0 ran=0
for pair in "${pairs[@]}"; do
  status=0
  timeout -k 30 "$seconds" bash "$here/$script" "${pair%:*}" "${pair#*:}" || status=$?
  case $status in
    0) ran=1 ;;
    77) ;;
    124 | 137) echo "FAILED: $script $pair took longer than $seconds s"; failed=1 ;;
    *) echo "FAILED: $script $pair (status $status)"; failed=1 ;;
  esac
done
[ $failed = 0 ] || exit 1
[ $ran = 1 ] || exit 77
