#!/bin/bash
# The runner itself: statuses pass through, guests that hang or die are told apart, and nothing is left running.
source "$(dirname "$0")/lib.sh"

# gone PID: the QEMU that had this pid has ended (the pid may be somebody else's by now).
gone() { ! alive "$1" || ! grep -q qemu "/proc/$1/comm"; }
# reap: waits for the runner; its exit status in `status`. Not in a subshell, whose child it is not.
reap() { status=0; wait "$RUNNER" || status=$?; }
# start COMMAND...: run-vm or run-pair with what its guest runs, in the background; RUNNER and QEMU are their pids.
start() {
  rm -f "$WORK/running" "$WORK"/pid*
  TMPDIR=$WORK/tmp "$@" >"$WORK/output" 2>&1 &
  RUNNER=$!
  wait_for 90 test -e "$WORK/running" || { cat "$WORK/output"; fail "the guest's command does not begin: $*"; }
  QEMU=$(cat "$WORK/pid" "$WORK/pid0" 2>/dev/null) || true
  alive "$QEMU" || fail "QEMU is not there while its guest runs: $*"
}
left_nothing() {
  wait_for 10 gone "$QEMU" || fail "QEMU outlives $1"
  wait_for 10 test -z "$(ls "$WORK/tmp")" || fail "$1 leaves $(ls "$WORK/tmp")"
}
mkdir "$WORK/tmp"

# Words with quotes, spaces and nothing in them arrive as they are; what is shared can be written, what is read cannot.
cat >"$WORK/words.sh" <<'END'
printf '<%s>' "$@"; echo
touch "$1/from-guest" || exit 1
if touch "$2/from-guest" 2>/dev/null; then exit 2; fi
[ -s "$2/tests/vm/lib.sh" ] || exit 3
exit 7
END
# shellcheck disable=SC2016  # it is the point
guest 7 -- sh "$WORK/words.sh" "$WORK" "$SOURCE" "it's" '' 'a  b $HOME'
grep -qF "<it's><><a  b \$HOME>" "$WORK/output" || fail "the words came otherwise"
[ -e "$WORK/from-guest" ] || fail "what a guest wrote to a shared directory is not there"
pass "words, shared directories and exit status 7 pass through"

guest_options
SLEEP=(sh -c "touch $WORK/running; exec sleep 1000")
began=$(now_ms)
start "$HERE/run-vm" "${OPTIONS[@]}" --pidfile "$WORK/pid" --timeout 20 -- "${SLEEP[@]}"
reap
[ "$status" = 124 ] || fail "a guest that hangs ended with status $status"
took=$(($(now_ms) - began))
[ $took -lt 45000 ] || fail "a guest with 20 s was ended after $took ms"
left_nothing "a guest that hangs"
pass "a guest that hangs is ended at its time limit with status 124"

guest 125 -- sh -c 'echo c >/proc/sysrq-trigger; sleep 60'
pass "a guest whose kernel panics gives status 125"

start "$HERE/run-vm" "${OPTIONS[@]}" --pidfile "$WORK/pid" -- "${SLEEP[@]}"
kill -TERM "$RUNNER"
reap
[ "$status" = 143 ] || fail "run-vm ended with status $status after SIGTERM"
left_nothing "run-vm after SIGTERM"
start "$HERE/run-vm" "${OPTIONS[@]}" --pidfile "$WORK/pid" -- "${SLEEP[@]}"
kill -KILL "$RUNNER"
reap 2>/dev/null
wait_for 10 gone "$QEMU" || fail "QEMU outlives run-vm after SIGKILL"
rm -rf "$WORK"/tmp/*
pass "QEMU ends with run-vm, after SIGTERM and after SIGKILL"

# Two guests: they reach each other over RDMA; one is killed and the other goes on.
cat >"$WORK/pair.sh" <<'END'
role=$1 mine=$2 peer=$3 meet=$4
if [ "$role" = 0 ]; then
  rping -s -a "$mine" -C 3 & server=$!
  sleep 0.5; touch "$meet/listening"
  wait $server || exit 11
  touch "$meet/running"
  exec sleep 1000
fi
until [ -e "$meet/listening" ]; do sleep 0.1; done
rping -c -a "$peer" -C 3 -v || exit 12
until [ -e "$meet/killed" ]; do sleep 0.1; done
exit 9
END
start "$HERE/run-pair" --state "$WORK" "${OPTIONS[@]}" --timeout 150 -- "$WORK/pair.sh" "$WORK"
kill -KILL "$QEMU"
touch "$WORK/killed"
reap
cat "$WORK/output"
ends="$status $(cat "$WORK/status0") $(cat "$WORK/status1")"
[ "$ends" = "125 125 9" ] || fail "the pair and its two guests ended with $ends"
[ "$(grep -c '^1| ping data' "$WORK/output")" = 3 ] || fail "rping between two guests did not exchange 3 pieces of data"
left_nothing "a pair"
pass "two guests reach each other, and a killed one gives 125 while the other goes on"
