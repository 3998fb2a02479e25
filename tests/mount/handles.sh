#!/bin/bash
# File handles open the same objects after the kernel forgot them, after a remount and after kill -9; those of removed
# objects are ESTALE, for good. Inode numbers stay, and none is given out twice.
POOL=256M
source "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "handles are for root"
handles=$HELPERS/handle_check
forgotten() { rmemctl stats --json "$MNT" | json "d['requests.forget']"; }
# Until the kernel has let go of what nobody uses (slab caches only; pages of files stay).
forget() {
  local before; before=$(forgotten)
  ls -lR "$MNT" >/dev/null   # so that there is something to forget
  sync -f "$MNT"
  wait_for 10 eval "echo 2 >/proc/sys/vm/drop_caches; [ \$(forgotten) -gt $before ]" || fail "the kernel forgets nothing"
}
numbers() { (cd "$MNT" && find . -printf '%i %y %p\n' | sort); }
new_fs
mkdir -p "$MNT/a/b/c/d"
echo top >"$MNT/file"
echo deep >"$MNT/a/b/c/d/file"
ln "$MNT/a/b/c/d/file" "$MNT/hard"
ln -s nowhere "$MNT/link"
mkfifo "$MNT/fifo"
"$HELPERS/pattern" write "$MNT/a/large" 500000 3
all=("$MNT" "$MNT"/{file,hard,link,fifo,a,a/b,a/b/c,a/b/c/d,a/b/c/d/file,a/large})
"$handles" save "$WORK/all" "${all[@]}" || fail "no handles"
"$handles" check "$MNT" "$WORK/all" || fail "at once"
numbers >"$WORK/numbers"
forget
"$handles" check "$MNT" "$WORK/all" || fail "after the kernel forgot them"
forget
"$handles" forge "$MNT" "$WORK/all" || fail "a forged handle"
pass "handles are good after the kernel forgot the inodes; forged ones are ESTALE"

say "objects that are renamed keep theirs"
mv "$MNT/a/b/c" "$MNT/moved"; mv "$MNT/file" "$MNT/moved/other-name"
sed -e "s#$MNT/a/b/c#$MNT/moved#" -e "s#$MNT/file\$#$MNT/moved/other-name#" "$WORK/all" >"$WORK/renamed"
forget
"$handles" check "$MNT" "$WORK/renamed" || fail "after a rename"
mv "$MNT/moved/other-name" "$MNT/file"; mv "$MNT/moved" "$MNT/a/b/c"
remount_fs
"$handles" check "$MNT" "$WORK/all" || fail "after a remount"
[ "$(numbers)" = "$(cat "$WORK/numbers")" ] || fail "inode numbers changed over a remount"
kill_mount
mount_fs
"$handles" check "$MNT" "$WORK/all" || fail "after kill -9 of the daemon"
[ "$(numbers)" = "$(cat "$WORK/numbers")" ] || fail "inode numbers changed over kill -9"
pass "handles and inode numbers stay over renames, a remount and kill -9"

say "removed objects"
mkdir "$MNT/gone-dir"; echo x >"$MNT/gone"; echo y >"$MNT/gone-open"; ln -s x "$MNT/gone-link"
"$handles" save "$WORK/gone" "$MNT"/gone{,-dir,-link}
"$handles" save "$WORK/open" "$MNT/gone-open"
exec 7<"$MNT/gone-open"
rm -r "$MNT"/gone{,-dir,-open,-link}
"$handles" refused "$MNT" "$WORK/gone" ESTALE || fail "just removed"
"$handles" check "$MNT" "$WORK/open" || fail "removed, but open: its handle is good as long"
forget
"$handles" check "$MNT" "$WORK/open" || fail "removed, but open, and the kernel forgot others"
[ "$(cat <&7)" = y ] || fail "the open file"
exec 7<&-
forget
cat "$WORK/open" >>"$WORK/gone"
"$handles" refused "$MNT" "$WORK/gone" ESTALE || fail "after the last close"

say "none of their numbers comes back"
sort -n "$WORK/numbers" | awk '{ print $1 }' | uniq >"$WORK/used"
awk '{ print $1 }' "$WORK/gone" >>"$WORK/used"
for ((round = 0; round < $(pick 3 12); round++)); do
  mkdir "$MNT/round"
  (cd "$MNT/round" && seq 500 | xargs touch && find . -mindepth 1 -printf '%i\n' >>"$WORK/used")
  rm -r "$MNT/round"
  "$handles" refused "$MNT" "$WORK/gone" ESTALE || fail "after new files were made"
  if [ $((round % 2)) = 0 ]; then kill_mount; mount_fs; else remount_fs; fi
  "$handles" refused "$MNT" "$WORK/gone" ESTALE || fail "after the file system was mounted again"
done
[ -z "$(sort "$WORK/used" | uniq -d | head -n 3)" ] || fail "numbers used twice: $(sort "$WORK/used" | uniq -d | head -n 3 | tr '\n' ' ')"
"$handles" check "$MNT" "$WORK/all" || fail "at the end"
pass "$(wc -l <"$WORK/used") inode numbers, all different; removed ones are ESTALE for good"
umount_fs
fsck_clean
