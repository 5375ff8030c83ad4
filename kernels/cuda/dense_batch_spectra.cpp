// Singular values (jacobi.cu) and eigenvalues of symmetric matrices (cuSOLVER) of CudaDenseBatch.
//
// B = Lk^T Lq by a batched product, 2 n^3 flops; then one-sided Jacobi, see there. Eigenvalues: tridiagonalisation and
// QL, 4/3 order^3 flops and normwise backward stable: |lambda - exact| <= c order eps ||A||.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "kernels/cuda/dense_batch.hpp"
#include "kernels/cuda/dense_batch_shapes.hpp"

namespace geom::cuda {

namespace {

[[noreturn]] void no_convergence(const char* routine, std::int64_t n, int info) {
    throw Error(ExitCode::numerics,
                fmt::format("{} did not converge on a matrix of order {} (info {}): are there NaN or huge weights?",
                            routine, n, info));
}

}  // namespace

void CudaDenseBatch::do_product_singular_values(const Batch& left, const Batch& right, std::span<double> values,
                                                const Batch& u, const Batch& v) {
    const std::int64_t n = left.rows, count = left.size();
    if (count == 0 || n == 0) return;
    device_.use();
    const auto [products, triangles, rotations, taus, indices, results] = memory_.scratch(svd_pieces(count, n));
    const auto [l, r, b, to_u, to_v] = memory_.upload(left.at, right.at, pointers(products, count, n * n), u.at, v.at);
    const double one = 1, zero = 0;
    check_cublas(cublasDgemmBatched(device_.cublas(), CUBLAS_OP_T, CUBLAS_OP_N, narrow(n), narrow(n), narrow(n), &one,
                                    l, narrow(left.ld), r, narrow(right.ld), &zero, b, narrow(n), narrow(count)),
                 "cublasDgemmBatched");
    const auto status = reinterpret_cast<SvdStatus*>(results + count * n);
    jacobi_svd({.count = count,
                .n = n,
                .vectors = u.cols,
                .matrices = products,
                .triangles = triangles,
                .rotations = rotations,
                .taus = taus,
                .pivots = reinterpret_cast<int*>(indices),
                .order = reinterpret_cast<int*>(indices) + count * n,
                .values = results,
                .status = status,
                .u = to_u,
                .ld_u = u.ld,
                .v = to_v,
                .ld_v = v.ld},
               device_);
    for (const SvdStatus& how : memory_.fetch(status, count)) {
        if (how.converged == 0) no_convergence("one-sided Jacobi", n, jacobi_most_sweeps);
    }
    const auto found = memory_.fetch(results, count * n);
    std::copy(found.begin(), found.end(), values.begin());
}

void CudaDenseBatch::do_symmetric_eigenvalues(const Batch& matrices, std::span<double> values) {
    const std::int64_t n = matrices.rows, count = matrices.size();
    if (count == 0 || n == 0) return;
    device_.use();
    const auto [packed, work, results] = memory_.scratch(eigen_pieces(count, n));
    int* const infos = reinterpret_cast<int*>(results + count * n);
    const auto [from, to] = memory_.upload(matrices.at, pointers(packed, count, n * n));
    copy_blocks(count, {from, matrices.ld}, n, n, {to, n}, device_.stream());
    for (std::int64_t begin = 0; begin < count; begin += eigen_step(n)) {
        eigenvalues_of(packed + begin * n * n, std::min(eigen_step(n), count - begin), n, results + begin * n, work,
                       infos + begin);
    }
    for (const int info : memory_.fetch(infos, count)) {
        if (info != 0) no_convergence("cusolverDnXsyevBatched", n, info);
    }
    const auto found = memory_.fetch(results, count * n);
    if (!std::all_of(found.begin(), found.end(), [](double x) { return std::isfinite(x); })) {
        no_convergence("cusolverDnXsyevBatched", n, 0);
    }
    std::copy(found.begin(), found.end(), values.begin());
}

/// As many matrices as one call takes, without gaps.
void CudaDenseBatch::eigenvalues_of(double* matrices, std::int64_t batch, std::int64_t n, double* values, double* work,
                                    int* infos) {
    const EigenWorkspace workspace = eigen_workspace(batch, n);
    if (workspace.host_bytes > solver_host_.size()) {
        memory_.wait();
        solver_host_.resize(workspace.host_bytes);
    }
    // Older cuSOLVERs count on a workspace of zeros (11.7.1 does, 11.7.3 of CUDA 12.8.1 does not;
    // pytorch/pytorch#192483); ours holds what the verb before left.
    check_cuda(cudaMemsetAsync(work, 0, workspace.device_bytes, device_.stream()), "cudaMemsetAsync");
    check_cusolver(
        cusolverDnXsyevBatched(device_.cusolver(), device_.cusolver_params(), CUSOLVER_EIG_MODE_NOVECTOR,
                               CUBLAS_FILL_MODE_LOWER, n, CUDA_R_64F, matrices, n, CUDA_R_64F, values, CUDA_R_64F, work,
                               workspace.device_bytes, solver_host_.data(), workspace.host_bytes, infos, batch),
        "cusolverDnXsyevBatched");
}

}  // namespace geom::cuda
