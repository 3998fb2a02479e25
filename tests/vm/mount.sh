#!/bin/bash
# A real mount over rdma:// in one guest: programs, a frozen node, kill -9 of the mount and of the node, the fall-back to tcp.
source "$(dirname "$0")/lib.sh"

play() {
  guest 0 --timeout 240 --mem 1536 --hugepages 24 -- env RMEMFS_LONG="${RMEMFS_LONG:-}" \
    RMEMFS_BIN="$BIN" RMEMFS_HELPERS="$HELPERS" RMEMFS_SOURCE="$SOURCE" \
    bash "$HERE/mount_guest.sh"
  grep -q '^passed: ' "$WORK/output" || fail "the checks in the guest did not come to their end"
  pass "rmemd and rmemfs over rdma in one guest, on $KERNEL"
}
on_each_kernel play
