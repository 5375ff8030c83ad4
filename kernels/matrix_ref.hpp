// A matrix as it is stored, in a backend's memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.hpp"

namespace geom {

/// A contiguous row-major matrix.
struct MatrixRef {
    const std::byte* data = nullptr;
    DType dtype = DType::bf16;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    /// Verbs on blocks of heads take every element times 2^-exponent, |exponent| <= 1000, and what they write is of the
    /// blocks so scaled.
    std::int32_t exponent = 0;
};

/// What a block of a head is multiplied without whose largest magnitude is in [2^(largest-1), 2^largest): the range of
/// the stored type, and of fp32, then plays no part in products. 0 in the range of ordinary weights, 2^-16 to 2^16: of
/// four factors of that size, D hd^2 times, fp32 holds the sum, and 60 binary digits of each factor below its largest.
constexpr std::int32_t block_exponent(std::int32_t largest) noexcept {
    return largest > -16 && largest <= 16 ? 0 : largest;
}

}  // namespace geom
