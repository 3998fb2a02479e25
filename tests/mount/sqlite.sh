#!/bin/bash
# SQLite in WAL and rollback mode: many transactions, two processes at once, integrity_check through a cold cache.
source "$(dirname "$0")/lib.sh"
need sqlite3
new_fs
transactions=$(pick 500 4000)

statements() {   # WHO COUNT: one transaction each, and now and then an update and a delete
  awk -v who="$1" -v n="$2" 'BEGIN {
    print ".timeout 60000"
    for (i = 1; i <= n; i++) {
      printf "BEGIN IMMEDIATE; INSERT INTO t(who, i, x) VALUES(%d, %d, hex(randomblob(%d)));", who, i, 20 + i % 700
      if (i % 5 == 0) printf " UPDATE t SET x = x || %d WHERE who = %d AND i = %d;", i, who, i - 3
      print " COMMIT;"
    } }'
}
for mode in wal delete; do
  db=$MNT/$mode.db
  [ "$(sqlite3 "$db" "PRAGMA journal_mode=$mode;")" = "$mode" ] || fail "journal_mode=$mode is refused"
  sqlite3 "$db" "CREATE TABLE t(who INT, i INT, x TEXT, PRIMARY KEY(who, i));"
  say "$mode: one process, $transactions transactions; then two at once"
  statements 1 "$transactions" | sqlite3 -bail "$db"
  statements 2 $((transactions / 2)) >"$WORK/two.sql"
  statements 3 $((transactions / 2)) >"$WORK/three.sql"
  sqlite3 -bail "$db" <"$WORK/two.sql" >"$WORK/two.log" 2>&1 & two=$!
  sqlite3 -bail "$db" <"$WORK/three.sql" >"$WORK/three.log" 2>&1 & three=$!
  wait $two || fail "the first of two writers failed"
  wait $three || fail "the second of two writers failed"
done
check() {
  local mode
  for mode in wal delete; do
    [ "$(sqlite3 "$MNT/$mode.db" 'PRAGMA integrity_check;')" = ok ] || fail "$mode: integrity_check $1"
    [ "$(sqlite3 "$MNT/$mode.db" 'SELECT count(*), count(DISTINCT who) FROM t;')" = "$((transactions * 2))|3" ] || fail "$mode: rows are missing $1"
    pass "$mode: integrity_check and all rows $1"
  done
}
check "at once"
remount_fs
check "after a remount"

say "kill -9 of the mount between two transactions loses neither"
sqlite3 "$MNT/delete.db" "INSERT INTO t VALUES(9, 1, 'kept');"
sqlite3 "$MNT/wal.db" "INSERT INTO t VALUES(9, 1, 'kept');"
kill_mount
mount_fs
for mode in wal delete; do
  [ "$(sqlite3 "$MNT/$mode.db" 'SELECT x FROM t WHERE who = 9; PRAGMA integrity_check;')" = $'kept\nok' ] || fail "$mode: the last transaction is gone"
done
pass "the last transactions survive the daemon"
umount_fs
fsck_clean
