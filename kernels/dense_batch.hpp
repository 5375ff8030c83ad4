// Dense linear algebra in fp64 on batches of small matrices of equal shape: what the measure `heads` is written with.
// Matrices lie in the backend's memory, column-major (element (i, j) at [i + j * ld]). Weights come as stored: a
// row-major rows x D block, whose elements are widened exactly, and multiplied by 2^-exponent. The bits of a result
// depend on the operands and on the shape and size of the batch alone, never on the number of threads or ranks. A verb
// that writes to host memory returns when it may be read; what it writes to the backend's memory is there for the verbs
// that follow. Public verbs throw Error(internal) for operands that do not fit one another; bodies may rely on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/buffer.hpp"
#include "kernels/matrix_ref.hpp"
#include "kernels/workers.hpp"

namespace geom {

/// Matrices of one shape; `at` holds the address of each. They may be blocks of larger ones (ld > rows).
struct Batch {
    std::vector<double*> at;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t ld = 0;

    std::int64_t size() const noexcept { return static_cast<std::int64_t>(at.size()); }

    /// The block of `block_rows` x `block_cols` at (i, j) of every matrix.
    Batch block(std::int64_t i, std::int64_t j, std::int64_t block_rows, std::int64_t block_cols) const {
        Batch part{at, block_rows, block_cols, ld};
        for (double*& matrix : part.at) matrix += i + j * ld;
        return part;
    }

    /// The matrices with these indices, in this order; an index may come more than once.
    Batch pick(std::span<const std::int64_t> indices) const {
        Batch some{{}, rows, cols, ld};
        some.at.reserve(indices.size());
        for (const std::int64_t i : indices) some.at.push_back(at[static_cast<std::size_t>(i)]);
        return some;
    }
};

/// How well a Cholesky factorisation G = L L^T went.
struct CholeskyReport {
    bool finite = true;    ///< no NaN or infinity on G's diagonal
    bool complete = true;  ///< false: G is not positive definite in fp64, and L is not to be used
    double trace = 0;      ///< of G
    double min_pivot = 0;  ///< the smallest l_ii
    double max_pivot = 0;  ///< the largest l_ii
    double min_sine = 0;   ///< the smallest l_ii / sqrt(g_ii): sine of the angle between row i and the rows before it
};

/// A verb that goes on while others run.
class PendingResult {
public:
    virtual ~PendingResult() = default;  ///< without finish(): what is not done is left out

    /// Returns when the results may be read; throws what the verb threw.
    virtual void finish() = 0;
};

class DenseBatch {
public:
    virtual ~DenseBatch() = default;

    /// 64-byte aligned; throws Error(usage) when memory is short.
    virtual Buffer allocate(std::int64_t bytes) = 0;

    /// The rank's host threads. Between general_eigenvalues and its finish() they are taken.
    virtual Workers& workers() = 0;

    /// Heads that a batch should have to keep the machine busy without holding more memory than that takes.
    virtual std::int64_t heads_at_once() const = 0;

    /// Bytes of the backend's memory that are kept between calls after batches of so many heads, at most.
    virtual std::int64_t scratch_bytes(std::int64_t heads, std::int64_t head_dim, std::int64_t hidden,
                                       std::int64_t top_k) const = 0;

    /// out[i] = X X^T of X = [first[i]; second[i]], both n x D; the lower triangle of 2n x 2n. A block first[i] that is
    /// the same as first[i - 1] is multiplied with itself once.
    void stacked_grams(std::span<const MatrixRef> first, std::span<const MatrixRef> second, const Batch& out);

    /// gram[i] = lower[i] lower[i]^T from the lower triangle of gram[i]; above the diagonal lower[i] is zero.
    void cholesky(const Batch& gram, const Batch& lower, std::span<CholeskyReport> reports);

    /// The same factor (but for signs of its columns) without forming X X^T: Householder QR X^T = O R, lower[i] = R^T.
    /// X = [first[i]; second[i]], or first[i] where `second` is empty. Columns beyond D are zero. min_sine as above.
    void qr_lower(std::span<const MatrixRef> first, std::span<const MatrixRef> second, const Batch& lower,
                  std::span<double> min_sine);

    /// Singular values of left[i]^T right[i] (lower triangular, n x n), descending, to values[i * n]; and of the
    /// leading u[i].cols the left and right singular vectors, as pairs of one sign.
    void product_singular_values(const Batch& left, const Batch& right, std::span<double> values, const Batch& u,
                                 const Batch& v);

    /// x[i] = lower[i]^-T x[i].
    void solve_transposed(const Batch& lower, const Batch& x);

    /// out[i] = W[i]^T z[i], D x k.
    void combine_rows(std::span<const MatrixRef> w, const Batch& z, const Batch& out);

    /// out[i] = O z[i], D x k, with the orthonormal O of qr_lower(w): what combine_rows gives for lower[i]^-T z[i],
    /// where lower[i] may be singular.
    void combine_orthonormal(std::span<const MatrixRef> w, const Batch& z, const Batch& out);

    /// out[i] = L^T J L of the lower triangular L = lower[i] (2n x 2n), J = [[0, I], [I, 0]]; its lower triangle. With
    /// X X^T = L L^T, X = [K; Q] it has the eigenvalues of g + g^T, g = K^T Q, that can be non-zero.
    /// asymmetry[i] = ||L^T [[0, -I], [I, 0]] L||_F = ||g - g^T||_F.
    void exchange_products(const Batch& lower, const Batch& out, std::span<double> asymmetry);

    /// Eigenvalues from the lower triangles, ascending, to values[i * n]. The matrices are destroyed.
    void symmetric_eigenvalues(const Batch& matrices, std::span<double> values);

    /// Eigenvalues to re[i * n], im[i * n] in no order, but conjugates adjacent, the positive imaginary part first. The
    /// matrices may change as soon as this returns; re and im belong to it until finish(). One at a time.
    [[nodiscard]] std::unique_ptr<PendingResult> general_eigenvalues(const Batch& matrices, std::span<double> re,
                                                                     std::span<double> im);

    /// All matrices to host memory, one after the other, column-major without gaps.
    void read(const Batch& matrices, std::span<double> host);

private:
    virtual void do_stacked_grams(std::span<const MatrixRef> first, std::span<const MatrixRef> second,
                                  const Batch& out) = 0;
    virtual void do_cholesky(const Batch& gram, const Batch& lower, std::span<CholeskyReport> reports) = 0;
    virtual void do_qr_lower(std::span<const MatrixRef> first, std::span<const MatrixRef> second, const Batch& lower,
                             std::span<double> min_sine) = 0;
    virtual void do_product_singular_values(const Batch& left, const Batch& right, std::span<double> values,
                                            const Batch& u, const Batch& v) = 0;
    virtual void do_solve_transposed(const Batch& lower, const Batch& x) = 0;
    virtual void do_combine_rows(std::span<const MatrixRef> w, const Batch& z, const Batch& out) = 0;
    virtual void do_combine_orthonormal(std::span<const MatrixRef> w, const Batch& z, const Batch& out) = 0;
    virtual void do_exchange_products(const Batch& lower, const Batch& out, std::span<double> asymmetry) = 0;
    virtual void do_symmetric_eigenvalues(const Batch& matrices, std::span<double> values) = 0;
    virtual std::unique_ptr<PendingResult> do_general_eigenvalues(const Batch& matrices, std::span<double> re,
                                                                  std::span<double> im) = 0;
    virtual void do_read(const Batch& matrices, std::span<double> host) = 0;
};

}  // namespace geom
