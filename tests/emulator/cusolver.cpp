// The calls of cuSOLVER that the project uses, on LAPACK. Arguments and the size of workspaces are checked when the
// call is made, the operands' memory when the work runs. What cuSOLVER destroys, or leaves undefined, is filled with
// NaN. Values agree with cuSOLVER's to rounding; the signs of vectors and the bits do not.
#include <cusolverDn.h>
#include <fmt/format.h>
#include <lapacke.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "emulator/runtime.hpp"

using geom::emulator::require_device;

struct cusolverDnContext {
    cudaStream_t stream = nullptr;
};
struct cusolverDnParams {};

namespace {

constexpr double undefined = std::numeric_limits<double>::quiet_NaN();

cusolverStatus_t put(cusolverDnHandle_t handle, const char* name, const std::function<void()>& work) {
    const bool issued = geom::emulator::enqueue(handle->stream, name, work) == cudaSuccess;
    return issued ? CUSOLVER_STATUS_SUCCESS : CUSOLVER_STATUS_EXECUTION_FAILED;
}

void require_matrix(const char* call, const char* what, const double* a, std::int64_t rows, std::int64_t cols,
                    std::int64_t ld) {
    if (rows == 0 || cols == 0) return;
    require_device(call, what, a, static_cast<std::size_t>((cols - 1) * ld + rows) * sizeof(double));
}

void require_doubles(const char* call, const char* what, const double* a, std::int64_t count) {
    require_device(call, what, a, static_cast<std::size_t>(count) * sizeof(double));
}

void require_info(const char* call, const int* info, std::int64_t count = 1) {
    require_device(call, "info", info, static_cast<std::size_t>(count) * sizeof(int));
}

/// A workspace's content is undefined afterwards.
void spoil(double* workspace, std::int64_t count) { std::fill_n(workspace, count, undefined); }

void spoil_matrix(double* a, std::int64_t rows, std::int64_t cols, std::int64_t ld) {
    for (std::int64_t col = 0; col < cols; ++col) std::fill_n(a + col * ld, rows, undefined);
}

/// The lower triangle with its diagonal, or the upper one without.
void spoil_triangle(double* a, int n, int ld, bool lower) {
    for (std::int64_t col = 0; col < n; ++col) {
        for (std::int64_t row = 0; row < n; ++row) {
            if ((row >= col) == lower) a[col * ld + row] = undefined;
        }
    }
}

bool fits(std::int64_t ld, std::int64_t rows) { return ld >= std::max<std::int64_t>(1, rows); }

// The sizes say nothing of cuSOLVER's own; they are not zero and differ between shapes.
int geqrf_size(int m, int n) { return 32 * std::max(n, 1) + std::max(m, 1); }
int ormqr_size(int m, int n, int k) { return 32 * std::max(std::max(m, n), 1) + std::max(k, 1); }

}  // namespace

