// One body a file, each compiled for its instruction set.
#pragma once

#include "kernels/cpu/panels.hpp"

namespace geom::panels {

extern const Kernels avx2_f32, avx512_f32, avx512_bf16;  // x86-64
extern const Kernels neon_f32, neon_bf16;                // aarch64

}  // namespace geom::panels
