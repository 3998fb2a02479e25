# shellcheck shell=bash
# Sourced by scripts that run in a guest: a server and a client of other people's programs, as a pair.
#
# client_server NAME SERVER CLIENT: runs both commands (each one string) until both have ended with 0, within TRY_SECONDS
# (20); output in /tmp/NAME.server and /tmp/NAME.client. The client begins once the server listens. perftest's two sides
# sometimes wait for each other for ever, and a client that fails may take the server with it; so a pair that failed is
# killed, both sides, and started anew, up to TRIES times (4), each time saying why. Status 1: no try went well.

# listens PID: to RDMA's connection manager or, on perftest's and ibv_rc_pingpong's port 18515, to TCP.
listens() {
  rdma resource show cm_id | grep -q " state LISTEN .* pid $1 " ||
    { [ "$(cat "/proc/$1/comm")" = ibv_rc_pingpong ] && grep -q ':4853 .* 0A ' /proc/net/tcp /proc/net/tcp6; }
} 2>/dev/null

# both_end NAME SERVER CLIENT: one try. `why` says what went wrong.
both_end() {
  local name=$1 server client end=$((SECONDS + ${TRY_SECONDS:-20})) status=0
  $2 >"/tmp/$name.server" 2>&1 & server=$!
  until listens $server; do
    if ! kill -0 $server 2>/dev/null; then wait $server || status=$?; why="the server ended with $status before it listened"; return 1; fi
    if [ $SECONDS -ge $end ]; then why="the server does not listen"; kill -9 $server; wait $server || true; return 1; fi
    sleep 0.1
  done
  $3 >"/tmp/$name.client" 2>&1 & client=$!
  while kill -0 $client 2>/dev/null; do
    if [ $SECONDS -ge $end ]; then why="the client hangs"; kill -9 $client $server 2>/dev/null || true; break; fi
    sleep 0.1
  done
  wait $client || status=$?
  if [ $status != 0 ]; then
    kill -9 $server 2>/dev/null || true
    wait $server || true
    why=${why:-the client ended with $status}
    return 1
  fi
  while kill -0 $server 2>/dev/null; do
    if [ $SECONDS -ge $end ]; then why="the server hangs"; kill -9 $server 2>/dev/null || true; break; fi
    sleep 0.1
  done
  wait $server || status=$?
  [ $status = 0 ] || { why=${why:-the server ended with $status}; return 1; }
}

client_server() {
  local try why
  for ((try = 1; try <= ${TRIES:-4}; try++)); do
    why=
    if both_end "$@"; then return 0; fi
    printf '%s\n' "$1, try $try: $why" >&2
    tail -n 8 "/tmp/$1.client" "/tmp/$1.server" 2>/dev/null >&2 || true
    sleep 1   # for what is on its way to the pair's queue pairs
  done
  return 1
}
