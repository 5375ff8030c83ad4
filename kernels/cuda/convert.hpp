// Stored elements to the type that products are computed in.
#pragma once

#include <cstdint>

#include "core/dtype.hpp"
#include "kernels/cuda/device.hpp"
#include "kernels/matrix_ref.hpp"

namespace geom::cuda {

/// Issues out[i] = element i of `block` times 2^-exponent, widened exactly: bf16, f16, f32 or f64 to f32 or f64, or to
/// the same type, where only what falls below its normal numbers is rounded. Throws Error(internal) for a pair that
/// would lose digits. With `columns`, in the device's memory, each element also times its column's, rounded once.
void convert(const MatrixRef& block, std::byte* out, DType to, const Device& device, const double* columns = nullptr);

}  // namespace geom::cuda
