#include "kernels/cpu/one_matrix.hpp"

#include <cblas.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.hpp"

// LAPACK's double-shift QR on a Hessenberg matrix; LAPACKE does not name it.
extern "C" void dlahqr_(const lapack_int* wantt, const lapack_int* wantz, const lapack_int* n, const lapack_int* ilo,
                        const lapack_int* ihi, double* h, const lapack_int* ldh, double* wr, double* wi,
                        const lapack_int* iloz, const lapack_int* ihiz, double* z, const lapack_int* ldz,
                        lapack_int* info);

namespace geom::cpu {

void check_lapack(lapack_int info, const char* routine, std::int64_t n) {
    if (info == 0) return;
    if (info < 0) throw Error(ExitCode::internal, fmt::format("{} refused argument {}", routine, -info));
    throw Error(ExitCode::numerics,
                fmt::format("{} did not converge on a matrix of order {} (info {}): are there NaN or huge weights?",
                            routine, n, info));
}

// --- factors ---------------------------------------------------------------------------------------------------------

namespace {

void copy_lower(const double* from, std::int64_t ld_from, std::int64_t n, double* to, std::int64_t ld_to) {
    for (std::int64_t j = 0; j < n; ++j) {
        std::fill_n(to + j * ld_to, j, 0.0);
        std::copy_n(from + j + j * ld_from, n - j, to + j + j * ld_to);
    }
}

}  // namespace

CholeskyReport cholesky_of(const double* gram, std::int64_t ld_gram, std::int64_t n, double* lower, std::int64_t ld) {
    CholeskyReport report;
    for (std::int64_t i = 0; i < n; ++i) report.trace += gram[i + i * ld_gram];
    report.finite = std::isfinite(report.trace);
    copy_lower(gram, ld_gram, n, lower, ld);
    report.complete = report.finite && LAPACKE_dpotrf_work(col_major, 'L', narrow(n), lower, narrow(ld)) == 0;
    if (!report.complete) return report;
    report.min_pivot = report.min_sine = std::numeric_limits<double>::infinity();
    for (std::int64_t i = 0; i < n; ++i) {
        const double pivot = lower[i + i * ld];
        report.min_pivot = std::min(report.min_pivot, pivot);
        report.max_pivot = std::max(report.max_pivot, pivot);
        report.min_sine = std::min(report.min_sine, pivot / std::sqrt(gram[i + i * ld_gram]));
    }
    return report;
}

double least_sine(const double* lower, std::int64_t ld, std::int64_t n) {
    double least = 1.0;
    for (std::int64_t i = 0; i < n; ++i) {
        const double norm = cblas_dnrm2(narrow(i + 1), lower + i, narrow(ld));
        least = std::min(least, norm > 0 ? std::abs(lower[i + i * ld]) / norm : 0.0);
    }
    return least;
}

// --- singular values and the leading vectors

namespace {

/// An upper bidiagonal matrix B of order n, its singular values (descending), and vectors with B v = s u.
struct Bidiagonal {
    std::int64_t n;
    const double* diagonal;
    const double* above;
    const double* values;
};

/// What follows is safe for the leading k pairs: few of them, none small, and B does not fall apart.
bool suits_inverse_iteration(const Bidiagonal& b, std::int64_t k) {
    if (4 * k > b.n || b.values[k - 1] < 1e-3 * b.values[0]) return false;
    double least = std::abs(b.diagonal[b.n - 1]);
    for (std::int64_t i = 0; i + 1 < b.n; ++i) least = std::min({least, std::abs(b.diagonal[i]), std::abs(b.above[i])});
    return least > 1e-8 * b.values[0];
}

/// The leading k pairs by inverse iteration on the Golub-Kahan form: the tridiagonal matrix of order 2n with zero
/// diagonal and d1, e1, d2, e2, ... beside it has eigenvalues +-s and eigenvectors (v1, u1, v2, u2, ...) / sqrt(2).
/// False when it did not work out.
bool leading_by_inverse_iteration(const Bidiagonal& b, std::int64_t k, double* u, double* v, Pieces pieces) {
    const std::int64_t order = 2 * b.n;
    double* zeros = pieces.take(order);
    double* beside = pieces.take(order);
    double* rising = pieces.take(k);
    double* z = pieces.take(order * k);
    double* work = pieces.take(5 * order);
    std::fill_n(zeros, order, 0.0);
    for (std::int64_t i = 0; i < b.n; ++i) {
        beside[2 * i] = b.diagonal[i];
        beside[2 * i + 1] = i + 1 < b.n ? b.above[i] : 0.0;
    }
    std::reverse_copy(b.values, b.values + k, rising);
    std::vector<lapack_int> blocks(at(k), 1), ends(at(order), narrow(order)), iwork(at(order)), failed(at(k));
    if (LAPACKE_dstein_work(col_major, narrow(order), zeros, beside, narrow(k), rising, blocks.data(), ends.data(), z,
                            narrow(order), work, iwork.data(), failed.data()) != 0) {
        return false;
    }
    for (std::int64_t j = 0; j < k; ++j) {
        const double* pair = z + (k - 1 - j) * order;
        double* uj = u + j * b.n;
        double* vj = v + j * b.n;
        for (std::int64_t i = 0; i < b.n; ++i) {
            vj[i] = pair[2 * i];
            uj[i] = pair[2 * i + 1];
        }
        const double u_norm = cblas_dnrm2(narrow(b.n), uj, 1), v_norm = cblas_dnrm2(narrow(b.n), vj, 1);
        if (std::abs(u_norm - v_norm) > 1e-9) return false;
        cblas_dscal(narrow(b.n), 1 / u_norm, uj, 1);
        cblas_dscal(narrow(b.n), 1 / v_norm, vj, 1);
    }
    return true;
}

/// The leading k pairs from all of them, by divide and conquer.
void leading_of_all(const Bidiagonal& b, std::int64_t k, double* u, double* v, Pieces pieces) {
    const std::int64_t n = b.n;
    double* diagonal = pieces.take(n);
    double* above = pieces.take(n);
    double* all_u = pieces.take(n * n);
    double* all_vt = pieces.take(n * n);
    double* work = pieces.take(3 * n * n + 4 * n);
    std::copy_n(b.diagonal, n, diagonal);
    std::copy_n(b.above, n - 1, above);
    std::vector<lapack_int> iwork(at(8 * n));
    check_lapack(LAPACKE_dbdsdc_work(col_major, 'U', 'I', narrow(n), diagonal, above, all_u, narrow(n), all_vt,
                                     narrow(n), nullptr, nullptr, work, iwork.data()),
                 "dbdsdc", n);
    std::copy_n(all_u, n * k, u);
    for (std::int64_t j = 0; j < k; ++j) cblas_dcopy(narrow(n), all_vt + j, narrow(n), v + j * n, 1);
}

}  // namespace

std::int64_t svd_scratch(std::int64_t n, std::int64_t k) {
    const std::int64_t inverse = 20 * n + 2 * n * k, all = 5 * n * n + 8 * n;
    return 2 * n * n + 8 * n + block * 2 * n + 2 * n * k + std::max(inverse, all) + 256;
}

// A = Q B P^T (Golub and Kahan), the values of B by dqds, the leading vectors of B, and back through Q and P.
// `a` is n x n without gaps and is destroyed.
void leading_singular_vectors(double* a, std::int64_t n, double* values, double* u, double* v, std::int64_t k,
                              Pieces pieces) {
    double* diagonal = pieces.take(n);
    double* above = pieces.take(n);
    double* tau_q = pieces.take(n);
    double* tau_p = pieces.take(n);
    double* spoilt = pieces.take(n);  // dbdsqr destroys what is beside the diagonal
    const std::int64_t work_size = block * 2 * n;
    double* work = pieces.take(work_size);
    check_lapack(LAPACKE_dgebrd_work(col_major, narrow(n), narrow(n), a, narrow(n), diagonal, above, tau_q, tau_p, work,
                                     narrow(work_size)),
                 "dgebrd", n);
    std::copy_n(diagonal, n, values);
    std::copy_n(above, n - 1, spoilt);
    check_lapack(LAPACKE_dbdsqr_work(col_major, 'U', narrow(n), 0, 0, 0, values, spoilt, nullptr, 1, nullptr, 1,
                                     nullptr, 1, work),
                 "dbdsqr", n);
    if (k == 0) return;
    const Bidiagonal b{n, diagonal, above, values};
    if (!suits_inverse_iteration(b, k) || !leading_by_inverse_iteration(b, k, u, v, pieces)) {
        leading_of_all(b, k, u, v, pieces);
    }
    check_lapack(LAPACKE_dormbr_work(col_major, 'Q', 'L', 'N', narrow(n), narrow(k), narrow(n), a, narrow(n), tau_q, u,
                                     narrow(n), work, narrow(work_size)),
                 "dormbr", n);
    check_lapack(LAPACKE_dormbr_work(col_major, 'P', 'L', 'N', narrow(n), narrow(k), narrow(n), a, narrow(n), tau_p, v,
                                     narrow(n), work, narrow(work_size)),
                 "dormbr", n);
}

// --- eigenvalues -----------------------------------------------------------------------------------------------------

// Householder tridiagonalisation, then QL without square roots. Panels of 8 columns are the fastest at these orders.
void symmetric_eigenvalues_of(double* a, std::int64_t ld, std::int64_t n, double* values, Pieces pieces) {
    double* beside = pieces.take(n);
    double* tau = pieces.take(n);
    double* work = pieces.take(8 * n);
    check_lapack(
        LAPACKE_dsytrd_work(col_major, 'L', narrow(n), a, narrow(ld), values, beside, tau, work, narrow(8 * n)),
        "dsytrd", n);
    check_lapack(LAPACKE_dsterf_work(narrow(n), values, beside), "dsterf", n);
}

namespace {

/// The rows and columns (from 1) that balancing left to be worked on.
struct Balanced {
    lapack_int low = 1;
    lapack_int high = 0;
};

/// Eigenvalues of a balanced Hessenberg matrix. dhseqr turns to multishift QR above order 75, which pays only beyond
/// 256 when no vectors are wanted: order 128 took 3.0 ms, against 2.2 ms here.
lapack_int hessenberg_eigenvalues(double* h, std::int64_t ld, std::int64_t n, Balanced part, double* re, double* im,
                                  double* work) {
    constexpr std::int64_t multishift_pays = 256;
    const lapack_int order = narrow(n), ld_h = narrow(ld), no = 0, one = 1;
    if (n > multishift_pays) {
        return LAPACKE_dhseqr_work(col_major, 'E', 'N', order, part.low, part.high, h, ld_h, re, im, nullptr, 1, work,
                                   narrow(block) * order);
    }
    for (std::int64_t i = 0; i < n; ++i) {  // balancing isolated those outside [low, high]
        re[i] = h[i + i * ld];
        im[i] = 0.0;
    }
    lapack_int info = 0;
    dlahqr_(&no, &no, &order, &part.low, &part.high, h, &ld_h, re, im, &one, &order, nullptr, &one, &info);
    return info;
}

/// Columns end up in different cache sets: at leading dimension 256 QR iteration took a third longer.
std::int64_t spread_ld(std::int64_t n) { return (n + 7) / 8 * 8 + 8; }

}  // namespace

std::int64_t general_scratch(std::int64_t n) { return (spread_ld(n) + block + 2) * n + reflector_factor + 64; }

// Balancing, reduction to Hessenberg form, QR iteration: dgeev without vectors.
void general_eigenvalues_of(const double* matrix, std::int64_t ld, std::int64_t n, double* re, double* im,
                            Pieces pieces) {
    const std::int64_t ld_a = spread_ld(n), work_size = block * n + reflector_factor;
    double* a = pieces.take(ld_a * n);
    double* scale = pieces.take(n);
    double* tau = pieces.take(n);
    double* work = pieces.take(work_size);
    for (std::int64_t j = 0; j < n; ++j) std::copy_n(matrix + j * ld, n, a + j * ld_a);
    Balanced part;
    check_lapack(LAPACKE_dgebal_work(col_major, 'B', narrow(n), a, narrow(ld_a), &part.low, &part.high, scale),
                 "dgebal", n);
    check_lapack(
        LAPACKE_dgehrd_work(col_major, narrow(n), part.low, part.high, a, narrow(ld_a), tau, work, narrow(work_size)),
        "dgehrd", n);
    check_lapack(hessenberg_eigenvalues(a, ld_a, n, part, re, im, work), "dhseqr", n);
}

}  // namespace geom::cpu
