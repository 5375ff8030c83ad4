#!/usr/bin/env bash
# The unit tests as an aarch64 processor runs them, NEON's products among them, under an emulator of its instructions.
# tests/check_aarch64.sh [FOLDER [GTEST_FILTER]]: FOLDER (default build-aarch64) takes a Debian of arm64 (900 MB) and
# the build. Needs root, and debootstrap, g++-aarch64-linux-gnu, qemu-user.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-build-aarch64}")
filter=${2:-*}
sysroot=$folder/sysroot
packages=libopenmpi-dev,libhdf5-openmpi-dev,libopenblas-openmp-dev,liblapacke-dev,libcli11-dev,libfmt-dev
packages+=,nlohmann-json3-dev,libpcre2-dev,libutf8proc-dev,libgtest-dev,libstdc++-12-dev

for program in debootstrap aarch64-linux-gnu-g++ qemu-aarch64; do
    command -v $program >/dev/null || { echo "SKIPPED: no $program (debootstrap, g++-aarch64-linux-gnu, qemu-user)"; exit 0; }
done

if [ ! -e "$sysroot/unpacked" ]; then
    mkdir -p "$sysroot"
    debootstrap --foreign --arch=arm64 --variant=minbase --include=$packages bookworm "$sysroot"
    for package in "$sysroot"/var/cache/apt/archives/*.deb; do dpkg -x "$package" "$sysroot"; done
    # what installing the packages would have linked
    libraries=$sysroot/usr/lib/aarch64-linux-gnu
    ln -sfn openblas-openmp/libopenblas.so.0 "$libraries/libopenblas.so.0"
    ln -sfn openblas-openmp/libblas.so.3 "$libraries/libblas.so.3"
    ln -sfn openblas-openmp/liblapack.so.3 "$libraries/liblapack.so.3"
    touch "$sysroot/unpacked"
fi

cmake -S . -B "$folder" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/aarch64-linux.cmake" -DSYSROOT="$sysroot" \
    -DGEOM_CUDA=OFF -DGEOM_WERROR=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo ${GEOM_CMAKE_OPTIONS:-}
cmake --build "$folder" --target unit_tests geom-mpi
GEOM_TEST_DATA=$PWD/tests/data qemu-aarch64 -cpu max -L "$sysroot" "$folder/tests/unit_tests" --gtest_filter="$filter"
