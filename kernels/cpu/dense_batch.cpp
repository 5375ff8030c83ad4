#include "kernels/cpu/dense_batch.hpp"

#include <cblas.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/one_matrix.hpp"
#include "kernels/cpu/stored_rows.hpp"

namespace geom::cpu {

namespace {

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

}  // namespace

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

void CpuDenseBatch::do_stacked_grams(std::span<const MatrixRef> first, std::span<const MatrixRef> second,
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

void CpuDenseBatch::do_cholesky(const Batch& gram, const Batch& lower, std::span<CholeskyReport> reports) {
    workers_.for_each(gram.size(), [&](std::int64_t i, int) {
        reports[at(i)] = cholesky_of(gram.at[at(i)], gram.ld, gram.rows, lower.at[at(i)], lower.ld);
    });
}

void CpuDenseBatch::do_qr_lower(std::span<const MatrixRef> first, std::span<const MatrixRef> second, const Batch& lower,
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

void CpuDenseBatch::do_product_singular_values(const Batch& left, const Batch& right, std::span<double> values,
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

void CpuDenseBatch::do_solve_transposed(const Batch& lower, const Batch& x) {
    workers_.for_each(x.size(), [&](std::int64_t i, int) {
        cblas_dtrsm(CblasColMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, narrow(x.rows), narrow(x.cols), 1.0,
                    lower.at[at(i)], narrow(lower.ld), x.at[at(i)], narrow(x.ld));
    });
}

void CpuDenseBatch::do_combine_rows(std::span<const MatrixRef> w, const Batch& z, const Batch& out) {
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

void CpuDenseBatch::do_combine_orthonormal(std::span<const MatrixRef> w, const Batch& z, const Batch& out) {
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

void CpuDenseBatch::do_exchange_products(const Batch& lower, const Batch& out, std::span<double> asymmetry) {
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

void CpuDenseBatch::do_symmetric_eigenvalues(const Batch& matrices, std::span<double> values) {
    const std::int64_t n = matrices.rows;
    workers_.for_each(matrices.size(), [&](std::int64_t i, int worker) {
        symmetric_eigenvalues_of(matrices.at[at(i)], matrices.ld, n, &values[at(i * n)],
                                 {scratch(worker, symmetric_scratch(n))});
    });
}

namespace {

/// All threads are needed for the verb itself: it is over when it returns.
class Finished final : public PendingResult {
public:
    void finish() override {}
};

}  // namespace

std::unique_ptr<PendingResult> CpuDenseBatch::do_general_eigenvalues(const Batch& matrices, std::span<double> re,
                                                                     std::span<double> im) {
    const std::int64_t n = matrices.rows;
    workers_.for_each(matrices.size(), [&](std::int64_t i, int worker) {
        general_eigenvalues_of(matrices.at[at(i)], matrices.ld, n, &re[at(i * n)], &im[at(i * n)],
                               {scratch(worker, general_scratch(n))});
    });
    return std::make_unique<Finished>();
}

void CpuDenseBatch::do_read(const Batch& matrices, std::span<double> host) {
    double* to = host.data();
    for (const double* matrix : matrices.at) {
        for (std::int64_t j = 0; j < matrices.cols; ++j) to = std::copy_n(matrix + j * matrices.ld, matrices.rows, to);
    }
}

}  // namespace geom::cpu
