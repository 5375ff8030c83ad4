#!/usr/bin/env bash
# Every source is as clang-format 14 leaves it (other versions differ in details). Exit code 77: skipped.
# To format: tests/check_format.sh -i
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in clang-format-14 clang-format ""; do
    [ -n "$tool" ] || { echo "SKIPPED: no clang-format 14"; exit 77; }
    "$tool" --version 2>/dev/null | grep -q 'version 14\.' && break
done
arguments=(--dry-run -Werror --ferror-limit=3)
if [ "${1-}" = -i ]; then arguments=(-i); fi
find src kernels mpi tests -regex '.*\.\(cpp\|hpp\|cu\|cuh\)' -print0 | xargs -0 "$tool" "${arguments[@]}"
echo "format: ok"
