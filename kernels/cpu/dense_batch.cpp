#include "kernels/cpu/dense_batch.hpp"

#include <cblas.h>
#include <fmt/format.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "core/dtype.hpp"
#include "core/error.hpp"
#include "core/range.hpp"
#include "kernels/backend.hpp"

// LAPACK's double-shift QR on a Hessenberg matrix; LAPACKE does not name it.
extern "C" void dlahqr_(const lapack_int* wantt, const lapack_int* wantz, const lapack_int* n, const lapack_int* ilo,
                        const lapack_int* ihi, double* h, const lapack_int* ldh, double* wr, double* wi,
                        const lapack_int* iloz, const lapack_int* ihiz, double* z, const lapack_int* ldz,
                        lapack_int* info);

namespace geom {

namespace {

constexpr int col_major = LAPACK_COL_MAJOR;
constexpr std::int64_t block = 64;   // columns a blocked LAPACK routine may keep in its workspace
constexpr std::int64_t panel = 256;  // columns of D widened at a time

lapack_int narrow(std::int64_t n) { return static_cast<lapack_int>(n); }
std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// A foreseeable failure of a LAPACK routine: no convergence.
void check_lapack(lapack_int info, const char* routine, std::int64_t n) {
    if (info == 0) return;
    if (info < 0) throw Error(ExitCode::internal, fmt::format("{} refused argument {}", routine, -info));
    throw Error(ExitCode::numerics,
                fmt::format("{} did not converge on a matrix of order {} (info {}): are there NaN or huge weights?",
                            routine, n, info));
}

/// Hands out consecutive 64-byte aligned pieces of a thread's scratch memory.
struct Pieces {
    double* next;
    double* take(std::int64_t doubles) { return std::exchange(next, next + size(doubles)); }
    static std::int64_t size(std::int64_t doubles) { return (doubles + 7) / 8 * 8; }
};

// --- stored rows ----------------------------------------------------------------------------------------------------

/// Exact, without branches: the exponent is moved by a product, so subnormals come out right.
float f16_widened(std::uint16_t bits) {
    const std::uint32_t magnitude = std::uint32_t{bits & 0x7fffU} << 13;
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p112F;
    const std::uint32_t special = magnitude >= 0x0f800000U ? 0x7f800000U : 0U;  // infinity and NaN
    const std::uint32_t sign = std::uint32_t{bits & 0x8000U} << 16;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign);
}

template <class Stored, class Widen>
void widen_as(const MatrixRef& w, Range columns, double* to, Widen widen) {
    constexpr auto bytes = static_cast<std::int64_t>(sizeof(Stored));
    for (std::int64_t row = 0; row < w.rows; ++row) {
        const std::byte* from = w.data + (row * w.cols + columns.begin) * bytes;
        for (std::int64_t i = 0; i < columns.size(); ++i) {
            Stored value;
            std::memcpy(&value, from + i * bytes, sizeof(Stored));
            *to++ = widen(value);
        }
    }
}

/// Some columns of the stored rows in fp64: row-major rows x width is column-major width x rows, that is W^T.
void widen(const MatrixRef& w, Range columns, double* to) {
    switch (w.dtype) {
        case DType::bf16:
            return widen_as<std::uint16_t>(w, columns, to, bf16_to_f32);
        case DType::f16:
            return widen_as<std::uint16_t>(w, columns, to, f16_widened);
        case DType::f32:
            return widen_as<float>(w, columns, to, [](float value) { return value; });
        case DType::f64:
            return widen_as<double>(w, columns, to, [](double value) { return value; });
        default:
            throw Error(ExitCode::internal, fmt::format("no products of {} weights", name_of(w.dtype)));
    }
}

/// Calls f(columns) for one panel of D after the other: what is widened at a time stays in the cache.
template <class F>
void for_each_panel(std::int64_t hidden, F f) {
    for (std::int64_t begin = 0; begin < hidden; begin += panel) f(Range{begin, std::min(begin + panel, hidden)});
}

/// The lower triangle of gram (+)= W W^T over a panel of `width` columns; the first panel overwrites.
void add_gram(const double* wt, std::int64_t rows, Range columns, double* gram, std::int64_t ld) {
    cblas_dsyrk(CblasColMajor, CblasLower, CblasTrans, narrow(rows), narrow(columns.size()), 1.0, wt,
                narrow(columns.size()), columns.begin == 0 ? 0.0 : 1.0, gram, narrow(ld));
}

/// product (+)= A B^T over a panel, from the widened A^T and B^T.
void add_product(const double* at, const double* bt, std::int64_t rows, Range columns, double* product,
                 std::int64_t ld) {
    const lapack_int n = narrow(rows), width = narrow(columns.size());
    cblas_dgemm(CblasColMajor, CblasTrans, CblasNoTrans, n, n, width, 1.0, at, width, bt, width,
                columns.begin == 0 ? 0.0 : 1.0, product, narrow(ld));
}

// --- factors ---------------------------------------------------------------------------------------------------------

void copy_lower(const double* from, std::int64_t ld_from, std::int64_t n, double* to, std::int64_t ld_to) {
    for (std::int64_t j = 0; j < n; ++j) {
        std::fill_n(to + j * ld_to, j, 0.0);
        std::copy_n(from + j + j * ld_from, n - j, to + j + j * ld_to);
    }
}

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

/// The smallest |l_ii| / ||row i||; 0 where a row is zero.
double least_sine(const double* lower, std::int64_t ld, std::int64_t n) {
    double least = 1.0;
    for (std::int64_t i = 0; i < n; ++i) {
        const double norm = cblas_dnrm2(narrow(i + 1), lower + i, narrow(ld));
        least = std::min(least, norm > 0 ? std::abs(lower[i + i * ld]) / norm : 0.0);
    }
    return least;
}

// --- singular values and the leading vectors
// --------------------------------------------------------------------------

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

std::int64_t svd_scratch(std::int64_t n, std::int64_t k) {
    const std::int64_t inverse = 20 * n + 2 * n * k, all = 5 * n * n + 8 * n;
    return 2 * n * n + 8 * n + block * 2 * n + 2 * n * k + std::max(inverse, all) + 256;
}

/// A = Q B P^T (Golub and Kahan), the values of B by dqds, the leading vectors of B, and back through Q and P.
/// `a` is n x n without gaps and is destroyed.
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

/// Householder tridiagonalisation, then QL without square roots. Panels of 8 columns are the fastest at these orders.
void symmetric_eigenvalues_of(double* a, std::int64_t ld, std::int64_t n, double* values, Pieces pieces) {
    double* beside = pieces.take(n);
    double* tau = pieces.take(n);
    double* work = pieces.take(8 * n);
    check_lapack(
        LAPACKE_dsytrd_work(col_major, 'L', narrow(n), a, narrow(ld), values, beside, tau, work, narrow(8 * n)),
        "dsytrd", n);
    check_lapack(LAPACKE_dsterf_work(narrow(n), values, beside), "dsterf", n);
}

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

constexpr std::int64_t reflector_factor = 65 * 64;  // what dgehrd and dormqr keep besides the block

std::int64_t general_scratch(std::int64_t n) { return (spread_ld(n) + block + 2) * n + reflector_factor + 64; }

/// Balancing, reduction to Hessenberg form, QR iteration: dgeev without vectors.
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

}  // namespace

