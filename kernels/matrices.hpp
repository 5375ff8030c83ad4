// Few and large matrices in fp64: singular values of whole matrices, what the measures `spectra` and `residual` are
// written with, and their alignment (kernels/alignment.hpp). Weights come as stored, and their elements are widened
// exactly. The bits of a result depend on the matrix alone, never on the matrices beside it, on threads or on ranks.
// Public verbs throw Error(internal) for operands that do not fit (bodies may rely on it) and Error(numerics) for NaN,
// infinity and failures to converge.
//
// Two ways to the singular values s of an m x n matrix A, k = min(m, n):
//
//   gram      s^2 = eig(A A^T) or eig(A^T A), the smaller one. Quick; the squares are wrong by up to a floor, so that
//             small values lose digits.
//   direct    A = Q R, R = U B V^T, the values of the bidiagonal B. Twice as slow; every value is wrong by up to
//             k eps s_1.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/buffer.hpp"
#include "kernels/alignment.hpp"
#include "kernels/matrix_ref.hpp"

namespace geom {

struct MatrixSize {
    std::int64_t rows = 0;
    std::int64_t cols = 0;
};

/// All min(m, n) singular values, descending, and how far they can be trusted.
struct SingularValues {
    std::vector<double> values;
    double square_error = 0;  ///< of the square of every value, at most; from a Gram matrix
    double error = 0;         ///< of every value, at most; from the matrix itself
};

/// All singular values, and the right singular vectors of the largest.
struct LeadingVectors {
    SingularValues spectrum;
    std::vector<double> right;  ///< [k, n] of an m x n matrix: unit rows, either sign; zeros for a value of 0
};

/// Bytes that a verb takes: while it runs, and what the backend keeps from then on for the next, of all sizes.
struct MatricesScratch {
    std::int64_t backend = 0;
    std::int64_t host = 0;  ///< where the backend's memory is another
    std::int64_t kept = 0;  ///< of the backend's
};

class Matrices {
public:
    virtual ~Matrices() = default;

    /// By their Gram matrices, in the order of `matrices`. With u = 2^-53 and sums over K = 256 columns at a time,
    ///     square_error = ||A||_F^2 u (K + 2 long side / K) + s_1^2 eps (short side):
    /// rounding of the sums and of the reduction to tridiagonal form. Matrices whose squares leave fp64's range are
    /// done directly.
    std::vector<SingularValues> gram_singular_values(std::span<const MatrixRef> matrices);

    /// Directly, in the order of `matrices`.
    std::vector<SingularValues> direct_singular_values(std::span<const MatrixRef> matrices);

    /// Both ways with the right singular vectors of the k <= min(m, n) largest values. A Gram matrix leaves a vector
    /// wrong by up to square_error / (distance of its value's square from the others').
    std::vector<LeadingVectors> gram_leading_vectors(std::span<const MatrixRef> matrices, std::int64_t k);
    std::vector<LeadingVectors> direct_leading_vectors(std::span<const MatrixRef> matrices, std::int64_t k);

    /// Memory for a Gram matrix.
    virtual Buffer allocate(std::int64_t bytes) = 0;

    /// The lower triangle of gram (+)= S^T S, column-major n x n, for a strip S of n columns; `first` overwrites. For
    /// matrices that are in memory a strip of rows at a time.
    void add_gram(const MatrixRef& strip, bool first, double* gram);

    /// The singular values of an m x n matrix from what add_gram made of all its strips; destroys it. As
    /// gram_singular_values, but for n columns and whatever m.
    SingularValues singular_values_of_gram(double* gram, const MatrixSize& size);

    /// Residuals of every set of tied rows, each for its own T. Sets are looked at side by side, one by all threads;
    /// the bits are the same. With w the width of all a_i beside one another:
    ///     n <= w    T from the polar factor of A B^T, n x n
    ///     n > w     A = Q_a R_a, B = Q_b R_b: T turns the columns of Q_a as the polar factor of R_a R_b^T, w x w,
    ///     says, and
    ///               what it does to the rest plays no part (with Turn::backward it does: not unique, residuals NaN)
    /// Residuals are sums of squared differences, within 1e-7 of those of the exact T for singular values of A B^T down
    /// to 1e-12 of the largest; where there are smaller ones, T is not unique.
    std::vector<TurnedResiduals> turned_residuals(std::span<const TiedRows> sets, Turn turn);

    /// For turned_residuals of `sets` sets of n rows and width w each. Of the host's memory.
    virtual std::int64_t turning_bytes(std::int64_t sets, std::int64_t rows, std::int64_t width, Turn turn) const = 0;

    /// For gram_singular_values and direct_singular_values of matrices of these sizes at once.
    virtual MatricesScratch scratch(std::span<const MatrixSize> sizes) const = 0;

    /// For gram_leading_vectors and direct_leading_vectors likewise.
    virtual MatricesScratch vectors_scratch(std::span<const MatrixSize> sizes, std::int64_t k) const = 0;

    /// For a matrix in strips of so many rows: its Gram matrix, add_gram and singular_values_of_gram.
    virtual MatricesScratch strip_scratch(const MatrixSize& strip) const = 0;

private:
    virtual std::vector<SingularValues> do_gram_singular_values(std::span<const MatrixRef> matrices) = 0;
    virtual std::vector<SingularValues> do_direct_singular_values(std::span<const MatrixRef> matrices) = 0;
    virtual std::vector<TurnedResiduals> do_turned_residuals(std::span<const TiedRows> sets, Turn turn) = 0;
    virtual std::vector<LeadingVectors> do_gram_leading_vectors(std::span<const MatrixRef> matrices,
                                                                std::int64_t k) = 0;
    virtual std::vector<LeadingVectors> do_direct_leading_vectors(std::span<const MatrixRef> matrices,
                                                                  std::int64_t k) = 0;
    virtual void do_add_gram(const MatrixRef& strip, bool first, double* gram) = 0;
    virtual SingularValues do_singular_values_of_gram(double* gram, const MatrixSize& size) = 0;
};

}  // namespace geom
