#!/bin/bash
# Redis with an append-only file, synced before every answer and rewritten all the while: after kill -9 of the server, and
# of the mount, every acknowledged key is there; redis-check-aof and redis-check-rdb find nothing.
source "$(dirname "$0")/lib.sh"
must_have redis-check-rdb redis-check-aof redis-cli python3
# One program, which goes by its name; Debian's redis-server is a link to redis-check-rdb too, and a service besides.
ln -s "$(command -v redis-check-rdb)" "$WORK/redis-server"
new_fs
data=$MNT/redis socket=$WORK/redis.sock
mkdir "$data"
redis() { redis-cli -s "$socket" "$@"; }
answers() { [ "$(redis PING 2>/dev/null)" = PONG ]; }
start_server() {
  spawn redis "$WORK/redis-server" --port 0 --unixsocket "$socket" --dir "$data" --save '' --appendonly yes --appendfsync always \
    --auto-aof-rewrite-percentage 50 --auto-aof-rewrite-min-size 256kb --aof-use-rdb-preamble "${1:-yes}"
  wait_for 60 answers || fail "the server does not start"
}
stop_server() { redis SHUTDOWN NOSAVE >/dev/null 2>&1 || true; ended redis 30 || fail "the server does not stop"; reap redis || fail "the server stopped with status $?"; }
check_files() { redis-check-aof "$data/appendonlydir/appendonly.aof.manifest" >"$WORK/aof.log" 2>&1 || { cat "$WORK/aof.log" >&2; fail "redis-check-aof $1"; }; }

cat >"$WORK/client.py" <<'PYTHON'
"""Clients that set and push until the server is gone, then say how far each was acknowledged; and the check of that."""
import socket, sys, threading

what, path, round_, clients = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def value(who, i):
    return b"%d.%d.%d-" % (round_, who, i) * (i * 7 % 60 + 1)

class Connection:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")

    def call(self, *words):
        return self.calls([words])[0]

    def calls(self, commands):
        self.socket.sendall(b"".join(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words) for words in commands))
        return [self.answer() for _ in commands]

    def answer(self):
        line = self.lines.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError
        kind, rest = line[:1], line[1:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        if kind == b"$":
            return None if rest == b"-1" else self.lines.read(int(rest) + 2)[:-2]
        if kind == b"-":
            sys.exit("the server says: " + rest.decode())
        return rest

def load(who, acknowledged):
    connection, i = Connection(), 0
    try:
        while True:
            connection.call(b"SET", b"key:%d:%d:%d" % (round_, who, i), value(who, i))
            connection.call(b"RPUSH", b"list:%d:%d" % (round_, who), b"%d" % i)
            i += 1
            acknowledged[who] = i
    except OSError:
        pass

if what == "load":
    acknowledged = [0] * clients
    threads = [threading.Thread(target=load, args=(who, acknowledged)) for who in range(clients)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(*acknowledged)
else:
    acknowledged, connection = [int(word) for word in sys.argv[5:]], Connection()
    assert len(acknowledged) == clients
    for who, count in enumerate(acknowledged):
        if not count: sys.exit("client %d has had no answer" % who)
        for start in range(0, count, 100):
            numbers = range(start, min(start + 100, count))
            values = connection.calls([(b"GET", b"key:%d:%d:%d" % (round_, who, i)) for i in numbers])
            for i, there in zip(numbers, values):
                if there != value(who, i): sys.exit("key %d of client %d is lost" % (i, who))
        pushed = [int(word) for word in connection.call(b"LRANGE", b"list:%d:%d" % (round_, who), b"0", b"-1")]
        # The one under way may be there as well.
        if pushed not in (list(range(count)), list(range(count + 1))): sys.exit("the list of client %d is wrong" % who)
PYTHON

clients=8 total=0
start_server
for ((round = 1; round <= $(pick 2 20); round++)); do
  victim=redis
  [ $((round % 2)) = 1 ] || victim=mount
  python3 "$WORK/client.py" load "$socket" $round $clients >"$WORK/acknowledged$round" 2>"$WORK/client.log" & client=$!
  sleep "$(pick 1 4).$((RANDOM % 900 + 100))"
  alive $client || { cat "$WORK/client.log" >&2; fail "the clients ended before the kill"; }
  kill_now $victim
  if [ $victim = mount ]; then
    MOUNT_PID=
    ended redis 30 || fail "the server outlives its file system"
    reap redis || true
    detach "$MNT"
    mount_fs
  fi
  wait $client || { cat "$WORK/client.log" >&2; fail "the clients"; }
  start_server "$([ $((round % 3)) = 0 ] && echo no || echo yes)"
  for ((before = 1; before <= round; before++)); do
    read -r -a acknowledged <"$WORK/acknowledged$before"
    python3 "$WORK/client.py" check "$socket" $before $clients "${acknowledged[@]}" || fail "round $before, after kill -9 of the $victim in round $round"
  done
  read -r -a acknowledged <"$WORK/acknowledged$round"
  for count in "${acknowledged[@]}"; do total=$((total + 2 * count)); done
done
rewrites=$(($(sed -n 's/^file appendonly\.aof\.\([0-9]*\)\.base.*/\1/p' "$data/appendonlydir/appendonly.aof.manifest") - 1))
[ $rewrites -gt 0 ] || fail "the append-only file was never rewritten"
pass "$total acknowledged writes, none lost over $rewrites rewrites"
redis SAVE >/dev/null
keys=$(redis DBSIZE)
stop_server
check_files "after a clean end"
remount_fs
check_files "after a remount"
redis-check-rdb "$data/dump.rdb" >"$WORK/rdb.log" 2>&1 || { cat "$WORK/rdb.log" >&2; fail redis-check-rdb; }
start_server
[ "$(redis DBSIZE)" = "$keys" ] || fail "$(redis DBSIZE) keys after a remount, $keys before"
stop_server
pass "redis-check-aof and redis-check-rdb find nothing"
umount_fs
fsck_clean
