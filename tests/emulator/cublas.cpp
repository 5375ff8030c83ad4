// The calls of cuBLAS that the project uses, on OpenBLAS. Arguments are checked as its documentation says, when the
// call is made; the operands' memory (spaces, bounds), and pointer arrays in device memory, when the work runs. The
// sums are OpenBLAS's: neither the bits nor the order of cuBLAS. bf16 is widened to f32, which is exact.
#include <cblas.h>
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "emulator/runtime.hpp"

using geom::emulator::require_device;

struct cublasContext {
    cudaStream_t stream = nullptr;
};

namespace {

/// A column-major matrix of a call, or a batch of them.
struct Operand {
    const char* name;
    const void* data;
    cudaDataType type;
    std::int64_t rows, cols, ld;
    std::int64_t stride = 0;  // elements from one matrix of a batch to the next
    std::int64_t count = 1;

    std::int64_t extent() const {  // elements
        if (rows == 0 || cols == 0 || count == 0) return 0;
        return (count - 1) * stride + (cols - 1) * ld + rows;
    }
};

std::size_t size_of(cudaDataType type) {
    switch (type) {
        case CUDA_R_16BF:
            return 2;
        case CUDA_R_32F:
            return 4;
        case CUDA_R_64F:
            return 8;
        default:
            return 0;
    }
}

void require(const char* call, const Operand& operand) {
    require_device(call, operand.name, operand.data,
                   static_cast<std::size_t>(operand.extent()) * size_of(operand.type));
}

/// Pointers of a batch, which lie in device memory as well.
template <class T>
std::vector<T*> pointers_of(const char* call, T* const* array, int count) {
    require_device(call, "the array of pointers", array, static_cast<std::size_t>(count) * sizeof(T*));
    return {array, array + count};
}

cublasStatus_t put(cublasHandle_t handle, const char* name, const std::function<void()>& work) {
    const bool issued = geom::emulator::enqueue(handle->stream, name, work) == cudaSuccess;
    return issued ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

bool known(cublasOperation_t op) { return op == CUBLAS_OP_N || op == CUBLAS_OP_T; }
CBLAS_TRANSPOSE of(cublasOperation_t op) { return op == CUBLAS_OP_N ? CblasNoTrans : CblasTrans; }

// --- products --------------------------------------------------------------------------------------------------------

struct Gemm {
    const char* call;
    cublasOperation_t transa, transb;
    int m, n, k;
    double alpha, beta;
    Operand a, b, c;
};

bool shapes_hold(const Gemm& g) {
    if (!known(g.transa) || !known(g.transb) || g.m < 0 || g.n < 0 || g.k < 0 || g.c.count < 0) return false;
    const auto fits = [](const Operand& x) { return x.ld >= std::max<std::int64_t>(1, x.rows); };
    return fits(g.a) && fits(g.b) && fits(g.c);
}

bool empty(const Gemm& g) { return g.m == 0 || g.n == 0 || g.c.count == 0; }

/// Matrix i of a batch as f32, and its leading dimension.
const float* as_f32(const Operand& x, int i, std::vector<float>& storage, int& ld) {
    ld = static_cast<int>(x.ld);
    if (x.type == CUDA_R_32F) return static_cast<const float*>(x.data) + i * x.stride;
    const auto* from = static_cast<const __nv_bfloat16*>(x.data) + i * x.stride;
    storage.resize(static_cast<std::size_t>(x.rows * x.cols));
    for (std::int64_t col = 0; col < x.cols; ++col) {
        for (std::int64_t row = 0; row < x.rows; ++row) {
            storage[static_cast<std::size_t>(col * x.rows + row)] = __bfloat162float(from[col * x.ld + row]);
        }
    }
    ld = std::max(1, static_cast<int>(x.rows));
    return storage.data();
}

void run_f64(const Gemm& g, int i) {
    const auto* a = static_cast<const double*>(g.a.data) + i * g.a.stride;
    const auto* b = static_cast<const double*>(g.b.data) + i * g.b.stride;
    auto* c = static_cast<double*>(const_cast<void*>(g.c.data)) + i * g.c.stride;
    cblas_dgemm(CblasColMajor, of(g.transa), of(g.transb), g.m, g.n, g.k, g.alpha, a, static_cast<int>(g.a.ld), b,
                static_cast<int>(g.b.ld), g.beta, c, static_cast<int>(g.c.ld));
}

void run_f32(const Gemm& g, int i) {
    std::vector<float> a_storage, b_storage;
    int lda = 0, ldb = 0;
    const float* a = as_f32(g.a, i, a_storage, lda);
    const float* b = as_f32(g.b, i, b_storage, ldb);
    auto* c = static_cast<float*>(const_cast<void*>(g.c.data)) + i * g.c.stride;
    cblas_sgemm(CblasColMajor, of(g.transa), of(g.transb), g.m, g.n, g.k, static_cast<float>(g.alpha), a, lda, b, ldb,
                static_cast<float>(g.beta), c, static_cast<int>(g.c.ld));
}

void run(const Gemm& g) {
    if (empty(g)) return;
    if (g.k > 0) {
        require(g.call, g.a);
        require(g.call, g.b);
    }
    require(g.call, g.c);
    for (int i = 0; i < static_cast<int>(g.c.count); ++i) {
        g.c.type == CUDA_R_64F ? run_f64(g, i) : run_f32(g, i);
    }
}

cublasStatus_t multiply(cublasHandle_t handle, const Gemm& g) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!shapes_hold(g)) return CUBLAS_STATUS_INVALID_VALUE;
    if (empty(g)) return CUBLAS_STATUS_SUCCESS;
    if (g.c.data == nullptr || (g.k > 0 && (g.a.data == nullptr || g.b.data == nullptr))) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (g.c.count > 1 && g.c.stride < (g.c.cols - 1) * g.c.ld + g.c.rows) {
        geom::emulator::die(fmt::format("{}: matrices of the result overlap", g.call));
    }
    return put(handle, g.call, [g] { run(g); });
}

