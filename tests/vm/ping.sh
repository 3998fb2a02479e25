#!/bin/bash
# rmemctl ping and rmemctl doctor where there is RDMA: they measure over it, and find what is made wrong on purpose.
source "$(dirname "$0")/lib.sh"

cat >"$WORK/ping.sh" <<'END'
set -eu
address=rdma://10.77.0.1:7471
rmemd --size 32M --listen $address --insecure >/tmp/rmemd.log 2>&1 & node=$!
for try in $(seq 100); do
  if rmemctl node describe $address >/dev/null 2>&1; then break; fi
  [ "$try" -lt 100 ] || { cat /tmp/rmemd.log; exit 1; }
  sleep 0.1
done
describe() { rmemctl node describe --json $address; }
# Without the right to exceed the limit on locked memory, which root has.
doctor() { setpriv --bounding-set=-ipc_lock rmemctl doctor --json "$@" >"$WORK/$name.json" || echo "doctor $name: status $?"; }

for poll in spin block; do
  rmemctl ping --json --poll $poll --count 100 --seconds 0.3 --timeout 20000 $address >"$WORK/ping-$poll.json"
done
describe >"$WORK/after.json"
name=well; doctor $address
ulimit -l 64
name=memlock; doctor --memory 64M
ulimit -l unlimited
# Somebody answers the control plane there, and nobody RDMA.
rmemd --size 32M --listen tcp://10.77.0.1:7472 --insecure >/tmp/tcp.log 2>&1 & other=$!
for try in $(seq 100); do rmemctl node describe tcp://10.77.0.1:7472 >/dev/null 2>&1 && break; sleep 0.1; done
name=no_rdma; doctor --timeout 2000 rdma://10.77.0.1:7472
ip link set dummy0 down
name=port; doctor
ip link set dummy0 up
kill $node $other
wait
END
guest 0 --timeout 200 --cwd "$WORK" -- env WORK="$WORK" PATH="$BIN:/usr/sbin:/usr/bin:/sbin:/bin" sh "$WORK/ping.sh"

python3 - "$WORK" <<'END'
import json, sys
def load(name):
    with open(f"{sys.argv[1]}/{name}.json") as file:
        return json.load(file)
def finding(name, check):
    found = [f for f in load(name)["findings"] if f["check"] == check]
    assert found, f"{name}: nothing about {check}"
    return max(found, key=lambda f: ["ok", "note", "warn", "problem"].index(f["status"]))
def expect(name, check, status, *texts):
    f = finding(name, check)
    assert f["status"] == status, f
    for text in texts:
        assert text in f["text"] + " -> " + f["fix"], f
for poll in ("spin", "block"):
    measured = load(f"ping-{poll}")["measurements"]
    assert len(measured) == 6 and all(m["operations"] > 0 and m["min_seconds"] > 0 for m in measured), measured
after = load("after")
assert after["regions"] == 0 and after["free_bytes"] == after["pool_bytes"], after
expect("well", "rdma device", "ok", "rxe0", "atomics")
expect("well", "rdma port", "ok", "active", "MTU 4096", "10.77.0.1 (RoCE v2 on dummy0)")
expect("well", "rdma modules", "ok")
expect("well", "memlock", "ok")
expect("well", "node control", "ok")
expect("well", "node data", "ok", "4 KiB read")
assert load("well")["problems"] == 0, load("well")
expect("memlock", "memlock", "problem", "64.0 KiB", "64.0 MiB (--memory)", "LimitMEMLOCK")
expect("no_rdma", "node control", "ok")
expect("no_rdma", "node data", "problem", "rdma://10.77.0.1:7472: nobody listens", "tcp://")
expect("port", "rdma port", "warn", "ip link set dummy0 up")
END
pass "ping measures over RDMA; the doctor finds the port that is down and the node that has no RDMA"
