#!/bin/bash
# The RDMA stack of a guest works: rdma_cm, reliable connections, one-sided writes and reads, with other people's programs.
source "$(dirname "$0")/lib.sh"

cat >"$WORK/verbs.sh" <<'END'
# Servers and clients of one guest reach each other by the device's own address, not over lo.
set -eu
ibv_devinfo -d rxe0 | grep -q 'state:.*PORT_ACTIVE' || { echo "rxe0 is not active"; exit 1; }
both() {   # both NAME SERVER -- CLIENT: the server in the background; both have to end with 0
  name=$1 server=$2 client=$4
  $server >/dev/null 2>"/tmp/$name.err" &
  # The server may take seconds to listen in an emulated guest; who comes too early is refused, and comes again.
  for try in 1 2 3 4 5 6 7 8 9 10; do
    sleep 1
    status=0
    timeout 40 $client >"/tmp/$name.out" 2>&1 || status=$?
    [ $status != 0 ] || break
    kill -0 $! 2>/dev/null || break
  done
  [ $status = 0 ] || { echo "$name: the client ended with $status"; cat "/tmp/$name.out"; exit 1; }
  wait $! || { echo "$name: the server ended with $?"; cat "/tmp/$name.err"; exit 1; }
}
address=10.77.0.1
both rping "rping -s -a $address -C 5 -V" -- "rping -c -a $address -C 5 -V -v"
echo "rping: $(grep -c '^ping data' /tmp/rping.out) exchanges compared"
both pingpong "ibv_rc_pingpong -d rxe0 -g 1 -n 50" -- "ibv_rc_pingpong -d rxe0 -g 1 -n 50 $address"
echo "ibv_rc_pingpong: $(tail -n 1 /tmp/pingpong.out)"
for program in ib_write_lat ib_read_lat; do
  both $program "$program -d rxe0 -R -n 100 -s 4096" -- "$program -d rxe0 -R -n 100 -s 4096 $address"
  echo "$program: $(awk '$1 == 4096 { print $6 }' /tmp/$program.out) us for 4096 bytes"
done
END
guest 0 --timeout 150 -- sh "$WORK/verbs.sh"
grep -q '^rping: 5 exchanges' "$WORK/output" || fail "rping did not exchange 5 pieces of data"
grep -q '^ibv_rc_pingpong: 50 iters in [0-9.]* seconds' "$WORK/output" || fail "ibv_rc_pingpong gave no figure"
for program in ib_write_lat ib_read_lat; do
  grep -Eq "^$program: [0-9]+\.[0-9]+ us" "$WORK/output" || fail "$program gave no figure"
done
pass "rping, ibv_rc_pingpong, ib_write_lat and ib_read_lat over rxe0"
