#include "kernels/cpu/isa.hpp"

#include <sys/auxv.h>

#include <vector>

namespace geom {

std::span<const Isa> processor_isas() {
    static const std::vector<Isa> isas = [] {
        constexpr unsigned long bf16 = 1UL << 14;  // HWCAP2_BF16
        std::vector<Isa> all = {Isa::portable, Isa::neon};
        if ((::getauxval(AT_HWCAP2) & bf16) != 0) all.push_back(Isa::neon_bf16);
        return all;
    }();
    return isas;
}

std::string processor_name() { return {}; }  // it has none: two numbers, by maker and part

}  // namespace geom
