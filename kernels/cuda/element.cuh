// One stored element as f32 or f64, exactly, and back.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace geom::cuda {

/// The bits of a bf16: the upper half of an f32.
struct Bf16 {
    std::uint16_t bits;
};

template <class To>
__device__ To widened(double value) {
    return static_cast<To>(value);
}
template <class To>
__device__ To widened(float value) {
    return static_cast<To>(value);
}
template <class To>
__device__ To widened(__half value) {
    return static_cast<To>(__half2float(value));
}
template <class To>
__device__ To widened(Bf16 value) {
    return static_cast<To>(__uint_as_float(static_cast<std::uint32_t>(value.bits) << 16));
}

__device__ inline void narrow(double value, double& to) { to = value; }
__device__ inline void narrow(double value, float& to) { to = static_cast<float>(value); }
/// Of finite numbers; to nearest, ties to even.
__device__ inline void narrow(double value, Bf16& to) {
    const std::uint32_t bits = __float_as_uint(static_cast<float>(value));
    to.bits = static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

}  // namespace geom::cuda
