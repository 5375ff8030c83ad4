// Processors other than x86-64.
#include "checkpoint/generate.hpp"

namespace geom {

std::span<const WideGenerator> wide_generators() noexcept { return {}; }

}  // namespace geom