void cpu::general_eigenvalues(const double* matrix, std::int64_t ld, std::int64_t n, double* re, double* im,
                              double* scratch) {
    general_eigenvalues_of(matrix, ld, n, re, im, {scratch});
}

std::int64_t cpu::general_eigenvalues_scratch(std::int64_t n) { return general_scratch(n); }

// --- the verbs -------------------------------------------------------------------------------------------------------

CpuDenseBatch::CpuDenseBatch(Workers& workers) : workers_(workers), scratch_(at(workers.size())) {}

Buffer CpuDenseBatch::allocate(std::int64_t bytes) { return allocate_host(bytes); }

// Of the verbs that every head goes through; heads that need QR take n D more.
std::int64_t CpuDenseBatch::scratch_bytes(std::int64_t /*heads*/, std::int64_t head_dim, std::int64_t /*hidden*/,
                                          std::int64_t top_k) const {
    const std::int64_t n = head_dim;
    return 8 * workers_.size() * std::max({2 * n * panel, svd_scratch(n, std::min(top_k, n)), general_scratch(n)});
}

double* CpuDenseBatch::scratch(int worker, std::int64_t doubles) {
    Buffer& mine = scratch_[at(worker)];
    const std::int64_t bytes = doubles * 8;
    if (mine.size() < bytes) {
        mine = Buffer();
        mine = allocate_host(bytes);
    }
    return mine.as<double>();
}

