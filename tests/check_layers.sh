#!/usr/bin/env bash
# Who may include what (the order of the folders in README.md, "Layout"), and no conditional compilation.
# tests/check_layers.sh [FOLDER]; prints every line that breaks a rule and fails.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

status=0
forbid() {  # RULE; lines that break it on stdin
    local lines
    lines=$(cat)
    [ -z "$lines" ] || { printf '%s:\n%s\n' "$1" "$lines"; return 1; }
}
sources() { find "$@" -regex '.*\.\(cpp\|hpp\|cu\|cuh\)' 2>/dev/null | sort; }
lines_with() { xargs -r grep -HnE "$1" || true; }

[ -n "$(sources src)" ] || { echo "no sources in $PWD/src"; exit 1; }

sources src kernels mpi | grep -vE '^mpi/' |
    lines_with '#\s*include\s*<mpi\.h>' | forbid '<mpi.h> belongs in mpi/' || status=1
sources src kernels mpi | grep -vE '^kernels/cuda/|^mpi/nccl/' |
    lines_with '#\s*include\s*<(cuda|cublas|cusolver|curand|cusparse|nccl|nvtx|nvToolsExt|cub/|thrust/|cutlass/)' |
    forbid 'CUDA and NCCL belong in kernels/cuda and mpi/nccl' || status=1
sources src kernels mpi | lines_with '^\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b' |
    forbid 'CMake chooses the files; no conditional compilation' || status=1

# layer: the layers it may include
while IFS=: read -r layer allowed; do
    folder=src/$layer
    case $layer in kernels | mpi) folder=$layer ;; esac
    [ -d "$folder" ] || continue
    sources "$folder" | lines_with '#\s*include\s*"[a-z]+/' |
        { grep -vE "\"($layer${allowed:+|${allowed// /|}})/" || true; } | forbid "$layer may include only: $layer $allowed" ||
        status=1
done <<'LAYERS'
core:
checkpoint:core
plan:core
kernels:core
mpi:core plan
stream:core checkpoint plan kernels
model:core checkpoint kernels stream output
output:core mpi
exchange:core plan mpi kernels stream
measures:core plan kernels stream model exchange output
derivations:core output
LAYERS
[ "$status" = 0 ] && echo "layers: ok"
exit "$status"
