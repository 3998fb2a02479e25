# shellcheck shell=bash disable=SC2034,SC2120
# What every mount test shares: memory nodes, a file system on them, a mount, and the clean-up of all three.
#
# usage, first line of a test:  source "$(dirname "$0")/lib.sh"    (arguments of the test: TRANSPORT NODES)
# Environment: RMEMFS_BIN (the programs), RMEMFS_HELPERS (the oracles built from *.cc here), RMEMFS_SOURCE (this source
# tree), RMEMFS_LONG=1 (whole numbers instead of CI's), RDMA_IP (over rdma: this machine's address on an RDMA device).
#
# Rules: every process started is recorded and ended by its pid; nothing is left mounted or in /dev/shm; no status is read
# after a pipe.

set -euo pipefail
shopt -s inherit_errexit

TRANSPORT=${1:-shm}
NODES=${2:-1}
LONG=${RMEMFS_LONG:-}
: "${RMEMFS_BIN:?RMEMFS_BIN names the directory of the programs}"
HELPERS=${RMEMFS_HELPERS:-$RMEMFS_BIN}
SOURCE=${RMEMFS_SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
export PATH="$RMEMFS_BIN:$PATH" LC_ALL=C

POOL=${POOL:-2G}              # size of each node's pool; memory is used only where something is written
CHUNK=${CHUNK:-16M}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/rmemfs-test.XXXXXX")
chmod 755 "$WORK"
DIR=$WORK/fs                  # the metadata directory
MNT=$WORK/mnt
mkdir "$MNT"
MOUNT_PID=
MOUNT_MS=
declare -A PID=() NODE_ADDRESS=() NODE_LISTEN=() NODE_POOL=()
PASSED=0

say() { printf '%s\n' "-- $*"; }
pass() { PASSED=$((PASSED + 1)); printf '%s\n' "ok: $*"; }
fail() { printf '%s\n' "FAILED: $*" >&2; exit 1; }
skip() { printf '%s\n' "skipped: $*"; exit 77; }
pick() { if [ -n "$LONG" ]; then echo "$2"; else echo "$1"; fi; }   # pick CI_VALUE LONG_VALUE
now_ms() { local us=${EPOCHREALTIME/./}; echo $((us / 1000)); }
need() { local p; for p in "$@"; do command -v "$p" >/dev/null || skip "$p is not installed"; done; }
# must_have PROGRAM...: what ./dev installs for the tests; a test of a program is not passed over because it is missing.
must_have() { local p; for p in "$@"; do command -v "$p" >/dev/null || fail "$p is not installed"; done; }
alive() { [ -n "${1:-}" ] && kill -0 "$1" 2>/dev/null; }

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
  local end=$(( $(now_ms) + $1 * 1000 )); shift
  until "$@" >/dev/null 2>&1; do
    [ "$(now_ms)" -lt "$end" ] || return 1
    sleep 0.02
  done
}

# within MILLISECONDS WHAT COMMAND...: it succeeds, in time.
within() {
  local limit=$1 what=$2 start took; shift 2
  start=$(now_ms)
  "$@" || fail "$what: $* failed"
  took=$(( $(now_ms) - start ))
  [ "$took" -le "$limit" ] || fail "$what took $took ms, more than $limit ms"
  pass "$what took $took ms"
}

