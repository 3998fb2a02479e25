#!/bin/bash
# The house style, as .clang-format says it. With --write the files are rewritten instead.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
mode=(--dry-run -Werror)
if [ "${1:-}" = --write ]; then mode=(-i); fi
mapfile -d '' -t files < <(find util journal transport control manager memnode fs recovery tools bench tests \
  \( -name '*.cc' -o -name '*.h' \) -print0)
[ ${#files[@]} -ge 10 ] || { echo "only ${#files[@]} files found" >&2; exit 1; }
clang-format "${mode[@]}" --style=file "${files[@]}"
echo "${#files[@]} files"
