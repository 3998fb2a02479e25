#!/bin/bash
# Fuzzes for a minute (ten with RMEMFS_LONG=1), starting from a committed corpus, which is not changed.
# usage: run.sh PROGRAM CORPUS
set -euo pipefail
program=$1 corpus=$2 seconds=${FUZZ_SECONDS:-60}
if [ -n "${RMEMFS_LONG:-}" ]; then seconds=${FUZZ_SECONDS:-60}0; fi
if [ -z "$(find "$corpus" -type f -print -quit 2>/dev/null)" ]; then
  echo "$corpus holds no example to start from" >&2
  exit 1
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/rmemfs-fuzz.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/found"
status=0
"$program" -max_total_time=$seconds -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
  -artifact_prefix="$work/" "$work/found" "$corpus" >"$work/log" 2>&1 || status=$?
grep -E "^stat::|seed|ERROR|SUMMARY" "$work/log" || true
if [ $status != 0 ]; then
  tail -n 40 "$work/log"
  for bad in "$work"/crash-* "$work"/timeout-* "$work"/oom-* "$work"/leak-*; do
    [ -e "$bad" ] || continue
    echo "the input that did it, in base64:"
    base64 "$bad" | head -n 100
  done
  exit 1
fi
runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
[ "${runs:-0}" -gt 1000 ] || { echo "only ${runs:-0} inputs were tried" >&2; exit 1; }
