#!/bin/bash
# A mount over rdma:// that was frozen while another one took over is refused when it is thawed, and says so.
source "$(dirname "$0")/lib.sh"

play() {
  guest 0 --timeout 150 --mem 1536 -- env RMEMFS_LONG="${RMEMFS_LONG:-}" \
    RMEMFS_BIN="$BIN" RMEMFS_HELPERS="$HELPERS" RMEMFS_SOURCE="$SOURCE" \
    bash "$HERE/fence_guest.sh"
  grep -q '^passed: ' "$WORK/output" || fail "the checks in the guest did not come to their end"
  pass "an older mount is fenced over rdma, on $KERNEL"
}
on_each_kernel play
