#!/bin/bash
# rmemctl ping and rmemctl doctor against real nodes: they measure, they say what is wrong, and they leave nothing behind.
source "$(dirname "$0")/lib.sh"
POOL=256M
start_nodes
address=${NODE_ADDRESS[1]}

regions() { rmemctl node describe --json "$address" | json 'd["regions"]'; }
free_bytes() { rmemctl node describe --json "$address" | json 'd["free_bytes"]'; }
# refused STATUS COMMAND...: it ends with that status and one sentence.
refused() {
  local expected=$1 status=0; shift
  timeout 20 "$@" >"$WORK/out" 2>"$WORK/sentence" || status=$?
  [ $status = "$expected" ] || fail "$* ended with $status instead of $expected: $(cat "$WORK/sentence")"
  [ "$(wc -l <"$WORK/sentence")" = 1 ] || fail "$* says: $(cat "$WORK/sentence")"
}

whole=$(free_bytes)
for poll in spin block; do
  rmemctl ping --json --count 200 --seconds 0.2 --poll $poll "$address" >"$WORK/ping.json" || fail "ping, $poll"
  measured=$(json '[(m["operation"], m["bytes"], m["depth"]) for m in d["measurements"]]' <"$WORK/ping.json")
  [ "$measured" = "[('read', 8, 1), ('write', 8, 1), ('read', 4096, 1), ('write', 4096, 1), ('read', 1048576, 8), ('write', 1048576, 8)]" ] ||
    fail "ping measured $measured"
  sane='all(0 < m["min_seconds"] <= m["median_seconds"] <= m["p99_seconds"] <= m["max_seconds"] and m["bytes_per_second"] > 0 for m in d["measurements"])'
  [ "$(json "$sane" <"$WORK/ping.json")" = True ] || fail "figures that cannot be: $(cat "$WORK/ping.json")"
  [ "$(json 'd["measurements"][0]["operations"]' <"$WORK/ping.json")" = 200 ] || fail "not 200 operations: $(cat "$WORK/ping.json")"
done
rmemctl ping --size 64K --seconds 0.1 "$address" >"$WORK/text" || fail "ping --size"
[ "$(grep -c '64\.0 KiB' "$WORK/text")" = 4 ] || fail "ping --size 64K prints: $(cat "$WORK/text")"
[ "$(regions)" = 0 ] && [ "$(free_bytes)" = "$whole" ] || fail "ping left $(regions) regions"
pass "ping measures latency and bandwidth, spinning and blocking, and gives its region back"

# File systems in the node's table.
places() { rmemfs-dump pool --json "${NODE_POOL[1]}" | json 'sum(r.get("state") == "used" for r in d)'; }
[ "$(places)" = 0 ] || fail "the node remembers the file systems of ping: $(rmemfs-dump pool "${NODE_POOL[1]}")"
pass "the node forgets ping's file systems"

for signal in INT TERM; do
  # A shell without job control has its background jobs ignore SIGINT; env undoes that.
  env --default-signal=INT rmemctl ping --count 10000000 --seconds 60 "$address" >"$WORK/stopped" 2>&1 &
  PID[ping]=$!
  wait_for 10 eval '[ "$(regions)" = 1 ]' || fail "ping leased nothing"
  [ "$(places)" = 1 ] || fail "the file system of a running ping is not in the node's table"
  signal $signal ping
  ended ping 10 || fail "ping goes on after SIG$signal"
  status=0; reap ping || status=$?
  [ $status = 130 ] || fail "ping ended with $status after SIG$signal: $(cat "$WORK/stopped")"
  [ "$(regions) $(places)" = "0 0" ] || fail "ping left something after SIG$signal"
done
pass "an interrupted ping gives its region back"

refused 4 rmemctl ping --timeout 500 tcp://127.0.0.1:1
refused 4 rmemctl ping --timeout 500 "unix:$WORK/nobody.sock"
refused 2 rmemctl ping somewhere
refused 2 rmemctl ping
refused 2 rmemctl ping --size 17M "$address"
refused 1 rmemctl ping --size 16M --depth 32 "$address"
grep -q 'no room' "$WORK/sentence" || fail "no room: $(cat "$WORK/sentence")"
[ "$(regions)" = 0 ] || fail "a refused ping left a region"
start=$(now_ms)
signal STOP node1
refused 4 rmemctl ping --timeout 700 "$address"
[ $(($(now_ms) - start)) -lt 5000 ] || fail "ping waited $(($(now_ms) - start)) ms for a frozen node"
signal CONT node1
pass "ping of nobody, of a full node and of a frozen one ends with one sentence"

# The doctor: this machine may have problems of its own, which is no business of this test; the nodes' findings are.
make_fs
findings() { json "[f['status'] for f in d['findings'] if f['check'] == '$1']" <"$WORK/doctor.json"; }
doctor() { local status=0; rmemctl doctor --json "$@" >"$WORK/doctor.json" || status=$?; [ $status -le 1 ] || fail "doctor $* ended with $status"; DOCTOR=$status; }
expected=$(python3 -c "print(['ok'] * $NODES)")
doctor "$DIR"
[ "$(findings 'node control')" = "$expected" ] && [ "$(findings 'node data')" = "$expected" ] || fail "doctor DIR: $(cat "$WORK/doctor.json")"
[ "$(json "d['problems'] == sum(f['status'] == 'problem' for f in d['findings'])" <"$WORK/doctor.json")" = True ] || fail "the count of problems"
[ "$DOCTOR" = "$(json "int(d['problems'] > 0)" <"$WORK/doctor.json")" ] || fail "doctor's status $DOCTOR"
[ "$(json "all(f['fix'] for f in d['findings'] if f['status'] in ('warn', 'problem'))" <"$WORK/doctor.json")" = True ] || fail "a problem without a fix"
rmemctl doctor "$address" >"$WORK/text" || true
grep -q '^ok  *node data ' "$WORK/text" || fail "doctor prints: $(cat "$WORK/text")"
[ "$(regions)" = 0 ] || fail "the doctor left a region"
kill_node 1
doctor --timeout 1000 "$address"
[ "$(findings 'node control')" = "['problem']" ] && [ "$(findings 'node data')" = "[]" ] && [ "$DOCTOR" = 1 ] || fail "a dead node: $(cat "$WORK/doctor.json")"
refused 2 rmemctl doctor "$WORK"
pass "the doctor tells nodes that answer from those that do not"
