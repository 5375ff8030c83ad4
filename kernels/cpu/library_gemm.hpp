// The machine's own large product: what a library that others wrote and tuned reaches on this rank's threads.
#pragma once

#include "kernels/yardstick.hpp"

namespace geom::cpu {

/// bf16 operands, f32 result, B in the library's own layout. kernels/cpu/onednn/present.cpp, or absent.cpp where CMake
/// did not find oneDNN.
Yardstick onednn_gemm(const GemmShape& shape, int threads);

/// f32 throughout.
Yardstick openblas_gemm(const GemmShape& shape, int threads);

}  // namespace geom::cpu