void CpuDenseBatch::stacked_grams(std::span<const MatrixRef> first, std::span<const MatrixRef> second,
                                  const Batch& out) {
    const std::int64_t n = out.rows / 2, ld = out.ld;
    std::vector<std::int64_t> leader(at(out.size()));  // whose upper left block is computed, the others copy it
    std::vector<std::int64_t> leaders;
    for (std::int64_t i = 0; i < out.size(); ++i) {
        const bool same = i > 0 && first[at(i)].data == first[at(i - 1)].data;
        leader[at(i)] = same ? leader[at(i - 1)] : i;
        if (!same) leaders.push_back(i);
    }
    workers_.for_each(std::ssize(leaders), [&](std::int64_t group, int worker) {
        const std::int64_t i = leaders[at(group)];
        double* k = scratch(worker, n * panel);
        for_each_panel(first[at(i)].cols, [&](Range columns) {
            widen(first[at(i)], columns, k);
            add_gram(k, n, columns, out.at[at(i)], ld);
        });
    });
    workers_.for_each(out.size(), [&](std::int64_t i, int worker) {
        double* gram = out.at[at(i)];
        double* k = scratch(worker, 2 * n * panel);
        double* q = k + n * panel;
        for_each_panel(first[at(i)].cols, [&](Range columns) {
            widen(first[at(i)], columns, k);
            widen(second[at(i)], columns, q);
            add_gram(q, n, columns, gram + n + n * ld, ld);
            add_product(q, k, n, columns, gram + n, ld);
        });
        if (leader[at(i)] == i) return;
        const double* done = out.at[at(leader[at(i)])];
        for (std::int64_t j = 0; j < n; ++j) std::copy_n(done + j + j * ld, n - j, gram + j + j * ld);
    });
}

void CpuDenseBatch::cholesky(const Batch& gram, const Batch& lower, std::span<CholeskyReport> reports) {
    workers_.for_each(gram.size(), [&](std::int64_t i, int) {
        reports[at(i)] = cholesky_of(gram.at[at(i)], gram.ld, gram.rows, lower.at[at(i)], lower.ld);
    });
}

void CpuDenseBatch::qr_lower(std::span<const MatrixRef> first, std::span<const MatrixRef> second, const Batch& lower,
                             std::span<double> min_sine) {
    const std::int64_t n = lower.rows;
    workers_.for_each(lower.size(), [&](std::int64_t i, int worker) {
        const std::int64_t hidden = first[at(i)].cols, work_size = block * n;
        Pieces pieces{scratch(worker, Pieces::size(n * hidden) + Pieces::size(n) + work_size)};
        double* xt = pieces.take(n * hidden);
        double* tau = pieces.take(n);
        widen(first[at(i)], {0, hidden}, xt);
        if (!second.empty()) widen(second[at(i)], {0, hidden}, xt + first[at(i)].rows * hidden);
        check_lapack(LAPACKE_dgeqrf_work(col_major, narrow(hidden), narrow(n), xt, narrow(hidden), tau,
                                         pieces.take(work_size), narrow(work_size)),
                     "dgeqrf", n);
        double* l = lower.at[at(i)];
        for (std::int64_t j = 0; j < n; ++j) {
            std::fill_n(l + j * lower.ld, n, 0.0);
            if (j >= hidden) continue;
            for (std::int64_t row = j; row < n; ++row) l[row + j * lower.ld] = xt[j + row * hidden];
        }
        min_sine[at(i)] = least_sine(l, lower.ld, n);
    });
}

void CpuDenseBatch::product_singular_values(const Batch& left, const Batch& right, std::span<double> values,
                                            const Batch& u, const Batch& v) {
    const std::int64_t n = left.rows, k = u.cols;
    workers_.for_each(left.size(), [&](std::int64_t i, int worker) {
        Pieces pieces{scratch(worker, svd_scratch(n, k))};
        double* product = pieces.take(n * n);
        double* leading_u = pieces.take(n * k);
        double* leading_v = pieces.take(n * k);
        for (std::int64_t j = 0; j < n; ++j) std::copy_n(right.at[at(i)] + j * right.ld, n, product + j * n);
        cblas_dtrmm(CblasColMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, narrow(n), narrow(n), 1.0,
                    left.at[at(i)], narrow(left.ld), product, narrow(n));
        leading_singular_vectors(product, n, &values[at(i * n)], leading_u, leading_v, k, pieces);
        for (std::int64_t j = 0; j < k; ++j) {
            std::copy_n(leading_u + j * n, n, u.at[at(i)] + j * u.ld);
            std::copy_n(leading_v + j * n, n, v.at[at(i)] + j * v.ld);
        }
    });
}

void CpuDenseBatch::solve_transposed(const Batch& lower, const Batch& x) {
    workers_.for_each(x.size(), [&](std::int64_t i, int) {
        cblas_dtrsm(CblasColMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, narrow(x.rows), narrow(x.cols), 1.0,
                    lower.at[at(i)], narrow(lower.ld), x.at[at(i)], narrow(x.ld));
    });
}

void CpuDenseBatch::combine_rows(std::span<const MatrixRef> w, const Batch& z, const Batch& out) {
    workers_.for_each(out.size(), [&](std::int64_t i, int worker) {
        const std::int64_t n = w[at(i)].rows;
        double* wt = scratch(worker, n * panel);
        for_each_panel(w[at(i)].cols, [&](Range columns) {
            widen(w[at(i)], columns, wt);
            const lapack_int width = narrow(columns.size());
            cblas_dgemm(CblasColMajor, CblasNoTrans, CblasNoTrans, width, narrow(out.cols), narrow(n), 1.0, wt, width,
                        z.at[at(i)], narrow(z.ld), 0.0, out.at[at(i)] + columns.begin, narrow(out.ld));
        });
    });
}

