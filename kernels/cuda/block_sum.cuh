// Sums and maxima over a block of 256 threads, in a fixed order; the same on every thread.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace geom::cuda {

constexpr int block_threads = 256;
constexpr int block_warps = block_threads / 32;

inline __device__ float larger(float a, float b) { return a > b ? a : b; }

/// f(f(v0, v1), ...) of what all threads bring.
template <class F>
__device__ float over_block(float value, F f) {
    __shared__ float of_warp[block_warps];
    for (int away = 16; away > 0; away /= 2) value = f(value, __shfl_xor_sync(0xffffffffU, value, away));
    __syncthreads();  // of_warp may still be read by a call before
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    float all = of_warp[0];
    for (int warp = 1; warp < block_warps; ++warp) all = f(all, of_warp[warp]);
    return all;
}

inline __device__ float block_sum(float value) {
    return over_block(value, [](float a, float b) { return a + b; });
}
inline __device__ float block_max(float value) { return over_block(value, larger); }

}  // namespace geom::cuda
