#!/bin/bash
# A memory node dies and stays away: EIO within the deadline, the other nodes' files go on, umount works. It comes back:
# everything is there. It runs with another pool for a while: EIO, and afterwards everything is there. It comes back empty: EIO
# for exactly what was on it, and the tools list those files.
CHUNK=4M
source "$(dirname "$0")/lib.sh"
check=$HELPERS/pattern
deadline=2000 margin=3000 files=$((NODES > 1 ? 12 : 4)) length=4194304
start_nodes
make_fs
mount_fs deadline=$deadline
for ((i = 1; i <= files; i++)); do "$check" write "$MNT/file$i" $length "$i" || fail "writing file$i"; done
remount_fs deadline=$deadline     # nothing of them in the kernel's cache

# look STRIDE: sets good, lost (lists of numbers); a file that is neither, or holds wrong bytes, fails the test.
look() {
  local i status start took
  good=() lost=() slowest=0
  for ((i = 1; i <= files; i++)); do
    start=$(now_ms) status=0
    "$check" check "$MNT/file$i" $length "$i" "$1" >"$WORK/look" || status=$?
    took=$(($(now_ms) - start))
    [ $took -le $slowest ] || slowest=$took
    case $status in
      0) good+=("$i") ;;
      4) lost+=("$i") ;;
      5) lost+=("$i") ;;   # its extents may be on two nodes
      *) fail "file$i: $(cat "$WORK/look")" ;;
    esac
  done
  say "${#good[@]} good, ${#lost[@]} with EIO, slowest look at a file $slowest ms"
}
no_good_where_all_is_lost() { [ "$NODES" -gt 1 ] || [ ${#good[@]} = 0 ] || fail "files are good without a node"; }

victim=$NODES
if [ "$TRANSPORT" = tcp ]; then
  say "node $victim dies and stays away"
  kill_node "$victim"
  look $length      # one block of each: one system call
  [ $slowest -le $((deadline + margin)) ] || fail "a read took $slowest ms with a deadline of $deadline"
  [ ${#lost[@]} -gt 0 ] || fail "no file was on node $victim"
  no_good_where_all_is_lost
  if [ "$NODES" -gt 1 ]; then
    [ ${#good[@]} -gt 0 ] || fail "no file is readable although other nodes live"
    wait_for 15 "$check" write "$MNT/new" $length 99 || fail "no new file can be written on the living nodes"
    "$check" check "$MNT/new" $length 99 || fail "the new file"
  fi
  mkdir "$MNT/made-meanwhile"
  pass "EIO within the deadline, the rest is usable"
  timeout 10 rmemctl status "$MNT" >/dev/null || fail "rmemctl status does not answer"
  timeout 10 rmemctl nodes --json "$MNT" | json 'd' >/dev/null || fail "rmemctl nodes --json"
  pass "rmemctl answers with a dead node"
  within 8000 "umount with a dead node" umount_fs
  say "a mount refuses to begin without a node, and -o degraded begins"
  status=0
  timeout 30 rmemfs -o deadline=$deadline "$DIR" "$MNT" >"$WORK/refused.log" 2>&1 || status=$?
  [ $status != 0 ] && [ $status != 124 ] || fail "the mount without node $victim ended with status $status"
  grep -q "${NODE_ADDRESS[$victim]#*//}" "$WORK/refused.log" || fail "it does not name the node: $(cat "$WORK/refused.log")"
  mount_fs deadline=$deadline,degraded
  [ -d "$MNT/made-meanwhile" ] || fail "the directory made meanwhile is gone"
  look $length
  [ ${#lost[@]} -gt 0 ] || fail "a degraded mount reads from a node that is not there"
  pass "-o degraded"
  start_node "$victim"
  back() { look $length; [ ${#lost[@]} = 0 ]; }   # not all blocks: each may take the deadline
  wait_for 20 back || fail "the node is back, and ${#lost[@]} files still give EIO"
  look 4096
  [ ${#lost[@]} = 0 ] || fail "the node is back, and ${#lost[@]} files give EIO somewhere"
  pass "the node came back: everything is there"
  remount_fs deadline=$deadline
fi

say "node $victim runs with another pool for a while"
lost_is_listed() { rmemctl lost "$MNT" | grep -q file; }
nothing_is_lost() { [ -z "$(rmemctl lost "$MNT")" ]; }
kill_node "$victim"
mv "${NODE_POOL[$victim]}" "${NODE_POOL[$victim]}.aside"
start_node "$victim"
wait_for 20 lost_is_listed || fail "rmemctl lost lists nothing 20 s after the node came back with another pool"
look $length
[ ${#lost[@]} -gt 0 ] || fail "the node has another pool and no file gives EIO"
"$check" write "$MNT/meanwhile" $length 55 || fail "no new file can be written"
rm "$MNT/meanwhile"
kill_node "$victim"
mv -f "${NODE_POOL[$victim]}.aside" "${NODE_POOL[$victim]}"
start_node "$victim"
wait_for 20 nothing_is_lost || fail "the node has its pool again, and rmemctl lost lists $(rmemctl lost "$MNT" | tr '\n' ' ')"
look 4096
[ ${#lost[@]} = 0 ] || fail "the node has its pool again, and ${#lost[@]} files give EIO"
pass "EIO while it has another pool, and every byte is back with its own"
umount_fs
kill_node "$victim"
mv "${NODE_POOL[$victim]}" "${NODE_POOL[$victim]}.aside"
start_node "$victim"
fsck.rmemfs -p "$DIR" >"$WORK/fsck.log" 2>&1 && fail "fsck -p calls a node with another pool sound"
fsck.rmemfs -y "$DIR" >"$WORK/fsck.log" 2>&1 || true   # condemns what it does not find
grep -q file "$WORK/fsck.log" || fail "fsck -y lists no lost file"
kill_node "$victim"
mv -f "${NODE_POOL[$victim]}.aside" "${NODE_POOL[$victim]}"
start_node "$victim"
mount_fs deadline=$deadline
nothing_is_lost || fail "rmemctl lost lists $(rmemctl lost "$MNT" | tr '\n' ' ') after a mount with the right pool"
look 4096
[ ${#lost[@]} = 0 ] || fail "the mount did not find what fsck -y had marked lost"
pass "a mount finds what fsck -y had marked lost"
remount_fs deadline=$deadline

say "node $victim dies and comes back empty"
kill_node "$victim"
# What it holds, found in its pool by the bytes themselves: file number -> blocks.
declare -A held=()
for ((i = 1; i <= files; i++)); do held[$i]=$("$check" blocks "${NODE_POOL[$victim]}" $length "$i"); done
rm "${NODE_POOL[$victim]}"
start_node "$victim"
wait_for 20 lost_is_listed || fail "rmemctl lost lists nothing 20 s after the node came back empty"
look 4096
[ ${#lost[@]} -gt 0 ] || fail "the node came back empty and no file gives EIO"
no_good_where_all_is_lost
[ "$NODES" = 1 ] || [ ${#good[@]} -gt 0 ] || fail "no file is left although other nodes live"
for ((i = 1; i <= files; i++)); do   # EIO for exactly the blocks that the node held
  "$check" check "$MNT/file$i" $length "$i" >"$WORK/look" || true
  grep -q "eio=${held[$i]} wrong=0 zero=0" "$WORK/look" || fail "file$i: $(cat "$WORK/look"), but the node held ${held[$i]} of its blocks"
done
names() { printf '%s\n' "$@" | sort; }
found() { grep -o 'file[0-9][0-9]*' "$1" | sort -u; }
expected=$(names "${lost[@]/#/file}")
rmemctl lost "$MNT" >"$WORK/lost.txt"
[ "$(found "$WORK/lost.txt")" = "$expected" ] || fail "rmemctl lost lists $(found "$WORK/lost.txt" | tr '\n' ' '), with EIO are ${lost[*]}"
rmemctl lost --json "$MNT" | json 'd' >/dev/null || fail "rmemctl lost --json"
pass "EIO for exactly what was lost, and rmemctl lists it"
"$check" write "$MNT/after" $length 77 || fail "no new file can be written"
"$check" check "$MNT/after" $length 77 || fail "the new file"
rm -f "$MNT/file${lost[0]}" || fail "a lost file cannot be deleted"
"$check" write "$MNT/file${lost[0]}" $length "${lost[0]}" || fail "a lost file cannot be written again"
"$check" check "$MNT/file${lost[0]}" $length "${lost[0]}" || fail "a lost file, written again"
pass "new files, and lost ones written again"
remount_fs deadline=$deadline
was=("${lost[@]}")
look 4096
[ "$(names "${lost[@]}")" = "$(names "${was[@]:1}")" ] || fail "after a remount other files are lost: ${lost[*]}"
umount_fs
status=0
fsck.rmemfs -n "$DIR" >"$WORK/fsck.log" 2>&1 || status=$?
[ $status = 0 ] || [ $status = 4 ] || fail "fsck -n of a file system with lost ranges ends with $status"   # the metadata is sound
[ ${#lost[@]} = 0 ] || [ "$(found "$WORK/fsck.log")" = "$(names "${lost[@]/#/file}")" ] || fail "fsck lists $(found "$WORK/fsck.log" | tr '\n' ' '), lost are ${lost[*]}"
pass "fsck lists the files"
