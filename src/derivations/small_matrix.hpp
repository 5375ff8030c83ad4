// Singular values and eigenvalues of single small matrices, for what is derived from a file where there is no backend.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace geom {

/// Singular values of `matrix` [rows, cols], row-major, descending; min(rows, cols) of them. One-sided Jacobi rotations
/// (Hestenes 1958), which do not square the condition.
std::vector<double> singular_values_of(std::span<const double> matrix, std::int64_t rows, std::int64_t cols);

/// Eigenvalues of a symmetric `matrix` [n, n] by descending magnitude: Householder's tridiagonal form, then QL with
/// implicit shifts (Martin, Reinsch, Wilkinson 1968; Dubrulle 1970). Throws Error(numerics) when it does not converge.
std::vector<double> symmetric_eigenvalues_of(std::vector<double> matrix, std::int64_t n);

/// Unit eigenvectors [k, n] of its k <= n largest eigenvalues (not magnitudes), the largest first; either sign.
std::vector<double> leading_eigenvectors_of(std::vector<double> matrix, std::int64_t n, std::int64_t k);

}  // namespace geom
