// How much device memory each verb of CudaDenseBatch takes: one place for the verbs and for the plan.
#include <algorithm>
#include <limits>

#include "kernels/cuda/dense_batch.hpp"
#include "kernels/cuda/dense_batch_shapes.hpp"

namespace geom::cuda {

/// Two widened panels of every matrix (only one where heads share the first).
std::array<std::int64_t, 1> CudaDenseBatch::grams_pieces(std::int64_t batch, std::int64_t n,
                                                         std::int64_t hidden) const {
    return {2 * batch * n * std::min(panel, hidden)};
}

/// The diagonals of matrix and factor; infos.
std::array<std::int64_t, 2> CudaDenseBatch::cholesky_pieces(std::int64_t batch, std::int64_t n) const {
    return {2 * batch * n, doubles_for<int>(batch)};
}

/// X^T; tau; the library's workspace; sines and infos.
std::array<std::int64_t, 4> CudaDenseBatch::qr_pieces(std::int64_t batch, std::int64_t n, std::int64_t hidden) const {
    return {n * hidden, std::min(n, hidden), qr_workspace(hidden, n), batch * n + doubles_for<int>(batch)};
}

/// W^T; tau; the library's workspace; two infos each.
std::array<std::int64_t, 4> CudaDenseBatch::orthonormal_pieces(std::int64_t batch, std::int64_t n, std::int64_t hidden,
                                                               std::int64_t k) const {
    const int work = std::max(qr_workspace(hidden, n), reflect_workspace(hidden, n, k));
    return {n * hidden, std::min(n, hidden), work, doubles_for<int>(2 * batch)};
}

/// Products; triangles; rotations; taus; pivots and the order of values; values and how it went.
std::array<std::int64_t, 6> CudaDenseBatch::svd_pieces(std::int64_t batch, std::int64_t n) const {
    const std::int64_t squares = batch * n * n, rows = batch * n;
    return {squares, squares, squares, rows, doubles_for<int>(2 * rows), rows + doubles_for<SvdStatus>(batch)};
}

/// A widened panel of every matrix.
std::array<std::int64_t, 1> CudaDenseBatch::combine_pieces(std::int64_t batch, std::int64_t n,
                                                           std::int64_t hidden) const {
    return {batch * n * std::min(panel, hidden)};
}

/// Products, n x 2n; the squares of each column.
std::array<std::int64_t, 2> CudaDenseBatch::exchange_pieces(std::int64_t batch, std::int64_t order) const {
    return {batch * order * order / 2, batch * order / 2};
}

/// Matrices without gaps; the library's workspace; values and infos.
std::array<std::int64_t, 3> CudaDenseBatch::eigen_pieces(std::int64_t batch, std::int64_t n) const {
    const auto workspace = static_cast<std::int64_t>(eigen_workspace(std::min(batch, eigen_step(n)), n).device_bytes);
    return {batch * n * n, (workspace + 7) / 8, batch * n + doubles_for<int>(batch)};
}

int CudaDenseBatch::qr_workspace(std::int64_t hidden, std::int64_t n) const {
    int doubles = 0;
    check_cusolver(
        cusolverDnDgeqrf_bufferSize(device_.cusolver(), narrow(hidden), narrow(n), nullptr, narrow(hidden), &doubles),
        "cusolverDnDgeqrf_bufferSize");
    return doubles;
}

int CudaDenseBatch::reflect_workspace(std::int64_t hidden, std::int64_t n, std::int64_t k) const {
    if (k == 0) return 0;
    int doubles = 0;
    check_cusolver(cusolverDnDormqr_bufferSize(device_.cusolver(), CUBLAS_SIDE_LEFT, CUBLAS_OP_N, narrow(hidden),
                                               narrow(k), narrow(std::min(n, hidden)), nullptr, narrow(hidden), nullptr,
                                               nullptr, narrow(hidden), &doubles),
                   "cusolverDnDormqr_bufferSize");
    return doubles;
}

CudaDenseBatch::EigenWorkspace CudaDenseBatch::eigen_workspace(std::int64_t batch, std::int64_t n) const {
    EigenWorkspace workspace;
    check_cusolver(
        cusolverDnXsyevBatched_bufferSize(device_.cusolver(), device_.cusolver_params(), CUSOLVER_EIG_MODE_NOVECTOR,
                                          CUBLAS_FILL_MODE_LOWER, n, CUDA_R_64F, nullptr, n, CUDA_R_64F, nullptr,
                                          CUDA_R_64F, &workspace.device_bytes, &workspace.host_bytes, batch),
        "cusolverDnXsyevBatched_bufferSize");
    return workspace;
}

std::int64_t CudaDenseBatch::scratch_bytes(std::int64_t heads, std::int64_t head_dim, std::int64_t hidden,
                                           std::int64_t top_k) const {
    device_.use();
    const std::int64_t n = head_dim, order = 2 * n, k = std::min(top_k, n);
    const std::int64_t most = std::max({
        BatchMemory::bytes_of(grams_pieces(heads, n, hidden)),
        BatchMemory::bytes_of(cholesky_pieces(heads, order)),
        BatchMemory::bytes_of(qr_pieces(heads, n, hidden)),
        BatchMemory::bytes_of(qr_pieces(heads, order, hidden)),
        BatchMemory::bytes_of(orthonormal_pieces(heads, n, hidden, k)),
        BatchMemory::bytes_of(svd_pieces(heads, n)),
        BatchMemory::bytes_of(combine_pieces(heads, n, hidden)),
        BatchMemory::bytes_of(exchange_pieces(heads, order)),
        BatchMemory::bytes_of(eigen_pieces(heads, order)),
        BatchMemory::bytes_of(std::array{heads * n * n}),
        BatchMemory::bytes_of(std::array{read_step(heads, hidden * k) * hidden * k}),
    });
    return most + std::max(BatchMemory::least_upload, upload_bytes(heads, hidden));
}

}  // namespace geom::cuda
