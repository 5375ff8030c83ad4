// Stored elements to the type that products are computed in.
#pragma once

#include <cstdint>

#include "core/dtype.hpp"
#include "kernels/cuda/device.hpp"

namespace geom::cuda {

/// Issues out[i] = in[i] for i < elements, widened exactly: bf16, f16, f32 or f64 to f32 or f64, or to the same type.
/// Throws Error(internal) for a pair that would lose digits.
void convert(const std::byte* in, DType from, std::byte* out, DType to, std::int64_t elements, const Device& device);

}  // namespace geom::cuda
