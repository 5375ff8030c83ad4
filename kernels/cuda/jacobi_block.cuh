// What the kernels of jacobi*.cu share: sums over a warp, and where a block keeps its matrix.
#pragma once

#include <cstdint>

#include "kernels/cuda/device.hpp"
#include "kernels/cuda/launch.cuh"

namespace geom::cuda {

constexpr int warp_threads = 32;
constexpr int most_threads = 1024;
constexpr unsigned whole_warp = 0xffffffffU;
constexpr double zero_square = 0x1p-960;  ///< a column whose squared length is below counts as zero

/// The same bits on every lane: decisions that depend on it are those of the whole warp.
inline __device__ double warp_sum(double value) {
    for (int away = warp_threads / 2; away > 0; away /= 2) value += __shfl_xor_sync(whole_warp, value, away);
    return value;
}

inline __device__ double warp_product(const double* x, const double* y, int n) {
    double sum = 0;
    for (int i = static_cast<int>(threadIdx.x) % warp_threads; i < n; i += warp_threads) sum = fma(x[i], y[i], sum);
    return warp_sum(sum);
}

inline __device__ double* column(double* matrix, int j, int n) { return matrix + static_cast<std::int64_t>(j) * n; }

/// What remains of a block's shared memory for matrices, beside `rows` vectors of n and the kernels' static variables.
inline std::int64_t shared_for_matrices(const Device& device, std::int64_t n, std::int64_t rows) {
    const std::int64_t static_variables = 1024;
    return device.shared_bytes() - static_variables - rows * 8 * n;
}

}  // namespace geom::cuda
