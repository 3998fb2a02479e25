# shellcheck shell=bash disable=SC2034
# What every test in a guest shares: the runner, a place to work in, its clean-up, and the checks' words.
#
# usage, first line of a test:  source "$(dirname "$0")/lib.sh"    (argument of the test: the kernel's package, if any)
# Environment: RMEMFS_BIN (the programs), RMEMFS_HELPERS (the oracles of tests/mount), RMEMFS_SOURCE (this source tree),
# RMEMFS_LONG=1 (more rounds, and more kernels).
#
# A test is skipped when no guest can be run here: the first run-vm or run-pair through `guest` or `pair` says so.
set -euo pipefail
shopt -s inherit_errexit

KERNEL=${1:-linux-image-amd64}
NEW_KERNEL=linux-image-6.12-amd64
SOURCE=${RMEMFS_SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
BIN=${RMEMFS_BIN:-}
HELPERS=${RMEMFS_HELPERS:-$BIN}
HERE=$SOURCE/tests/vm
export LC_ALL=C

WORK=$(mktemp -d "${TMPDIR:-/tmp}/rmemfs-vm.XXXXXX")   # the same path in guests, writable
PASSED=0

say() { printf '%s\n' "-- $*"; }
pass() { PASSED=$((PASSED + 1)); printf '%s\n' "ok: $*"; }
fail() { printf '%s\n' "FAILED: $*" >&2; exit 1; }
now_ms() { local us=${EPOCHREALTIME/./}; echo $((us / 1000)); }
alive() { [ -n "${1:-}" ] && kill -0 "$1" 2>/dev/null; }

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
  local end=$(( $(now_ms) + $1 * 1000 )); shift
  until "$@" >/dev/null 2>&1; do
    [ "$(now_ms)" -lt "$end" ] || return 1
    sleep 0.05
  done
}

# What a guest sees of this machine: where the test works, the sources, and the build wherever it is.
guest_options() {
  OPTIONS=(--kernel "$KERNEL" --share "$WORK" --read "$SOURCE")
  if [ -n "$BIN" ]; then OPTIONS+=(--read "$(dirname "$BIN")"); fi
}

# guest STATUS [OPTION...] -- COMMAND...: runs it in a guest, output in $WORK/output and shown; it ends with STATUS.
guest() {
  local expected=$1 status=0; shift
  guest_options
  "$HERE/run-vm" "${OPTIONS[@]}" "$@" >"$WORK/output" 2>&1 || status=$?
  judge "$expected" $status "$*"
}
# pair STATUS [OPTION...] -- SCRIPT [ARG...]: the same in two guests.
pair() {
  local expected=$1 status=0; shift
  guest_options
  "$HERE/run-pair" "${OPTIONS[@]}" "$@" >"$WORK/output" 2>&1 || status=$?
  judge "$expected" $status "$*"
}
judge() {
  cat "$WORK/output"
  if [ "$2" = 77 ] && [ "$1" != 77 ]; then exit 77; fi   # the line "skipped: why" has been shown
  [ "$2" = "$1" ] || fail "status $2 instead of $1 from: $3"
}

# on_each_kernel FUNCTION: calls it, and with RMEMFS_LONG a second time on the newer kernel, where the device offers more.
on_each_kernel() {
  "$1"
  if [ -z "${RMEMFS_LONG:-}" ]; then return 0; fi
  KERNEL=$NEW_KERNEL
  "$1"
}

# shellcheck disable=SC2317  # the traps call it
cleanup() {
  local status=$?
  trap - EXIT TERM INT
  set +e
  # shellcheck disable=SC2046  # each pid is a word
  kill $(jobs -p) 2>/dev/null
  wait 2>/dev/null
  rm -rf "$WORK"
  [ $status = 0 ] && echo "passed: $PASSED checks of $(basename "$0") on $KERNEL"
  exit $status
}
trap cleanup EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
