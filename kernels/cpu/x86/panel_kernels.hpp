// One body a file, each compiled for its instruction set.
#pragma once

#include "kernels/cpu/panels.hpp"

namespace geom::panels {

extern const Kernels avx2_f32, avx512_f32, avx512_bf16;

}  // namespace geom::panels
