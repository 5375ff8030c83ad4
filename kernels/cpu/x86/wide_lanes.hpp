// One body a file, each compiled for its instruction set.
#pragma once

#include "kernels/cpu/lanes.hpp"

namespace geom::lanes {

extern const Kernels avx2, avx512;

}  // namespace geom::lanes