Operand operand(const char* name, const void* data, cudaDataType type, cublasOperation_t op, int rows, int cols,
                int ld) {
    if (op != CUBLAS_OP_N) std::swap(rows, cols);
    return {name, data, type, rows, cols, ld};
}

/// The combinations of types of cublasGemmEx's table that are emulated.
bool types_hold(cudaDataType a, cudaDataType b, cudaDataType c, cublasComputeType_t compute) {
    if (a != b) return false;
    if (compute == CUBLAS_COMPUTE_64F) return a == CUDA_R_64F && c == CUDA_R_64F;
    return (compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC) &&
           (a == CUDA_R_16BF || a == CUDA_R_32F) && c == CUDA_R_32F;
}

/// The scalar's type is that of the computation.
double scalar(const void* value, cublasComputeType_t compute) {
    return compute == CUBLAS_COMPUTE_64F ? *static_cast<const double*>(value) : *static_cast<const float*>(value);
}

}  // namespace

extern "C" {

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = new cublasContext;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    auto guard = geom::emulator::lock();
    geom::emulator::finish_device(geom::emulator::current_device(), guard);  // as cuBLAS does
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (geom::emulator::stream_device(stream) < 0) return CUBLAS_STATUS_INVALID_VALUE;
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, std::size_t bytes) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (reinterpret_cast<std::uintptr_t>(workspace) % 256 != 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    require_device("cublasSetWorkspace", "the workspace", workspace, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
    static_cast<void>(mode);
    return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetVersion(cublasHandle_t handle, int* version) {
    static_cast<void>(handle);
    *version = CUBLAS_VERSION;
    return CUBLAS_STATUS_SUCCESS;
}
const char* cublasGetStatusString(cublasStatus_t status) {
    switch (status) {
        case CUBLAS_STATUS_SUCCESS:
            return "the cuBLAS operation completed successfully";
        case CUBLAS_STATUS_NOT_INITIALIZED:
            return "the library was not initialized";
        case CUBLAS_STATUS_INVALID_VALUE:
            return "an unsupported value or parameter was passed to the function";
        case CUBLAS_STATUS_NOT_SUPPORTED:
            return "the requested functionality is not supported";
        case CUBLAS_STATUS_EXECUTION_FAILED:
            return "the operation failed to launch on the GPU";
        default:
            return "a cuBLAS error";
    }
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb,
                                          int m, int n, int k, const void* alpha, const void* a, cudaDataType a_type,
                                          int lda, long long stride_a, const void* b, cudaDataType b_type, int ldb,
                                          long long stride_b, const void* beta, void* c, cudaDataType c_type, int ldc,
                                          long long stride_c, int count, cublasComputeType_t compute,
                                          cublasGemmAlgo_t) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (!types_hold(a_type, b_type, c_type, compute)) return CUBLAS_STATUS_NOT_SUPPORTED;
    Gemm g{"cublasGemmStridedBatchedEx",
           transa,
           transb,
           m,
           n,
           k,
           scalar(alpha, compute),
           scalar(beta, compute),
           operand("A", a, a_type, transa, m, k, lda),
           operand("B", b, b_type, transb, k, n, ldb),
           operand("C", c, c_type, CUBLAS_OP_N, m, n, ldc)};
    g.a.stride = stride_a;
    g.b.stride = stride_b;
    g.c.stride = stride_c;
    g.a.count = g.b.count = g.c.count = count;
    return multiply(handle, g);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                            int k, const void* alpha, const void* a, cudaDataType a_type, int lda, const void* b,
                            cudaDataType b_type, int ldb, const void* beta, void* c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
    return cublasGemmStridedBatchedEx(handle, transa, transb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0,
                                      beta, c, c_type, ldc, 0, 1, compute, algorithm);
}

cublasStatus_t cublasDgemmBatched(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m,
                                  int n, int k, const double* alpha, const double* const a[], int lda,
                                  const double* const b[], int ldb, const double* beta, double* const c[], int ldc,
                                  int count) {
    const char* const call = "cublasDgemmBatched";
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    const Gemm g{call,
                 transa,
                 transb,
                 m,
                 n,
                 k,
                 *alpha,
                 *beta,
                 operand("A", nullptr, CUDA_R_64F, transa, m, k, lda),
                 operand("B", nullptr, CUDA_R_64F, transb, k, n, ldb),
                 operand("C", nullptr, CUDA_R_64F, CUBLAS_OP_N, m, n, ldc)};
    if (!shapes_hold(g) || count < 0) return CUBLAS_STATUS_INVALID_VALUE;
    if (empty(g) || count == 0) return CUBLAS_STATUS_SUCCESS;
    if (a == nullptr || b == nullptr || c == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    return put(handle, call, [=] {
        const auto all_a = pointers_of(call, a, count);
        const auto all_b = pointers_of(call, b, count);
        const auto all_c = pointers_of(call, c, count);
        for (std::size_t i = 0; i < all_c.size(); ++i) {
            Gemm one = g;
            one.a.data = all_a[i];
            one.b.data = all_b[i];
            one.c.data = all_c[i];
            run(one);
        }
    });
}

/// The lower triangle of C = alpha A A^T + beta C, or of A^T A; with beta = 0 what was there is not read.
cublasStatus_t cublasDsyrk(cublasHandle_t handle, cublasFillMode_t uplo, cublasOperation_t trans, int n, int k,
                           const double* alpha, const double* a, int lda, const double* beta, double* c, int ldc) {
    const char* const call = "cublasDsyrk";
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (uplo != CUBLAS_FILL_MODE_LOWER) return CUBLAS_STATUS_NOT_SUPPORTED;
    const int rows = trans == CUBLAS_OP_N ? n : k, cols = trans == CUBLAS_OP_N ? k : n;
    if (!known(trans) || n < 0 || k < 0 || lda < std::max(1, rows) || ldc < std::max(1, n)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (alpha == nullptr || beta == nullptr || a == nullptr || c == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (n == 0) return CUBLAS_STATUS_SUCCESS;
    return put(handle, call, [=, alpha = *alpha, beta = *beta] {
        require(call, {"A", a, CUDA_R_64F, rows, cols, lda});
        require(call, {"C", c, CUDA_R_64F, n, n, ldc});
        cblas_dsyrk(CblasColMajor, CblasLower, of(trans), n, k, alpha, a, lda, beta, c, ldc);
    });
}

/// L X = B or L^T X = B, L a lower triangle.
cublasStatus_t cublasDtrsmBatched(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t uplo,
                                  cublasOperation_t trans, cublasDiagType_t diag, int m, int n, const double* alpha,
                                  const double* const a[], int lda, double* const b[], int ldb, int count) {
    const char* const call = "cublasDtrsmBatched";
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (side != CUBLAS_SIDE_LEFT || uplo != CUBLAS_FILL_MODE_LOWER || diag != CUBLAS_DIAG_NON_UNIT) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (!known(trans) || m < 0 || n < 0 || count < 0 || lda < std::max(1, m) || ldb < std::max(1, m)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (alpha == nullptr || a == nullptr || b == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (m == 0 || n == 0 || count == 0) return CUBLAS_STATUS_SUCCESS;
    return put(handle, call, [=, alpha = *alpha] {
        const auto all_a = pointers_of(call, a, count);
        const auto all_b = pointers_of(call, b, count);
        for (std::size_t i = 0; i < all_b.size(); ++i) {
            require(call, {"A", all_a[i], CUDA_R_64F, m, m, lda});
            require(call, {"B", all_b[i], CUDA_R_64F, m, n, ldb});
            cblas_dtrsm(CblasColMajor, CblasLeft, CblasLower, of(trans), CblasNonUnit, m, n, alpha, all_a[i], lda,
                        all_b[i], ldb);
        }
    });
}

}  // extern "C"
