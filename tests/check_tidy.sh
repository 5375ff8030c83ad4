#!/usr/bin/env bash
# clang-tidy 16 (14 cannot read libstdc++ 12's <source_location>) over src, kernels and mpi; exit code 77: skipped.
# <omp.h> comes from libomp-16-dev: gcc's is not for clang.
# A file that passed is not looked at again until it, a header, the checks or the compiler's flags change.
# The static analyzer takes three quarters of the time, so it looks only at the folders that handle raw bytes, other
# people's files and handles of C libraries; bugprone-* at everything. tests/check_tidy.sh --all: both at everything.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${GEOM_BUILD:-build}
for tool in clang-tidy-16 clang-tidy ""; do
    [ -n "$tool" ] || { echo "SKIPPED: no clang-tidy 16 or later"; exit 77; }
    version=$("$tool" --version 2>/dev/null | sed -n 's/.*LLVM version \([0-9]*\).*/\1/p' | head -n 1)
    [ "${version:-0}" -ge 16 ] && break
done
[ -f "$build/compile_commands.json" ] || { echo "SKIPPED: no $build/compile_commands.json"; exit 77; }

analyzed='^(src/(core|checkpoint|stream|output)|mpi)/'
if [ "${1-}" = --all ]; then analyzed=.; fi
export tool build analyzed passed=$build/tidy
common=$(find src kernels mpi -name '*.hpp' -print0 | sort -z | xargs -0 cat .clang-tidy "$0" CMakeLists.txt cmake/*.cmake | sha256sum)
export common
mkdir -p "$passed"

check() {
    local file=$1 checks=""
    [[ $file =~ $analyzed ]] || checks=-clang-analyzer-*
    local stamp=$passed/${file//\//-} key
    key="$(sha256sum "$file") $checks $common"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ]; then return; fi
    "$tool" --quiet -p "$build" --checks="$checks" --extra-arg=-Wno-unknown-warning-option "$file" 2>"$stamp.log" ||
        { echo "FAILED: $file"; cat "$stamp.log"; return 1; }
    echo "$key" >"$stamp"
}
export -f check
grep -oE '"file": "[^"]*"' "$build/compile_commands.json" | cut -d'"' -f4 | sed "s|^$PWD/||" |
    grep -E '^(src|kernels|mpi)/.*\.cpp$' | sort -u | xargs -P "$(nproc)" -n 1 bash -c 'check "$1" || exit 1' check
echo "tidy: ok"
