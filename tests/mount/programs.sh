#!/bin/bash
# Unmodified programs: cp and diff, tar, rsync, git.
source "$(dirname "$0")/lib.sh"
need git rsync tar
new_fs

include=$(pick /usr/include/linux /usr/include)
say "cp -a of $include, compared here and after a remount"
cp -a "$include" "$MNT/include"
diff -r --no-dereference "$include" "$MNT/include" || fail "cp -a $include differs"
tar -C "$include" -cf - . | tar -df - -C "$MNT/include" || fail "tar --compare finds other attributes after cp -a"
pass "cp -a, diff -r, tar --compare"

say "tar in and out again"
mkdir "$MNT/tar"
tar -C "$MNT/include" -cf "$MNT/tar/all.tar" .
mkdir "$MNT/tar/out"
tar -C "$MNT/tar/out" -xf "$MNT/tar/all.tar"
diff -r --no-dereference "$include" "$MNT/tar/out" || fail "the tar round trip differs"
pass "tar round trip"

say "rsync -c finds nothing to do on a copy, and mends a changed one"
rsync -a "$include/" "$MNT/rsync/"
changed=$(rsync -acni "$include/" "$MNT/rsync/")
[ -z "$changed" ] || fail "rsync -c would copy again: $changed"
first=$(cd "$MNT/rsync" && find . -type f | sort | sed -n 1p)
printf 'x' | dd of="$MNT/rsync/$first" bs=1 conv=notrunc status=none
rsync -acO "$include/" "$MNT/rsync/"
cmp "$include/$first" "$MNT/rsync/$first" || fail "rsync -c did not mend $first"
pass "rsync -c"

say "git clone, fsck and status"
export GIT_CONFIG_GLOBAL=$WORK/gitconfig GIT_CONFIG_NOSYSTEM=1
git config --global safe.directory '*'
git config --global user.name test
git config --global user.email test@localhost
git config --global init.defaultBranch main
origin=$SOURCE
if ! git -C "$SOURCE" rev-parse HEAD >/dev/null 2>&1; then   # a source tarball
  origin=$WORK/origin
  mkdir "$origin"
  tar -C "$SOURCE" --exclude=./build --exclude=./.git -cf - . | tar -C "$origin" -xf -
  git -C "$origin" init -q && git -C "$origin" add -A && git -C "$origin" commit -q -m all
fi
git clone -q "file://$origin" "$MNT/clone"
git -C "$MNT/clone" fsck --strict --no-progress
[ -z "$(git -C "$MNT/clone" status --porcelain)" ] || fail "git status is not clean after a clone"
echo more >>"$MNT/clone/README.new"
git -C "$MNT/clone" add README.new
git -C "$MNT/clone" commit -q -m more
git -C "$MNT/clone" gc -q
pass "git clone, fsck, commit, gc"

remount_fs
diff -r --no-dereference "$include" "$MNT/include" || fail "cp -a $include differs after a remount"
git -C "$MNT/clone" fsck --strict --no-progress || fail "git fsck after a remount"
[ -z "$(git -C "$MNT/clone" status --porcelain)" ] || fail "git status is not clean after a remount"
pass "all the same through a cold cache"
umount_fs
fsck_clean
