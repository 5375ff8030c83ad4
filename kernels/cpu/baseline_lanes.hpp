// What every processor has.
#pragma once

#include "kernels/cpu/lanes.hpp"

namespace geom::lanes {

extern const Kernels baseline;

}  // namespace geom::lanes
