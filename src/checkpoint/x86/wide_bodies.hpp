// One body a file, each compiled for its instruction set.
#pragma once

#include "checkpoint/generate.hpp"

namespace geom {

void generate_avx512(const SyntheticSource& source, DType dtype, std::int64_t first_block, std::int64_t steps,
                     std::byte* out) noexcept;
void generate_avx2(const SyntheticSource& source, DType dtype, std::int64_t first_block, std::int64_t steps,
                   std::byte* out) noexcept;

}  // namespace geom
