// What the spectrum of a matrix of independent entries of equal variance looks like, to hold real ones against.
// Marchenko and Pastur, Math. USSR-Sbornik 1 (1967); Johnstone, Annals of Statistics 29 (2001).
#pragma once

#include <cstdint>
#include <span>

namespace geom {

/// Effective rank exp(-sum p ln p), p = s / sum s, of a large `rows` x `cols` matrix of independent entries: 0.805 M
/// for a square one, 0.973 M for 5:1, M = min(rows, cols).
double marchenko_pastur_eff_rank(std::int64_t rows, std::int64_t cols);

/// How many of the squared singular values (`squares`, descending, min(rows, cols) of them) lie above the largest that
/// noise alone would give in 999 of 1000 matrices. The noise's variance is that of what is not above it, found by
/// repetition until the number stays the same.
std::int64_t marchenko_pastur_outliers(std::span<const double> squares, std::int64_t rows, std::int64_t cols);

}  // namespace geom
