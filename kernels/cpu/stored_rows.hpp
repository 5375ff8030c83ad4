// Weights as stored to fp64 or f32, some columns at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/range.hpp"
#include "kernels/matrix_ref.hpp"

namespace geom::cpu {

/// Columns of D that are widened at a time.
inline constexpr std::int64_t panel = 256;

/// Some columns of the stored rows in fp64, times 2^-exponent, exactly: row-major rows x width is column-major width x
/// rows, that is W^T. Throws Error(internal) for types that are not multiplied.
void widen(const MatrixRef& w, Range columns, double* to);

/// All of the stored rows, times 2^-exponent and, where there are any, times the columns' weights, as elements of
/// `dtype` (bf16, f32 or f64, rounded to nearest).
std::vector<std::byte> rescaled(const MatrixRef& w, std::span<const double> columns, DType dtype);

/// Some columns of the stored rows in f32, rows `stride` apart. Exact but for f64, which is rounded.
void to_f32(const MatrixRef& w, Range columns, float* to, std::int64_t stride);

/// Calls f(columns) for one panel of D after the other: what is widened at a time stays in the cache.
template <class F>
void for_each_panel(std::int64_t hidden, F f) {
    for (std::int64_t begin = 0; begin < hidden; begin += panel) f(Range{begin, std::min(begin + panel, hidden)});
}

}  // namespace geom::cpu
