// Processors other than x86-64.
#include "kernels/cpu/isa.hpp"

namespace geom {

Isa processor_isa() { return Isa::portable; }
std::string processor_name() { return {}; }

}  // namespace geom
