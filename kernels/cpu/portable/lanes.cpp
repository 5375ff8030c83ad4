// Processors other than x86-64.
#include "kernels/cpu/lanes.hpp"

#include "kernels/cpu/baseline_lanes.hpp"

namespace geom::lanes {

const Kernels& kernels_of(Isa /*isa*/) { return baseline; }

}  // namespace geom::lanes