extern "C" {

cusolverStatus_t cusolverGetVersion(int* version) {
    *version = CUSOLVER_VERSION;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess) return CUSOLVER_STATUS_NOT_INITIALIZED;
    *handle = new cusolverDnContext;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
    if (handle == nullptr) return CUSOLVER_STATUS_NOT_INITIALIZED;
    delete handle;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
    if (handle == nullptr) return CUSOLVER_STATUS_NOT_INITIALIZED;
    if (geom::emulator::stream_device(stream) < 0) return CUSOLVER_STATUS_INVALID_VALUE;
    handle->stream = stream;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnCreateParams(cusolverDnParams_t* params) {
    *params = new cusolverDnParams;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroyParams(cusolverDnParams_t params) {
    delete params;
    return CUSOLVER_STATUS_SUCCESS;
}

// Cholesky

/// Lower triangles.
cusolverStatus_t cusolverDnDpotrfBatched(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, double* matrices[],
                                         int lda, int* info, int count) {
    const char* const call = "cusolverDnDpotrfBatched";
    if (handle == nullptr) return CUSOLVER_STATUS_NOT_INITIALIZED;
    if (uplo != CUBLAS_FILL_MODE_LOWER) return CUSOLVER_STATUS_NOT_SUPPORTED;
    if (n < 0 || !fits(lda, n) || count < 1 || matrices == nullptr || info == nullptr) {
        return CUSOLVER_STATUS_INVALID_VALUE;
    }
    return put(handle, call, [=] {
        require_device(call, "the array of pointers", matrices, static_cast<std::size_t>(count) * sizeof(double*));
        require_info(call, info, count);
        for (int i = 0; i < count; ++i) {
            require_matrix(call, "A", matrices[i], n, n, lda);
            info[i] = LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'L', n, matrices[i], lda);
            if (info[i] > 0) spoil_triangle(matrices[i], n, lda, true);
            spoil_triangle(matrices[i], n, lda, false);  // it is used as a workspace
        }
    });
}

// QR

cusolverStatus_t cusolverDnDgeqrf_bufferSize(cusolverDnHandle_t handle, int m, int n, double*, int lda, int* size) {
    if (handle == nullptr) return CUSOLVER_STATUS_NOT_INITIALIZED;
    if (m < 0 || n < 0 || !fits(lda, m)) return CUSOLVER_STATUS_INVALID_VALUE;
    *size = geqrf_size(m, n);
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDgeqrf(cusolverDnHandle_t handle, int m, int n, double* a, int lda, double* tau,
                                  double* workspace, int size, int* info) {
    const char* const call = "cusolverDnDgeqrf";
    if (handle == nullptr) return CUSOLVER_STATUS_NOT_INITIALIZED;
    if (m < 0 || n < 0 || !fits(lda, m) || size < geqrf_size(m, n) || info == nullptr) {
        return CUSOLVER_STATUS_INVALID_VALUE;
    }
    return put(handle, call, [=] {
        require_matrix(call, "A", a, m, n, lda);
        require_doubles(call, "TAU", tau, std::min(m, n));
        require_doubles(call, "the workspace", workspace, size);
        require_info(call, info);
        *info = LAPACKE_dgeqrf(LAPACK_COL_MAJOR, m, n, a, lda, tau);
        spoil(workspace, size);
    });
}
cusolverStatus_t cusolverDnDormqr_bufferSize(cusolverDnHandle_t handle, cublasSideMode_t side, cublasOperation_t trans,
                                             int m, int n, int k, const double*, int lda, const double*, const double*,
                                             int ldc, int* size) {
    if (handle == nullptr) return CUSOLVER_STATUS_NOT_INITIALIZED;
    const int order = side == CUBLAS_SIDE_LEFT ? m : n;
    if (m < 0 || n < 0 || k < 0 || k > order || !fits(lda, order) || !fits(ldc, m))
        return CUSOLVER_STATUS_INVALID_VALUE;
    if (trans != CUBLAS_OP_N && trans != CUBLAS_OP_T) return CUSOLVER_STATUS_INVALID_VALUE;
    *size = ormqr_size(m, n, k);
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDormqr(cusolverDnHandle_t handle, cublasSideMode_t side, cublasOperation_t trans, int m,
                                  int n, int k, const double* a, int lda, const double* tau, double* c, int ldc,
                                  double* workspace, int size, int* info) {
    const char* const call = "cusolverDnDormqr";
    int needed = 0;
    const cusolverStatus_t status =
        cusolverDnDormqr_bufferSize(handle, side, trans, m, n, k, a, lda, tau, c, ldc, &needed);
    if (status != CUSOLVER_STATUS_SUCCESS) return status;
    if (size < needed || info == nullptr) return CUSOLVER_STATUS_INVALID_VALUE;
    return put(handle, call, [=] {
        require_matrix(call, "A", a, side == CUBLAS_SIDE_LEFT ? m : n, k, lda);
        require_doubles(call, "TAU", tau, k);
        require_matrix(call, "C", c, m, n, ldc);
        require_doubles(call, "the workspace", workspace, size);
        require_info(call, info);
        *info = LAPACKE_dormqr(LAPACK_COL_MAJOR, side == CUBLAS_SIDE_LEFT ? 'L' : 'R', trans == CUBLAS_OP_N ? 'N' : 'T',
                               m, n, k, a, lda, tau, c, ldc);
        spoil(workspace, size);
    });
}

// Eigenvalues alone, of lower triangles

cusolverStatus_t cusolverDnXsyevd_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t params,
                                             cusolverEigMode_t jobz, cublasFillMode_t uplo, std::int64_t n,
                                             cudaDataType a_type, const void*, std::int64_t lda, cudaDataType w_type,
                                             const void*, cudaDataType compute, std::size_t* device_bytes,
                                             std::size_t* host_bytes) {
    if (handle == nullptr) return CUSOLVER_STATUS_NOT_INITIALIZED;
    if (jobz != CUSOLVER_EIG_MODE_NOVECTOR || uplo != CUBLAS_FILL_MODE_LOWER) return CUSOLVER_STATUS_NOT_SUPPORTED;
    if (params == nullptr || n < 0 || !fits(lda, n)) return CUSOLVER_STATUS_INVALID_VALUE;
    if (a_type != CUDA_R_64F || w_type != CUDA_R_64F || compute != CUDA_R_64F) return CUSOLVER_STATUS_INVALID_VALUE;
    *device_bytes = static_cast<std::size_t>(35 * n + 1024) * 8;
    *host_bytes = static_cast<std::size_t>(24 * n + 64);
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnXsyevd(cusolverDnHandle_t handle, cusolverDnParams_t params, cusolverEigMode_t jobz,
                                  cublasFillMode_t uplo, std::int64_t n, cudaDataType a_type, void* matrix,
                                  std::int64_t lda, cudaDataType w_type, void* values, cudaDataType compute,
                                  void* device_workspace, std::size_t device_bytes, void* host_workspace,
                                  std::size_t host_bytes, int* info) {
    const char* const call = "cusolverDnXsyevd";
    std::size_t device_needed = 0, host_needed = 0;
    const cusolverStatus_t status = cusolverDnXsyevd_bufferSize(handle, params, jobz, uplo, n, a_type, matrix, lda,
                                                                w_type, values, compute, &device_needed, &host_needed);
    if (status != CUSOLVER_STATUS_SUCCESS) return status;
    if (device_bytes < device_needed || host_bytes < host_needed || info == nullptr || host_workspace == nullptr) {
        return CUSOLVER_STATUS_INVALID_VALUE;
    }
    if (geom::emulator::where(host_workspace) == geom::emulator::Where::device) return CUSOLVER_STATUS_INVALID_VALUE;
    auto* a = static_cast<double*>(matrix);
    auto* w = static_cast<double*>(values);
    auto* workspace = static_cast<double*>(device_workspace);
    return put(handle, call, [=] {
        require_matrix(call, "A", a, n, n, lda);
        require_doubles(call, "W", w, n);
        require_device(call, "the workspace", workspace, device_bytes);
        require_info(call, info);
        *info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'N', 'L', static_cast<int>(n), a, static_cast<int>(lda), w);
        spoil_matrix(a, n, n, lda);
        spoil(workspace, static_cast<std::int64_t>(device_bytes / sizeof(double)));
    });
}
cusolverStatus_t cusolverDnXsyevBatched_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t params,
                                                   cusolverEigMode_t jobz, cublasFillMode_t uplo, std::int64_t n,
                                                   cudaDataType a_type, const void*, std::int64_t lda,
                                                   cudaDataType w_type, const void*, cudaDataType compute,
                                                   std::size_t* device_bytes, std::size_t* host_bytes,
                                                   std::int64_t count) {
    if (handle == nullptr) return CUSOLVER_STATUS_NOT_INITIALIZED;
    if (jobz != CUSOLVER_EIG_MODE_NOVECTOR || uplo != CUBLAS_FILL_MODE_LOWER) return CUSOLVER_STATUS_NOT_SUPPORTED;
    if (params == nullptr || n < 0 || !fits(lda, n) || count < 1) return CUSOLVER_STATUS_INVALID_VALUE;
    if (a_type != CUDA_R_64F || w_type != CUDA_R_64F || compute != CUDA_R_64F) return CUSOLVER_STATUS_INVALID_VALUE;
    // Its indices are 32 bits wide inside.
    if (n * lda > std::numeric_limits<std::int32_t>::max() / count) return CUSOLVER_STATUS_INVALID_VALUE;
    *device_bytes = static_cast<std::size_t>((n * n + 3 * n) * std::min<std::int64_t>(count, 132) + 1024) * 8;
    *host_bytes = static_cast<std::size_t>(64 * count);
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnXsyevBatched(cusolverDnHandle_t handle, cusolverDnParams_t params, cusolverEigMode_t jobz,
                                        cublasFillMode_t uplo, std::int64_t n, cudaDataType a_type, void* matrices,
                                        std::int64_t lda, cudaDataType w_type, void* values, cudaDataType compute,
                                        void* device_workspace, std::size_t device_bytes, void* host_workspace,
                                        std::size_t host_bytes, int* info, std::int64_t count) {
    const char* const call = "cusolverDnXsyevBatched";
    std::size_t device_needed = 0, host_needed = 0;
    const cusolverStatus_t status =
        cusolverDnXsyevBatched_bufferSize(handle, params, jobz, uplo, n, a_type, matrices, lda, w_type, values, compute,
                                          &device_needed, &host_needed, count);
    if (status != CUSOLVER_STATUS_SUCCESS) return status;
    if (device_bytes < device_needed || host_bytes < host_needed || info == nullptr || host_workspace == nullptr) {
        return CUSOLVER_STATUS_INVALID_VALUE;
    }
    if (geom::emulator::where(host_workspace) == geom::emulator::Where::device) return CUSOLVER_STATUS_INVALID_VALUE;
    auto* a = static_cast<double*>(matrices);
    auto* w = static_cast<double*>(values);
    auto* workspace = static_cast<double*>(device_workspace);
    return put(handle, call, [=] {
        require_doubles(call, "A", a, n * lda * count);
        require_doubles(call, "W", w, n * count);
        require_device(call, "the workspace", workspace, device_bytes);
        require_info(call, info, count);
        for (std::int64_t i = 0; i < count; ++i) {
            double* one = a + i * n * lda;
            info[i] =
                LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'N', 'L', static_cast<int>(n), one, static_cast<int>(lda), w + i * n);
            spoil_matrix(one, n, n, lda);
        }
        spoil(workspace, static_cast<std::int64_t>(device_bytes / sizeof(double)));
    });
}

}  // extern "C"
