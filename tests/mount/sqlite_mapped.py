#!/usr/bin/python3
"""SQLite in WAL mode, reading through mappings, with several processes at once.

usage: sqlite_mapped.py make DATABASE
       sqlite_mapped.py write DATABASE WHO LOG   transactions until it is killed or one fails (status 2); LOG has those committed
       sqlite_mapped.py read DATABASE            reads until it is killed; a wrong answer is status 1
       sqlite_mapped.py check DATABASE LOG...    all that was committed is there; LOG ... of writers 1, 2, ...
Writer WHO keeps two accounts, whose sum is 0 after every transaction, and a row for each.
"""
import os
import sqlite3
import sys


def connect(path):
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    if connection.execute("PRAGMA mmap_size=268435456").fetchone() != (268435456,):
        sys.exit("mmap_size is refused")
    if connection.execute("PRAGMA journal_mode=wal").fetchone() != ("wal",):
        sys.exit("journal_mode=wal is refused")
    connection.execute("PRAGMA synchronous=full")
    connection.execute("PRAGMA wal_autocheckpoint=200")
    return connection


def text(who, i):
    return ("%d.%d/" % (who, i)) * (i * 13 % 250 + 1)


def write(path, who, log):
    acknowledged = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        connection = connect(path)
        i = connection.execute("SELECT coalesce(max(i), 0) FROM t WHERE who = ?", (who,)).fetchone()[0]
        while True:
            i += 1
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO t VALUES (?, ?, ?)", (who, i, text(who, i)))
            connection.execute("UPDATE account SET sum = sum + ? WHERE who = ? AND side = 0", (i, who))
            connection.execute("UPDATE account SET sum = sum - ? WHERE who = ? AND side = 1", (i, who))
            connection.execute("COMMIT")
            os.write(acknowledged, b"%d\n" % i)
    except sqlite3.OperationalError as error:
        print("writer:", error)
        sys.exit(2)


def verify(connection):
    """One snapshot: rows are whole and without gaps, the accounts are balanced and agree with them."""
    connection.execute("BEGIN")
    for who, number, last in connection.execute("SELECT who, count(*), max(i) FROM t GROUP BY who").fetchall():
        if number != last:
            sys.exit("writer %d: %d rows, the last is %d" % (who, number, last))
        sums = [row[0] for row in connection.execute("SELECT sum FROM account WHERE who = ? ORDER BY side", (who,))]
        if sums != [last * (last + 1) // 2, -last * (last + 1) // 2]:
            sys.exit("writer %d: accounts %s after %d transactions" % (who, sums, last))
        for i, x in connection.execute("SELECT i, x FROM t WHERE who = ? ORDER BY i DESC LIMIT 200", (who,)):
            if x != text(who, i):
                sys.exit("writer %d: row %d is other" % (who, i))
    connection.execute("COMMIT")


def read(path):
    try:
        connection = connect(path)
        while True:
            verify(connection)
    except sqlite3.OperationalError as error:
        print("reader:", error)
        sys.exit(2)


def check(path, logs):
    connection = connect(path)
    if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
        sys.exit("integrity_check")
    verify(connection)
    total = 0
    for who, log in enumerate(logs, 1):
        with open(log, encoding="ascii") as lines:
            numbers = [int(line) for line in lines]
        if not numbers:
            sys.exit("writer %d: nothing was committed" % who)
        for i in numbers:
            if connection.execute("SELECT x FROM t WHERE who = ? AND i = ?", (who, i)).fetchone() != (text(who, i),):
                sys.exit("writer %d: row %d was committed and is lost" % (who, i))
        # It may not have come to writing down the last one, each time that it was killed.
        last = connection.execute("SELECT max(i) FROM t WHERE who = ?", (who,)).fetchone()[0]
        if last not in (numbers[-1], numbers[-1] + 1):
            sys.exit("writer %d: %d rows, committed were %d" % (who, last, numbers[-1]))
        total += len(numbers)
    print(total, "committed transactions")


def make(path):
    connection = connect(path)
    connection.execute("CREATE TABLE t (who INT, i INT, x TEXT, PRIMARY KEY (who, i)) WITHOUT ROWID")
    connection.execute("CREATE TABLE account (who INT, side INT, sum INT, PRIMARY KEY (who, side))")
    connection.executemany("INSERT INTO account VALUES (?, ?, 0)", [(who, side) for who in range(1, 10) for side in (0, 1)])


if __name__ == "__main__":
    what, database = sys.argv[1:3]
    if what == "make":
        make(database)
    elif what == "write":
        write(database, int(sys.argv[3]), sys.argv[4])
    elif what == "read":
        read(database)
    else:
        check(database, sys.argv[3:])
