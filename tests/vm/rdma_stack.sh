#!/bin/bash
# The RDMA stack of a guest works: rdma_cm, reliable connections, one-sided writes and reads, with other people's programs.
source "$(dirname "$0")/lib.sh"

cat >"$WORK/verbs.sh" <<'END2'
# Servers and clients of one guest reach each other by the device's own address, not over lo.
set -eu
source "$1/client_server.sh"
ibv_devinfo -d rxe0 | grep -q 'state:.*PORT_ACTIVE' || { echo "rxe0 is not active"; exit 1; }
both() { client_server "$@" || { echo "$1: no pair came to its end"; exit 1; }; }
address=10.77.0.1
both rping "rping -s -a $address -C 5 -V" "rping -c -a $address -C 5 -V -v"
echo "rping: $(grep -c '^ping data' /tmp/rping.client) exchanges compared"
both pingpong "ibv_rc_pingpong -d rxe0 -g 1 -n 50" "ibv_rc_pingpong -d rxe0 -g 1 -n 50 $address"
echo "ibv_rc_pingpong: $(tail -n 1 /tmp/pingpong.client)"
for program in ib_write_lat ib_read_lat; do
  both $program "$program -d rxe0 -R -n 100 -s 4096" "$program -d rxe0 -R -n 100 -s 4096 $address"
  echo "$program: $(awk '$1 == 4096 { print $6 }' /tmp/$program.client) us for 4096 bytes"
done

# The pairs above are started anew when a side fails; that this ends, and that a failure stays one, is seen here.
failed() {   # failed NAME LINES REASON: no pair came to its end, and all tries say so
  if client_server "$1" "$4" "$5" 2>/tmp/$1.said; then echo "$1: taken for a good pair"; exit 1; fi
  [ "$(grep -c "^$1, try .: $3" /tmp/$1.said)" = "$2" ] || { cat /tmp/$1.said; exit 1; }
}
TRIES=2 TRY_SECONDS=2 failed deaf 2 "the server does not listen" "sleep 60" true
TRIES=1 TRY_SECONDS=10 failed hanging 1 "the client hangs" "rping -s -a $address -C 5" "sleep 60"
TRIES=2 failed broken 2 "the client ended with 1" "rping -s -a $address -C 5" false
TRIES=3 failed dead 3 "the server ended with 1 before it listened" false true
# One that fails once and goes well then.
once='if [ -e /tmp/once ]; then exec rping -c -a 10.77.0.1 -C 5; fi; touch /tmp/once; exit 3'
printf '%s\n' "$once" >/tmp/once.sh
client_server once "rping -s -a $address -C 5" "sh /tmp/once.sh" 2>/tmp/again || { cat /tmp/again; exit 1; }
grep -q '^once, try 1: the client ended with 3' /tmp/again || { cat /tmp/again; exit 1; }
if pgrep -x rping; then echo "a pair is left behind"; exit 1; fi
echo "retries: as they should be"
END2
guest 0 --timeout 240 -- bash "$WORK/verbs.sh" "$HERE"
grep -q '^rping: 5 exchanges' "$WORK/output" || fail "rping did not exchange 5 pieces of data"
grep -q '^ibv_rc_pingpong: 50 iters in [0-9.]* seconds' "$WORK/output" || fail "ibv_rc_pingpong gave no figure"
for program in ib_write_lat ib_read_lat; do
  grep -Eq "^$program: [0-9]+\.[0-9]+ us" "$WORK/output" || fail "$program gave no figure"
done
grep -q '^retries: as they should be' "$WORK/output" || fail "the retries were not seen"
pass "rping, ibv_rc_pingpong, ib_write_lat and ib_read_lat over rxe0"
