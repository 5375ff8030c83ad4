// The verbs of CudaDenseBatch that factor: Cholesky in one batched call; Householder QR, for the few heads whose
// Cholesky lost too much, one matrix after the other by cuSOLVER's blocked routines: 2 hidden n^2 flops each, some
// milliseconds.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/error.hpp"
#include "kernels/cuda/dense_batch.hpp"
#include "kernels/cuda/dense_batch_shapes.hpp"

namespace geom::cuda {

namespace {

/// The report on a factor from the diagonals of G and L. Where potrf stopped, L's diagonal ends in what it found.
CholeskyReport report_of(std::span<const double> gram, std::span<const double> lower, int info) {
    CholeskyReport report;
    for (const double element : gram) report.trace += element;
    report.finite = std::isfinite(report.trace);
    report.complete = report.finite && info == 0;
    for (const double pivot : lower) report.complete = report.complete && pivot > 0 && std::isfinite(pivot);
    if (!report.complete) return report;
    report.min_pivot = report.min_sine = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < lower.size(); ++i) {
        report.min_pivot = std::min(report.min_pivot, lower[i]);
        report.max_pivot = std::max(report.max_pivot, lower[i]);
        report.min_sine = std::min(report.min_sine, lower[i] / std::sqrt(gram[i]));
    }
    return report;
}

void check_infos(std::span<const int> infos, const char* routine) {
    for (const int info : infos) {
        if (info == 0) continue;
        throw Error(ExitCode::internal, std::string(routine) + " refused argument " + std::to_string(-info));
    }
}

}  // namespace

void CudaDenseBatch::do_cholesky(const Batch& gram, const Batch& lower, std::span<CholeskyReport> reports) {
    const std::int64_t n = gram.rows, count = gram.size();
    if (count == 0) return;
    device_.use();
    const auto [diagonals, info_room] = memory_.scratch(cholesky_pieces(count, n));
    int* const infos = reinterpret_cast<int*>(info_room);
    const auto [g, l] = memory_.upload(gram.at, lower.at);
    const Blocks grams{g, gram.ld}, factors{l, lower.ld};
    copy_lower(count, grams, n, factors, device_.stream());
    check_cusolver(cusolverDnDpotrfBatched(device_.cusolver(), CUBLAS_FILL_MODE_LOWER, narrow(n),
                                           const_cast<double**>(l), narrow(lower.ld), infos, narrow(count)),
                   "cusolverDnDpotrfBatched");
    finish_lower(count, grams, factors, n, diagonals, device_.stream());

    const auto landed = memory_.fetch(infos, count);
    const std::vector<int> ended(landed.begin(), landed.end());
    const auto numbers = memory_.fetch(diagonals, 2 * count * n);
    for (std::int64_t i = 0; i < count; ++i) {
        const auto own = numbers.subspan(at(2 * i * n), at(2 * n));
        reports[at(i)] = report_of(own.first(at(n)), own.last(at(n)), ended[at(i)]);
    }
}

/// Householder QR of a hidden x n matrix in place.
void CudaDenseBatch::factor(double* matrix, std::int64_t hidden, std::int64_t n, double* tau, double* work, int* info) {
    check_cusolver(cusolverDnDgeqrf(device_.cusolver(), narrow(hidden), narrow(n), matrix, narrow(hidden), tau, work,
                                    qr_workspace(hidden, n), info),
                   "cusolverDnDgeqrf");
}

void CudaDenseBatch::do_qr_lower(std::span<const MatrixRef> first, std::span<const MatrixRef> second,
                                 const Batch& lower, std::span<double> min_sine) {
    const std::int64_t n = lower.rows, count = lower.size();
    if (count == 0) return;
    device_.use();
    const std::int64_t hidden = first[0].cols, rows = first[0].rows;
    const auto [xt, tau, work, results] = memory_.scratch(qr_pieces(count, n, hidden));
    int* const infos = reinterpret_cast<int*>(results + count * n);
    const auto [upper_rows, lower_rows] = memory_.upload(stored_rows(first), stored_rows(second));
    const WidenShape whole{1, rows, hidden, {0, hidden}, 0};
    for (std::int64_t i = 0; i < count; ++i) {
        widen(upper_rows + i, whole, xt, device_.stream());
        if (!second.empty()) widen(lower_rows + i, whole, xt + rows * hidden, device_.stream());
        factor(xt, hidden, n, tau, work, infos + i);
        lower_of_qr(xt, hidden, lower.at[at(i)], lower.ld, n, results + i * n, device_.stream());
    }
    check_infos(memory_.fetch(infos, count), "cusolverDnDgeqrf");
    const auto sines = memory_.fetch(results, count * n);
    for (std::int64_t i = 0; i < count; ++i) {
        min_sine[at(i)] = 1.0;
        for (const double sine : sines.subspan(at(i * n), at(n))) min_sine[at(i)] = std::min(min_sine[at(i)], sine);
    }
}

void CudaDenseBatch::do_combine_orthonormal(std::span<const MatrixRef> w, const Batch& z, const Batch& out) {
    const std::int64_t count = out.size(), k = out.cols;
    if (count == 0 || k == 0) return;
    device_.use();
    const std::int64_t n = w[0].rows, hidden = w[0].cols, kept = std::min(n, hidden);
    const auto [wt, tau, work, info_room] = memory_.scratch(orthonormal_pieces(count, n, hidden, k));
    int* const infos = reinterpret_cast<int*>(info_room);
    const auto [rows] = memory_.upload(stored_rows(w));
    const int work_size = reflect_workspace(hidden, n, k);
    for (std::int64_t i = 0; i < count; ++i) {
        double* const result = out.at[at(i)];
        widen(rows + i, {1, n, hidden, {0, hidden}, 0}, wt, device_.stream());
        factor(wt, hidden, n, tau, work, infos + 2 * i);
        pad_rows(z.at[at(i)], z.ld, {kept, hidden, k}, result, out.ld, device_.stream());
        check_cusolver(
            cusolverDnDormqr(device_.cusolver(), CUBLAS_SIDE_LEFT, CUBLAS_OP_N, narrow(hidden), narrow(k), narrow(kept),
                             wt, narrow(hidden), tau, result, narrow(out.ld), work, work_size, infos + 2 * i + 1),
            "cusolverDnDormqr");
    }
    check_infos(memory_.fetch(infos, 2 * count), "cusolverDnDgeqrf or cusolverDnDormqr");
}

}  // namespace geom::cuda
