#!/bin/sh
# Long runs of the libFuzzer targets: tests/fuzz/run.sh [RUNS [BUILD_FOLDER]]
# Builds with clang and its sanitizers into BUILD_FOLDER (build-fuzz) and runs every target RUNS times (2,000,000).
# New inputs and crashes stay in the build folder; the committed corpus is only read. Ends with the figures.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
runs=${1:-2000000}
build=${2:-$here/../../build-fuzz}

cmake -S "$here/standalone" -B "$build" -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo
cmake --build "$build" -j2

status=0
for name in safetensors_header config index; do
    mkdir -p "$build/found/$name"
    log=$build/$name.log
    "$build/fuzz/fuzz_$name" -runs="$runs" -rss_limit_mb=512 -timeout=10 -max_len=4096 -dict="$here/json.dict" \
        -print_final_stats=1 -artifact_prefix="$build/found/$name-" "$build/found/$name" "$here/corpus/$name" \
        2>"$log" || status=1
    printf '%-20s %s\n' "$name" "$(grep -E 'number_of_executed_units|peak_rss_mb' "$log" | tr -s ' \n' ' ')"
    [ "$status" = 0 ] || { tail -n 40 "$log"; exit 1; }
done
