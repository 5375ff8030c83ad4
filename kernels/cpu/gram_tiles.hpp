// Products P Q^T of panels in fp64, and symmetric ones P P^T, for processors with AVX-512 (Isa::avx512): tiles of 24 x
// 8 that stay in registers. OpenBLAS chooses kernels by the processor's name, and for one that it does not know
// (0.3.21: Zen 4 and 5) those of AVX2, at half the rate.
//
// A panel of `width` columns is packed in slabs of 24 rows, padded with zeros, one column after the other; a slab
// serves as the left operand, three registers a column, and as the right one, number by number:
//
//   row r of the panel, column k, at ((r / 24 * width) + k) * 24 + r % 24
#pragma once

#include <cstdint>

#include "core/range.hpp"

namespace geom::cpu {

inline constexpr std::int64_t slab_rows = 24;

inline std::int64_t packed_doubles(std::int64_t rows, std::int64_t width) {
    return (rows + slab_rows - 1) / slab_rows * slab_rows * width;
}

/// A panel as it comes: row r, column k at data[r * row_step + k * column_step].
struct Panel {
    const double* data = nullptr;
    std::int64_t rows = 0;
    std::int64_t width = 0;
    std::int64_t row_step = 0;
    std::int64_t column_step = 0;
};
void pack_slabs(const Panel& panel, double* packed);

/// Packed panels of rows `rows` and rows `cols` of P, where `cols` is the same range or lies before it.
struct PackedPair {
    const double* left = nullptr;   ///< rows
    const double* right = nullptr;  ///< cols
    Range rows, cols;
    std::int64_t width = 0;
    bool lower =
        true;  ///< on and below the diagonal alone; else `right` may be of another matrix, and both ranges begin at 0
};

/// gram[rows, cols] (+)= P[rows] P[cols]^T; gram is column-major with n rows, `first`
/// overwrites. Every number is one sum over k in rising order (fused multiply-adds), added to what was there.
void add_packed_product(const PackedPair& pair, std::int64_t n, bool first, double* gram);

}  // namespace geom::cpu
