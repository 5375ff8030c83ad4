// Stands in for x86/gram_tiles_avx512.cpp on other processors.
#include "kernels/cpu/gram_tiles.hpp"

namespace geom::cpu {

void pack_slabs(const Panel& /*panel*/, double* /*packed*/) {}
void add_packed_product(const PackedPair& /*pair*/, std::int64_t /*n*/, bool /*first*/, double* /*gram*/) {}

}  // namespace geom::cpu
