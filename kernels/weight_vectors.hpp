// Rows or columns of weight matrices as vectors, in the host's memory and on the rank's threads: what the gauge
// `function` of the measure `variation` is written with. Elements are widened exactly and folded in f64. The bits of a
// result depend on the operands alone. Functions throw Error(internal) for operands that do not fit one another.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/folded_matrix.hpp"
#include "kernels/workers.hpp"

namespace geom {

/// Vector i is row i of the matrix, or its column i.
struct WeightVectors {
    FoldedMatrix matrix;
    bool columns = false;

    std::int64_t count() const noexcept { return columns ? matrix.stored.cols : matrix.stored.rows; }
    std::int64_t length() const noexcept { return columns ? matrix.stored.rows : matrix.stored.cols; }
};

/// squares[i] = ||vector i||^2, in f64.
void squared_norms(Workers& workers, const WeightVectors& vectors, std::span<double> squares);

/// <a_i, b_j> times a_factor[i] b_factor[j].
struct VectorProducts {
    WeightVectors a, b;
    std::span<const double> a_factor, b_factor;
};

/// out[i, j] = (sum over `plain` of the products) + |sum over `magnitude` of them|: row-major, f32 with sums in f32.
void similarities(Workers& workers, std::span<const VectorProducts> plain, std::span<const VectorProducts> magnitude,
                  std::span<float> out);
std::int64_t similarities_bytes(const Workers& workers);

/// out[s] = A_s B_s^T for s in [0, step), where A_s has rows s, s + step, s + 2 step, ... of a, and B_s of b, as many:
/// square and row-major, one after the other, in f64. `step` divides the number of rows.
void strided_products(Workers& workers, const FoldedMatrix& a, const FoldedMatrix& b, std::int64_t step,
                      std::span<double> out);
std::int64_t strided_products_bytes(const Workers& workers, std::int64_t rows, std::int64_t step);

/// first_factor a_first + second_factor a_second - other_factor b_other.
struct Combination {
    std::int64_t first = 0, second = 0, other = 0;
    double first_factor = 0.0, second_factor = 0.0, other_factor = 0.0;
};

/// squares[i] = ||combination i||^2, in f64.
void squared_combinations(Workers& workers, const WeightVectors& a, const WeightVectors& b,
                          std::span<const Combination> combinations, std::span<double> squares);
std::int64_t squared_combinations_bytes(const Workers& workers, const WeightVectors& vectors);

/// Each of the matrices (n x n, one after the other) becomes its orthogonal polar factor P, for which <P, M> is
/// largest; nuclear_norms has <P, M>. By singular value decompositions; a matrix that is singular has one of its polar
/// factors. Throws Error(numerics) where one does not converge.
void polar_factors(Workers& workers, std::span<double> matrices, std::int64_t n, std::span<double> nuclear_norms);
std::int64_t polar_factors_bytes(const Workers& workers, std::int64_t n);

}  // namespace geom
