// Processors other than x86-64.
#include "kernels/cpu/isa.hpp"

namespace geom {

bool have_amx_bf16() { return false; }
std::string processor_name() { return {}; }

}  // namespace geom