void CpuDenseBatch::combine_orthonormal(std::span<const MatrixRef> w, const Batch& z, const Batch& out) {
    workers_.for_each(out.size(), [&](std::int64_t i, int worker) {
        const std::int64_t hidden = w[at(i)].cols, n = w[at(i)].rows, r = std::min(n, hidden), k = out.cols;
        const std::int64_t work_size = block * std::max(n, k) + reflector_factor;
        Pieces pieces{scratch(worker, Pieces::size(n * hidden) + Pieces::size(n) + work_size)};
        double* wt = pieces.take(n * hidden);
        double* tau = pieces.take(n);
        double* work = pieces.take(work_size);
        widen(w[at(i)], {0, hidden}, wt);
        check_lapack(
            LAPACKE_dgeqrf_work(col_major, narrow(hidden), narrow(n), wt, narrow(hidden), tau, work, narrow(work_size)),
            "dgeqrf", n);
        for (std::int64_t j = 0; j < k; ++j) {
            double* column = out.at[at(i)] + j * out.ld;
            std::fill_n(std::copy_n(z.at[at(i)] + j * z.ld, r, column), hidden - r, 0.0);
        }
        check_lapack(LAPACKE_dormqr_work(col_major, 'L', 'N', narrow(hidden), narrow(k), narrow(r), wt, narrow(hidden),
                                         tau, out.at[at(i)], narrow(out.ld), work, narrow(work_size)),
                     "dormqr", n);
    });
}

void CpuDenseBatch::exchange_products(const Batch& lower, const Batch& out, std::span<double> asymmetry) {
    // L = [[A, 0], [C, E]]: B = [A, 0]^T [C, E] fills the upper n rows of 2n x 2n; the products are B + B^T, B - B^T.
    const std::int64_t order = lower.rows, n = order / 2;
    workers_.for_each(lower.size(), [&](std::int64_t i, int worker) {
        const double* l = lower.at[at(i)];
        double* b = scratch(worker, n * order);
        for (std::int64_t j = 0; j < order; ++j) std::copy_n(l + n + j * lower.ld, n, b + j * n);
        cblas_dtrmm(CblasColMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, narrow(n), narrow(order), 1.0, l,
                    narrow(lower.ld), b, narrow(n));
        double sum = 0;
        for (std::int64_t j = 0; j < n; ++j) {
            double* column = out.at[at(i)] + j * out.ld;
            for (std::int64_t row = j; row < n; ++row) {
                column[row] = b[row + j * n] + b[j + row * n];
                const double difference = b[row + j * n] - b[j + row * n];
                sum += 2 * difference * difference;
            }
            for (std::int64_t row = n; row < order; ++row) {
                column[row] = b[j + row * n];
                sum += 2 * column[row] * column[row];
            }
            std::fill_n(out.at[at(i)] + n + (n + j) * out.ld, n, 0.0);
        }
        asymmetry[at(i)] = std::sqrt(sum);
    });
}

void CpuDenseBatch::symmetric_eigenvalues(const Batch& matrices, std::span<double> values) {
    const std::int64_t n = matrices.rows;
    workers_.for_each(matrices.size(), [&](std::int64_t i, int worker) {
        symmetric_eigenvalues_of(matrices.at[at(i)], matrices.ld, n, &values[at(i * n)],
                                 {scratch(worker, 11 * n + 64)});
    });
}

namespace {

/// All threads are needed for the verb itself: it is over when it returns.
class Finished final : public PendingResult {
public:
    void finish() override {}
};

}  // namespace

std::unique_ptr<PendingResult> CpuDenseBatch::general_eigenvalues(const Batch& matrices, std::span<double> re,
                                                                  std::span<double> im) {
    const std::int64_t n = matrices.rows;
    workers_.for_each(matrices.size(), [&](std::int64_t i, int worker) {
        cpu::general_eigenvalues(matrices.at[at(i)], matrices.ld, n, &re[at(i * n)], &im[at(i * n)],
                                 scratch(worker, general_scratch(n)));
    });
    return std::make_unique<Finished>();
}

void CpuDenseBatch::read(const Batch& matrices, std::span<double> host) {
    double* to = host.data();
    for (const double* matrix : matrices.at) {
        for (std::int64_t j = 0; j < matrices.cols; ++j) to = std::copy_n(matrix + j * matrices.ld, matrices.rows, to);
    }
}

}  // namespace geom
