#!/bin/bash
# SQLite in WAL and rollback mode, with and without mappings: many transactions, several processes at once, integrity_check
# through a cold cache, kill -9.
source "$(dirname "$0")/lib.sh"
must_have sqlite3 python3
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

say "WAL read through mappings, two processes that write and two that read; a writer is killed, then the mount"
here=$(cd "$(dirname "$0")" && pwd)
mapped() { python3 "$here/sqlite_mapped.py" "$1" "$MNT/mapped.db" "${@:2}"; }
mapped make
for ((round = 0; round < $(pick 1 10); round++)); do
  for victim in writer1 mount; do
    for who in 1 2; do
      spawn writer$who python3 "$here/sqlite_mapped.py" write "$MNT/mapped.db" $who "$WORK/committed$who"
      spawn reader$who python3 "$here/sqlite_mapped.py" read "$MNT/mapped.db"
    done
    # More than what is there from the last time.
    for who in 1 2; do
      before=$(stat -c %s "$WORK/committed$who" 2>/dev/null || echo 0)
      wait_for 60 eval "[ \$(stat -c %s '$WORK/committed$who') -gt $before ]" || fail "writer $who commits nothing"
    done
    sleep "$(pick 0 5).$((RANDOM % 500 + 400))"
    for name in writer1 writer2 reader1 reader2; do alive "${PID[$name]}" || { cat "$WORK/$name.log" >&2; fail "$name ended early"; }; done
    kill_now $victim
    if [ $victim = writer1 ]; then
      sleep 0.3   # the others go on
      for name in writer2 reader1 reader2; do
        alive "${PID[$name]}" || { cat "$WORK/$name.log" >&2; fail "$name ended with the writer that was killed"; }
        kill_now $name
      done
    else
      MOUNT_PID=
      for name in writer1 writer2 reader1 reader2; do
        # All that a reader asks for may be in memory.
        case $name in reader*) kill -9 "${PID[$name]}" 2>/dev/null || true ;; esac
        status=0
        ended $name 30 || fail "$name goes on without its file system"
        reap $name || status=$?
        # 135: a page of a mapping whose file system is gone. 137: killed above.
        case $name-$status in *-2 | *-135 | reader*-137) ;; *) cat "$WORK/$name.log" >&2; fail "$name ended with status $status" ;; esac
      done
      detach "$MNT"
      mount_fs
    fi
    mapped check "$WORK/committed1" "$WORK/committed2" >"$WORK/check.txt" || fail "after kill -9 of $victim"
  done
done
pass "mapped: integrity_check and $(cat "$WORK/check.txt") after kill -9"
remount_fs
mapped check "$WORK/committed1" "$WORK/committed2" >"$WORK/check.txt" || fail "mapped, after a remount"
umount_fs
fsck_clean