# spawn NAME COMMAND...: in the background, output in $WORK/NAME.log, pid in ${PID[NAME]}.
spawn() {
  local name=$1; shift
  "$@" >>"$WORK/$name.log" 2>&1 </dev/null &
  PID[$name]=$!
}
# reap NAME: its exit status; the pid is forgotten, so that it is never signalled again.
reap() {
  local pid=${PID[$1]} status=0
  unset "PID[$1]"
  wait "$pid" 2>/dev/null || status=$?
  return $status
}
# ended NAME SECONDS: true once the process has ended (it may be a zombie of ours).
ended() { wait_for "$2" eval "! kill -0 ${PID[$1]} 2>/dev/null || grep -q '^State:.Z' /proc/${PID[$1]}/status"; }
# signal SIGNAL NAME: STOP returns once every thread has stopped, which the signal alone only begins.
signal() {
  kill "-$1" "${PID[$2]}"
  [ "$1" != STOP ] || wait_for 10 frozen "${PID[$2]}" || fail "$2 does not stop"
}
frozen() { ! grep -q '^State:.[^TZ]' /proc/"$1"/task/*/status; }
kill_now() { kill -9 "${PID[$1]}" 2>/dev/null || true; reap "$1" || true; }

cpu_ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }
# Its own resident memory and files: a shm mount also maps the nodes' pools (RssShmem), which are not its memory.
rss_kib() { awk '/^Rss(Anon|File)/ { sum += $2 } END { print sum }' "/proc/$1/status"; }

# private_namespace "$@": goes on in a mount namespace of its own, where a test may change what it needs without changing
# the machine. Root only; without the right to do so the test is skipped.
private_namespace() {
  [ -z "${RMEMFS_IN_NAMESPACE:-}" ] || return 0
  unshare --mount true 2>/dev/null || skip "no mount namespace can be made here"
  rm -rf "$WORK"
  trap - EXIT
  RMEMFS_IN_NAMESPACE=1 exec unshare --mount --propagation private bash "$0" "$@"
}

# mount_by_type "$@": as private_namespace, where mount(8) finds rmemfs: it looks where programs are installed, whatever PATH
# says.
mount_by_type() {
  [ "$(id -u)" = 0 ] || skip "mount(8) needs root"
  private_namespace "$@"
  mount --bind "$RMEMFS_BIN" /usr/local/bin || skip "rmemfs cannot be shown in /usr/local/bin"
}

# ---- memory nodes

random_port() { echo $((20000 + (RANDOM * 32768 + RANDOM) % 12000)); }

# start_node I: starts node I, or starts it again with its own address and pool. Returns once it answers.
start_node() {
  local i=$1 try fifo=$WORK/ready.$1
  NODE_POOL[$i]=/dev/shm/rmemfs-test.$$.$i
  rm -f "$fifo"; mkfifo "$fifo"
  for try in 1 2 3 4 5 6 7 8; do
    if [ "$TRANSPORT" = shm ]; then
      NODE_LISTEN[$i]=unix:$WORK/node$i.sock NODE_ADDRESS[$i]=shm:$WORK/node$i.sock
    elif [ -z "${NODE_LISTEN[$i]:-}" ]; then
      if [ "$TRANSPORT" = rdma ]; then NODE_LISTEN[$i]=rdma://$RDMA_IP; else NODE_LISTEN[$i]=tcp://127.0.0.1; fi
      NODE_LISTEN[$i]+=:$(random_port); NODE_ADDRESS[$i]=${NODE_LISTEN[$i]}
    fi
    rmemd ${RDMA_IP:+--insecure} --size "$POOL" --pool "${NODE_POOL[$i]}" --listen "${NODE_LISTEN[$i]}" --ready-fd 9 \
      9>"$fifo" >>"$WORK/node$i.log" 2>&1 </dev/null &
    PID[node$i]=$!
    timeout 20 head -c 1 <"$fifo" >/dev/null || fail "node $i said nothing for 20 s"
    sleep 0.02
    if alive "${PID[node$i]}" && ! grep -q '^State:.Z' "/proc/${PID[node$i]}/status"; then rm -f "$fifo"; return 0; fi
    reap "node$i" || true
    # A restart keeps its port; only a first start may choose another one, which somebody else may have taken.
    [ -e "$DIR" ] || unset "NODE_LISTEN[$i]"
    sleep 0.2
  done
  tail -5 "$WORK/node$i.log" >&2
  fail "node $i does not start"
}
start_nodes() { local i; for ((i = 1; i <= NODES; i++)); do start_node "$i"; done; }
kill_node() { kill_now "node$1"; }
signal_nodes() { local i; for ((i = 1; i <= NODES; i++)); do signal "$1" "node$i"; done; }

# ---- file system and mount

make_fs() {   # make_fs [MKFS OPTION...]
  local i args=()
  for ((i = 1; i <= NODES; i++)); do args+=(--node "${NODE_ADDRESS[$i]}"); done
  mkfs.rmemfs "${args[@]}" --chunk-size "$CHUNK" "$@" "$DIR" >"$WORK/mkfs.log" 2>&1 || { cat "$WORK/mkfs.log" >&2; fail mkfs; }
}

# mount_fs [OPTIONS]: in the foreground of a background job, so that its pid and its exit status are ours. MOUNT_MS: how
# long it took until the root directory could be listed.
mount_fs() {
  local start; start=$(now_ms)
  spawn mount rmemfs -f ${1:+-o "$1"} "$DIR" "$MNT"
  MOUNT_PID=${PID[mount]}
  until mountpoint -q "$MNT" 2>/dev/null; do
    if ! alive "$MOUNT_PID" || grep -q '^State:.Z' "/proc/$MOUNT_PID/status"; then tail -5 "$WORK/mount.log" >&2; fail "the mount ended"; fi
    [ $(($(now_ms) - start)) -lt 30000 ] || fail "the mount does not appear"
    sleep 0.005
  done
  ls "$MNT" >/dev/null
  MOUNT_MS=$(($(now_ms) - start))
}

unmount() { if [ "$(id -u)" = 0 ]; then umount "$@"; else fusermount3 -u "$@"; fi; }
detach() { umount -l "$1" 2>/dev/null || fusermount3 -uz "$1" 2>/dev/null || true; }

# umount_fs: a clean end: umount works, the daemon exits with 0.
umount_fs() {
  local i
  for i in 1 2 3 4 5 6 7 8 9 10; do unmount "$MNT" 2>>"$WORK/umount.log" && break; [ "$i" -lt 10 ] || fail "umount: $(tail -1 "$WORK/umount.log")"; sleep 0.2; done
  ended mount 15 || fail "the daemon is still there 15 s after umount"
  reap mount || fail "the daemon ended with status $? after umount"
  MOUNT_PID=
}
kill_mount() { kill_now mount; MOUNT_PID=; detach "$MNT"; }
remount_fs() { umount_fs; mount_fs "$@"; }

fsck_clean() {
  local status=0
  fsck.rmemfs -n "$DIR" >"$WORK/fsck.log" 2>&1 || status=$?
  [ $status = 0 ] || { cat "$WORK/fsck.log" >&2; fail "fsck -n found something (status $status)"; }
  pass "fsck finds nothing"
}

new_fs() { start_nodes; make_fs; mount_fs "${1:-}"; }

# json EXPRESSION <JSON: evaluates the expression over the document `d`; fails if the input is no JSON.
json() { python3 -c 'import json,sys; d=json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }

# ---- the end

cleanup() {
  local status=$? name pid file
  trap - EXIT TERM INT
  set +e
  if [ $status != 0 ] && [ $status != 77 ]; then
    for file in "$WORK"/*.log; do [ -s "$file" ] && { echo "== ${file##*/}"; tail -n 15 "$file"; } >&2; done
  fi
  exec 2>/dev/null   # the shell would tell of every process that is killed
  # The mount first, so that nothing waits for it; then everything else.
  for name in mount "${!PID[@]}"; do
    pid=${PID[$name]:-}
    [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null
  done
  # The private rmemds of `rmemfs --local`, and their pools.
  for file in "$DIR/node.pid" "$WORK"/*/node.pid; do
    [ -s "$file" ] || continue
    pid=$(cat "$file")
    [ "$(cat "/proc/$pid/comm")" = rmemd ] && kill -9 "$pid"
  done
  while read -r file; do rm -f "$file"; done < <(grep -a -h -o '/dev/shm/[A-Za-z0-9._-]*' "$DIR"/{superblock,node.pool} "$WORK"/*/{superblock,node.pool})
  while read -r file; do detach "$file"; done < <(awk -v w="$WORK/" 'index($2, w) == 1 { print $2 }' /proc/self/mounts)
  wait 2>/dev/null
  rm -rf --one-file-system "$WORK" "/dev/shm/rmemfs-test.$$."*
  [ $status = 0 ] && echo "passed: $PASSED checks of $(basename "$0") over $TRANSPORT, $NODES node(s)"
  exit $status
}
trap cleanup EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

[ -e /dev/fuse ] || skip "there is no /dev/fuse"
say "$(basename "$0") over $TRANSPORT with $NODES node(s)${LONG:+, long}"
