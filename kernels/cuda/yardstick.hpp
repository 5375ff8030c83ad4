// The GPU's own large product and copy, for benchmarks.
#pragma once

#include "kernels/cuda/device.hpp"
#include "kernels/yardstick.hpp"

namespace geom::cuda {

/// cublasGemmEx on bf16 operands, f32 result, row-major times transposed as gram has it.
Yardstick large_product(Device& device, const GemmShape& shape);

/// From one place of the device's memory to another.
Yardstick large_copy(Device& device, std::int64_t bytes);

}  // namespace geom::cuda
