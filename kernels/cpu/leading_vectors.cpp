#include "kernels/cpu/leading_vectors.hpp"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/stored_rows.hpp"

namespace geom::cpu {

namespace {

/// The k largest eigenvalues' vectors, n x k, ascending, of the tridiagonal matrix (diagonal, beside), both destroyed;
/// `values` has n.
void leading_of_tridiagonal(double* diagonal, double* beside, std::int64_t n, std::int64_t k, double* values,
                            double* vectors, Pieces pieces) {
    std::vector<lapack_int> support(at(2 * k)), integers(at(10 * n));
    lapack_int found = 0, try_relative_accuracy = 1;
    const std::int64_t work_size = 18 * n;
    check_lapack(
        LAPACKE_dstemr_work(col_major, 'V', 'I', narrow(n), diagonal, beside, 0.0, 0.0, narrow(n - k + 1), narrow(n),
                            &found, values, vectors, narrow(n), narrow(k), support.data(), &try_relative_accuracy,
                            pieces.take(work_size), narrow(work_size), integers.data(), narrow(10 * n)),
        "dstemr", n);
}

void make_unit(double* vector, std::int64_t n) {
    const double norm = cblas_dnrm2(narrow(n), vector, 1);
    if (norm > 0) cblas_dscal(narrow(n), 1.0 / norm, vector, 1);
}

/// Rows [k, cols] of unit length from vectors of the short side, n x k: these themselves where that is the columns',
/// else A^T times them.
std::vector<double> right_vectors(const MatrixRef& a, const double* vectors, std::int64_t k, Pieces pieces) {
    if (a.cols < a.rows) return {vectors, vectors + a.cols * k};
    std::vector<double> right(at(k * a.cols));
    double* widened = pieces.take(a.rows * panel);
    for_each_panel(a.cols, [&](Range columns) {
        widen(a, columns, widened);  // row-major rows x width
        const lapack_int width = narrow(columns.size());
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, narrow(k), width, narrow(a.rows), 1.0, vectors,
                    narrow(a.rows), widened, width, 0.0, right.data() + columns.begin, narrow(a.cols));
    });
    for (std::int64_t j = 0; j < k; ++j) make_unit(right.data() + j * a.cols, a.cols);
    return right;
}

void clear_vectors_of_zeros(LeadingVectors& out, std::int64_t cols) {
    for (std::int64_t j = 0; j * cols < std::ssize(out.right); ++j) {
        if (out.spectrum.values[at(j)] == 0) std::fill_n(out.right.data() + j * cols, cols, 0.0);
    }
}

}  // namespace

LeadingVectors leading_of_gram(const MatrixRef& a, double* gram, std::int64_t k, Pieces pieces) {
    const std::int64_t n = std::min(a.rows, a.cols);
    const double trace = trace_of(gram, n);
    check_trace(trace, {a.rows, a.cols});
    double* diagonal = pieces.take(n);
    double* beside = pieces.take(n);
    double* squares = pieces.take(n);
    double* spoilt = pieces.take(n);
    double* tau = pieces.take(n);
    double* vectors = pieces.take(n * k);
    const std::int64_t work_size = block * n;
    check_lapack(LAPACKE_dsytrd_work(col_major, 'L', narrow(n), gram, narrow(n), diagonal, beside, tau, pieces.next,
                                     narrow(work_size)),
                 "dsytrd", n);
    std::copy_n(diagonal, n, squares);
    std::copy_n(beside, n - 1, spoilt);
    check_lapack(LAPACKE_dsterf_work(narrow(n), squares, spoilt), "dsterf", n);
    leading_of_tridiagonal(diagonal, beside, n, k, spoilt, vectors, pieces);
    if (n > 1) {
        check_lapack(LAPACKE_dormtr_work(col_major, 'L', 'L', 'N', narrow(n), narrow(k), gram, narrow(n), tau, vectors,
                                         narrow(n), pieces.next, narrow(work_size)),
                     "dormtr", n);
    }
    for (std::int64_t j = 0; 2 * j < k - 1; ++j)  // the largest first
        std::swap_ranges(vectors + j * n, vectors + (j + 1) * n, vectors + (k - 1 - j) * n);
    LeadingVectors out{roots_of({squares, static_cast<std::size_t>(n)}, trace, {a.rows, a.cols}),
                       right_vectors(a, vectors, k, pieces)};
    clear_vectors_of_zeros(out, a.cols);
    return out;
}

LeadingVectors leading_directly(const MatrixRef& a, double* r, std::int64_t k, Pieces pieces) {
    const std::int64_t n = std::min(a.rows, a.cols);
    LeadingVectors out;
    out.spectrum.values.resize(at(n));
    out.right.resize(at(k * a.cols));
    const auto exponent = scaled_triangle_of(a, r, pieces);
    if (!exponent) return out;
    double* left = pieces.take(n * k);
    double* right = pieces.take(n * k);
    leading_singular_vectors(r, n, out.spectrum.values.data(), left, right, k, pieces);
    for (double& value : out.spectrum.values) value = std::ldexp(value, *exponent);
    out.spectrum.error = static_cast<double>(n) * std::numeric_limits<double>::epsilon() * out.spectrum.values[0];
    out.right = right_vectors(a, right, k, pieces);
    clear_vectors_of_zeros(out, a.cols);
    return out;
}

std::int64_t vectors_scratch(const MatrixSize& size, std::int64_t k) {
    const std::int64_t n = std::min(size.rows, size.cols), wide = size.cols >= size.rows ? size.rows * panel : 0;
    const std::int64_t by_gram = 5 * (n + 8) + n * k + std::max({18 * n, block * n, wide});
    const std::int64_t direct = std::max(direct_scratch(size), 2 * n * k + 16 + std::max(svd_scratch(n, k), wide));
    return std::max({gram_scratch(size), by_gram, direct}) + 64;
}

}  // namespace geom::cpu
