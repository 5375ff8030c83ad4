#!/usr/bin/env bash
# The emulator of CUDA has nothing that kernels/ and mpi/nccl do not use: its entry points, the device attributes it
# answers, and what its launch.cuh declares in nvcc's stead.
# tests/check_emulator.sh [FOLDER]; prints every name that nobody uses and fails.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"
emulator=tests/emulator launch=tests/emulator/include/kernels/cuda/launch.cuh

entry_points() {  # as clang-format leaves them: the name stands in the first line of its definition
    grep -hoE '^[a-z][A-Za-z0-9_ *"]*[ *](cuda|cublas|cusolver|nccl)[A-Z]\w*\(' "$emulator"/*.cpp | grep -oE '\w+\(' | tr -d '('
}
attributes() { grep -hoE '\bcudaDevAttr\w+' "$emulator"/*.cpp; }
of_nvcc() {  # functions, variables and macros of the global namespace
    sed '/^namespace geom/,/^}  \/\/ namespace geom/d' "$launch" | sed -nE \
        -e 's/^(#define|struct|class|enum|using) (\w+).*/\2/p' -e 's/^extern .* (\w+);/\1/p' -e 's/^[A-Za-z][A-Za-z0-9_ *]*[ *](\w+)\(.*/\1/p'
}
used() {  # words of the sources, but for comments and texts
    find kernels mpi/nccl -regex '.*\.\(cpp\|hpp\|cu\|cuh\)' -exec sed -E 's/"([^"\\]|\\.)*"//g; s://.*::' {} + |
        grep -oE '\w+' | sort -u
}

status=0
for kind in entry_points attributes of_nvcc; do
    defined=$($kind | sort -u) || { echo "no $kind in $emulator"; exit 1; }
    unused=$(comm -23 <(echo "$defined") <(used))
    [ -z "$unused" ] || { printf 'the emulator has what nobody uses (%s):\n%s\n' "$kind" "$unused"; status=1; }
done
[ "$status" = 0 ] && echo "emulator: ok"
exit "$status"
