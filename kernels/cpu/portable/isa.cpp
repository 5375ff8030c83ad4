// Processors other than x86-64 and aarch64.
#include "kernels/cpu/isa.hpp"

namespace geom {

std::span<const Isa> processor_isas() {
    static constexpr Isa isas[] = {Isa::portable};
    return isas;
}

std::string processor_name() { return {}; }

}  // namespace geom
