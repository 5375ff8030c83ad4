// Stands in for generate_avx512.cpp on other processors than x86-64.
#include "checkpoint/generate.hpp"

namespace geom {

WideGenerator wide_generator() noexcept { return nullptr; }

}  // namespace geom
