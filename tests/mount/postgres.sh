#!/bin/bash
# PostgreSQL on the mount, with checksums in every page: pgbench, kill -9 of every server process and of the mount under
# load. After each, every acknowledged transaction is there and the books balance; at the end pg_amcheck and pg_checksums.
source "$(dirname "$0")/lib.sh"
programs=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$programs" ] || fail "PostgreSQL is not installed"
PATH=$programs:$PATH
must_have psql initdb pgbench pg_amcheck pg_checksums setpriv
new_fs
data=$MNT/data
export PGHOST=$WORK/run PGDATABASE=postgres PGUSER=postgres PGOPTIONS=--client-min-messages=warning
mkdir "$PGHOST" "$data"
as=()   # the server refuses to run as root
if [ "$(id -u)" = 0 ]; then
  chown postgres "$PGHOST" "$data"
  as=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi
cd /      # where any user may be

sql() { psql -XAtq -v ON_ERROR_STOP=1 -c "$1"; }
start_server() {
  spawn postgres "${as[@]}" postgres -D "$data" -k "$PGHOST" -c listen_addresses= -c shared_buffers=16MB -c max_wal_size=64MB \
    -c wal_sync_method="${1:-fdatasync}" -c full_page_writes=on
  wait_for 60 pg_isready -q || fail "the server does not start"
}
# A server process can outlive the one that started it, and its memory then keeps the next server from starting.
kill_server() {
  local children child
  children=$(ps -o pid= --ppid "${PID[postgres]}" || true)
  kill_now postgres
  for child in $children; do
    kill -9 "$child" 2>/dev/null || true
    wait_for 20 eval "[ ! -e /proc/$child ]" || fail "server process $child outlives kill -9"
  done
}
stop_server() { signal INT postgres; ended postgres 60 || fail "the server does not stop"; reap postgres || fail "the server stopped with status $?"; }

clients=4 acknowledged=0 rounds=0
# load SECONDS: in the background; a line of its log is a transaction whose commit was acknowledged.
load() {
  rounds=$((rounds + 1))
  mkdir "$WORK/load$rounds"
  spawn pgbench pgbench -n -c $clients -j 2 -T "$1" --log --log-prefix="$WORK/load$rounds/log"
}
count() { acknowledged=$((acknowledged + $(cat "$WORK/load$rounds"/log.* | wc -l))); }
check() {   # WHEN UNDER_WAY: each client may have one transaction that was committed and not acknowledged
  local there
  there=$(sql "SELECT count(*) FROM pgbench_history")
  [ "$acknowledged" -gt 0 ] || fail "no transaction was acknowledged $1"
  [ "$there" -ge "$acknowledged" ] || fail "$1 $there transactions are there of $acknowledged acknowledged"
  [ "$there" -le $((acknowledged + $2)) ] || fail "$1 $there transactions are there, and $acknowledged were acknowledged"
  acknowledged=$there
  [ "$(sql "SELECT (SELECT sum(delta) FROM pgbench_history) = ALL (SELECT sum(abalance) FROM pgbench_accounts UNION ALL
    SELECT sum(bbalance) FROM pgbench_branches UNION ALL SELECT sum(tbalance) FROM pgbench_tellers)")" = t ] || fail "the books do not balance $1"
  pass "$there transactions, and the books balance $1"
}

say "initdb and pgbench -i"
"${as[@]}" initdb -D "$data" --data-checksums --no-locale -E UTF8 -A trust -U postgres >"$WORK/initdb.log" 2>&1 || { cat "$WORK/initdb.log" >&2; fail initdb; }
start_server
pgbench -i -q -s "$(pick 2 30)" >"$WORK/init.log" 2>&1 || { cat "$WORK/init.log" >&2; fail "pgbench -i"; }
load "$(pick 1 60)"
reap pgbench || fail "pgbench failed"
count
check "after pgbench" 0

methods=(fdatasync open_datasync fsync open_sync)
for ((round = 0; round < $(pick 1 8); round++)); do
  for victim in server mount; do
    load 600
    sleep "$(pick 0 5).$((RANDOM % 500 + 500))"
    alive "${PID[pgbench]}" || fail "pgbench ended before the kill"
    if [ $victim = mount ]; then
      kill_now mount
      MOUNT_PID=
    fi
    kill_server
    reap pgbench && fail "pgbench did not notice that its server died"
    count
    if [ $victim = mount ]; then
      detach "$MNT"
      mount_fs
    fi
    rm "$WORK/postgres.log"
    start_server "${methods[round % 4]}"
    grep -q 'automatic recovery in progress' "$WORK/postgres.log" || fail "the server says nothing of a recovery"
    check "after kill -9 of the $victim" $clients
  done
done

say "pg_amcheck and pg_checksums"
pg_amcheck --all --install-missing --heapallindexed --parent-check >"$WORK/amcheck.log" 2>&1 || { cat "$WORK/amcheck.log" >&2; fail "pg_amcheck"; }
pass "pg_amcheck finds nothing"
stop_server
remount_fs
"${as[@]}" pg_checksums --check -D "$data" >"$WORK/checksums.log" 2>&1 || { cat "$WORK/checksums.log" >&2; fail "pg_checksums"; }
grep -q '^Bad checksums: *0$' "$WORK/checksums.log" || fail "pg_checksums: $(cat "$WORK/checksums.log")"
pass "pg_checksums finds nothing after a remount: $(grep -o 'Blocks scanned.*' "$WORK/checksums.log")"
umount_fs
fsck_clean
