#include "kernels/cpu/lanes.hpp"

#include "kernels/cpu/baseline_lanes.hpp"
#include "kernels/cpu/x86/wide_lanes.hpp"

namespace geom::lanes {

const Kernels& kernels_of(Isa isa) {
    if (isa >= Isa::avx512) return avx512;
    return isa >= Isa::avx2 ? avx2 : baseline;
}

}  // namespace geom::lanes
