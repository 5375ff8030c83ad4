#!/usr/bin/env bash
# The program and the gpu tests of a build, with all they need, for a machine that has a GPU and CUDA but no MPI, HDF5 or
# OpenBLAS.
#   tests/gpu/bundle.sh BUILD OUT.tar.xz
# There:  tar xf OUT.tar.xz && geom/run -n 2 geom-mpi --model synth:qwen3-0.6b     (any program of geom/bin)
#         geom/tests/gpu/prove.py geom LOGS                 (everything at once, see there)
#         geom/tests/bench/bench.py --program geom          (the README's table)
# What every Linux has (glibc, libstdc++, libgcc_s, libgomp) and CUDA's and NCCL's libraries stay behind: geom/run looks for
# those of the machine, in /usr/local/cuda and among Python's packages.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,9s/^# \?//p' "$0"; exit 2; }
build=$1 out=$2
[ -x "$build/geom-mpi" ] || { echo "$build/geom-mpi is missing: build it first" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/geom
mkdir -p "$root"/{bin,lib,share}

left_behind='^(ld-linux.*|lib(c|m|dl|rt|pthread|util|resolv|stdc\+\+|gcc_s|gomp)|lib(cuda|cudart|cublas|cublasLt|cusolver|cusparse|nvJitLink|nccl))\.so'
closure() {  # libraries of the files given, one path a line
    ldd "$@" 2>/dev/null | awk '$3 ~ /^\// {print $3}' | sort -u | while read -r path; do
        [[ $(basename "$path") =~ $left_behind ]] || echo "$path"
    done
}

for program in "$build"/geom-mpi "$build"/tests/gpu_tests "$build"/tests/mpi_tests; do
    if [ -x "$program" ]; then cp "$program" "$root/bin/"; fi
done
mpirun=$(readlink -f "$(command -v mpirun)")
cp "$mpirun" "$root/bin/mpirun"
cp "$(dirname "$mpirun")/orted" "$root/bin/" 2>/dev/null || true
mpi=$(dirname "$(ldd "$build/geom-mpi" | awk '/libmpi\.so/ {print $3; exit}')")
plugins=$(find "$(readlink -f "$mpi")" /usr/lib -maxdepth 5 -type d -name openmpi3 2>/dev/null | head -n 1)
[ -n "$plugins" ] || { echo "Open MPI's plugin folder was not found beside $mpi" >&2; exit 1; }
cp -r "$plugins" "$root/lib/openmpi3"
pmix=$(find /usr/lib -maxdepth 5 -type d -path '*pmix*/lib/pmix' 2>/dev/null | head -n 1)
if [ -n "$pmix" ]; then cp -r "$pmix" "$root/lib/pmix"; fi
cp -r "$(dirname "$(dirname "$mpirun")")/share/openmpi" "$root/share/" 2>/dev/null || cp -r /usr/share/openmpi "$root/share/"

# What proves and times it there; of the golden checkpoints what a run reads.
tests=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$root"/tests/{gpu,bench,data}
cp "$tests/gpu/prove.py" "$root/tests/gpu/"
cp "$tests"/bench/{bench,torch_baseline}.py "$root/tests/bench/"
cp -r "$tests"/data/{golden,heads} "$root/tests/data/"
find "$root/tests/data/golden" \( -name golden.h5 -o -name tokens.json -o -name 'tokenizer*' \) -delete

closure "$root"/bin/* $(find "$root/lib" -name '*.so') | xargs -r -I{} cp -Ln {} "$root/lib/"
strip --strip-debug "$root"/bin/* "$root"/lib/*.so* "$root"/lib/*/*.so 2>/dev/null || true

cat >"$root/run" <<'RUN'
#!/usr/bin/env bash
# run [-n RANKS] PROGRAM ARGUMENTS...      PROGRAM: one of bin/, or a command that starts one (ncu, compute-sanitizer)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
ranks=1
if [ "${1-}" = -n ]; then ranks=$2; shift 2; fi
cuda=/usr/local/cuda/lib64
for packages in $(python3 -c 'import site, sys; print(*site.getsitepackages(), *sys.path)' 2>/dev/null); do
    for folder in "$packages"/nvidia/*/lib; do if [ -d "$folder" ]; then cuda=$cuda:$folder; fi; done
done
export PATH=$here/bin:$PATH
export LD_LIBRARY_PATH=$here/lib:$here/lib/openmpi3:$cuda
export OPAL_PREFIX=$here PMIX_INSTALL_PREFIX=$here
export OMPI_MCA_mca_base_component_path=$here/lib/openmpi3 PMIX_MCA_mca_base_component_path=$here/lib/pmix
export OMPI_MCA_plm=isolated OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_btl=self,vader
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
exec "$here/bin/mpirun" --oversubscribe --bind-to none -n "$ranks" "$@"
RUN
chmod +x "$root/run"
tar -C "$work" -cJf "$out" geom
printf '%s: %s, %s unpacked\n' "$out" "$(du -h "$out" | cut -f1)" "$(du -sh "$root" | cut -f1)"
