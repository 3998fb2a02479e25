#!/bin/bash
# The guest's half of ./dev bench --vm: rmemctl ping and perftest on the same RDMA device, turn by turn.
# usage: rdma_guest.sh PROGRAMS ROUNDS    (PROGRAMS: the directory with rmemd and rmemctl)
#
# Prints one line for each figure: "figure ROUND WHO WHAT VALUE". WHO is ours or perftest; WHAT is write_bw or read_bw (of
# 64 KiB, in bytes per second) or write_lat or read_lat (of 4 KiB, in seconds, the median). perftest's write latency is half
# of a round trip between two programs that both poll; ours is the time until the write's completion, which the node's
# acknowledgement brings. perftest keeps 128 operations under way, its default and its best; ours 16.
set -euo pipefail
programs=$1 rounds=$2
address=10.77.0.1 port=7471 depth=16
export PATH=$programs:$PATH TRY_SECONDS=60
# shellcheck source=tests/vm/client_server.sh
source "$(dirname "$0")/../tests/vm/client_server.sh"

rmemd --size 64M --listen rdma://$address:$port --insecure >/tmp/rmemd.log 2>&1 &
node=$!
trap 'kill $node 2>/dev/null; wait' EXIT
ready() { rmemctl node describe --timeout 500 rdma://$address:$port >/dev/null 2>&1; }
for try in {1..50}; do
  if ready; then break; fi
  [ "$try" -lt 50 ] || { cat /tmp/rmemd.log; exit 1; }
  sleep 0.1
done

# perftest PROGRAM OPTION...: the line of figures.
perftest() {
  local program=$1; shift
  client_server perftest "$program -d rxe0 -R -F $*" "$program -d rxe0 -R -F $* $address" || return 1
  awk '/^ *[0-9]+ +[0-9]+ +[0-9.]+ +[0-9.]+/ { line = $0 } END { print line }' /tmp/perftest.client
}
ours() {   # ours SIZE: JSON of it
  rmemctl ping --json --size "$1" --depth $depth --seconds 1 --count 1000 --timeout 30000 rdma://$address:$port
}
# Of ping's JSON: the FIELD of the one OPERATION with that depth.
field() {
  python3 -c 'import json, sys
operation, depth, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
print(next(m[name] for m in json.load(sys.stdin)["measurements"] if m["operation"] == operation and m["depth"] == depth))' "$@"
}

perftest_turn() {
  local round=$1 kind
  for kind in write read; do
    # perftest's MB are 2^20 bytes; columns: size, iterations, peak, average.
    perftest ib_${kind}_bw -s 65536 -n 1000 | awk -v r="$round" -v k=$kind '{ print "figure", r, "perftest", k "_bw", $4 * 1048576 }'
    # Columns: size, iterations, minimum, maximum, typical (the median), in microseconds.
    perftest ib_${kind}_lat -s 4096 -n 1000 | awk -v r="$round" -v k=$kind '{ print "figure", r, "perftest", k "_lat", $5 / 1e6 }'
  done
}
our_turn() {
  local round=$1 kind
  ours 64K >/tmp/bandwidth.json
  ours 4K >/tmp/latency.json
  for kind in write read; do
    echo "figure $round ours ${kind}_bw $(field $kind $depth bytes_per_second </tmp/bandwidth.json)"
    echo "figure $round ours ${kind}_lat $(field $kind 1 median_seconds </tmp/latency.json)"
  done
}

for ((round = 0; round < rounds; round++)); do
  if ((round % 2 == 0)); then perftest_turn $round; our_turn $round; else our_turn $round; perftest_turn $round; fi
done
