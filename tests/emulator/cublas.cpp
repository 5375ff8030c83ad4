// The calls of cuBLAS that the project uses, on OpenBLAS. Arguments are checked as its documentation says, when the
// call is made; the operands' memory (spaces, bounds), and pointer arrays in device memory, when the work runs. The
// sums are OpenBLAS's: neither the bits nor the order of cuBLAS. bf16 and f16 are widened to f32, which is exact.
#include <cblas.h>
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "emulator/runtime.hpp"

using geom::emulator::require_device;

struct cublasContext {
    cudaStream_t stream = nullptr;
    int device = 0;
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
        case CUDA_R_16F:
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

bool known(cublasOperation_t op) { return op == CUBLAS_OP_N || op == CUBLAS_OP_T || op == CUBLAS_OP_C; }
CBLAS_TRANSPOSE of(cublasOperation_t op) { return op == CUBLAS_OP_N ? CblasNoTrans : CblasTrans; }
CBLAS_SIDE of(cublasSideMode_t side) { return side == CUBLAS_SIDE_LEFT ? CblasLeft : CblasRight; }
CBLAS_UPLO of(cublasFillMode_t fill) { return fill == CUBLAS_FILL_MODE_LOWER ? CblasLower : CblasUpper; }
CBLAS_DIAG of(cublasDiagType_t diag) { return diag == CUBLAS_DIAG_UNIT ? CblasUnit : CblasNonUnit; }

// --- products
// ----------------------------------------------------------------------------------------------------------

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

template <class Stored, float (*Widen)(Stored)>
void widen(const Operand& x, std::int64_t offset, std::vector<float>& to) {
    const auto* from = static_cast<const Stored*>(x.data) + offset;
    to.resize(static_cast<std::size_t>(x.rows * x.cols));
    for (std::int64_t col = 0; col < x.cols; ++col) {
        for (std::int64_t row = 0; row < x.rows; ++row) {
            to[static_cast<std::size_t>(col * x.rows + row)] = Widen(from[col * x.ld + row]);
        }
    }
}
float widen_bf16(__nv_bfloat16 x) { return __bfloat162float(x); }
float widen_f16(__half x) { return __half2float(x); }

/// Matrix i of a batch as f32, and its leading dimension.
const float* as_f32(const Operand& x, int i, std::vector<float>& storage, int& ld) {
    ld = static_cast<int>(x.ld);
    if (x.type == CUDA_R_32F) return static_cast<const float*>(x.data) + i * x.stride;
    if (x.type == CUDA_R_16BF) {
        widen<__nv_bfloat16, widen_bf16>(x, i * x.stride, storage);
    } else {
        widen<__half, widen_f16>(x, i * x.stride, storage);
    }
    ld = std::max(1, static_cast<int>(x.rows));
    return storage.data();
}

void narrow(const std::vector<float>& from, const Operand& c, std::int64_t offset) {
    for (std::int64_t col = 0; col < c.cols; ++col) {
        for (std::int64_t row = 0; row < c.rows; ++row) {
            const float value = from[static_cast<std::size_t>(col * c.rows + row)];
            void* data = const_cast<void*>(c.data);
            const std::int64_t at = offset + col * c.ld + row;
            if (c.type == CUDA_R_16BF) {
                static_cast<__nv_bfloat16*>(data)[at] = __float2bfloat16(value);
            } else {
                static_cast<__half*>(data)[at] = __float2half(value);
            }
        }
    }
}

void run_f64(const Gemm& g, const double* a, const double* b, double* c) {
    cblas_dgemm(CblasColMajor, of(g.transa), of(g.transb), g.m, g.n, g.k, g.alpha, a, static_cast<int>(g.a.ld), b,
                static_cast<int>(g.b.ld), g.beta, c, static_cast<int>(g.c.ld));
}

void run_f32(const Gemm& g, int i) {
    std::vector<float> a_storage, b_storage, c_storage;
    int lda = 0, ldb = 0, ldc = 0;
    const float* a = as_f32(g.a, i, a_storage, lda);
    const float* b = as_f32(g.b, i, b_storage, ldb);
    float* c = nullptr;
    if (g.beta == 0 && g.c.type != CUDA_R_32F) {
        c_storage.resize(static_cast<std::size_t>(g.c.rows * g.c.cols));
        ldc = std::max(1, g.m);
        c = c_storage.data();
    } else {
        c = const_cast<float*>(as_f32(g.c, i, c_storage, ldc));
    }
    cblas_sgemm(CblasColMajor, of(g.transa), of(g.transb), g.m, g.n, g.k, static_cast<float>(g.alpha), a, lda, b, ldb,
                static_cast<float>(g.beta), c, ldc);
    if (g.c.type != CUDA_R_32F) narrow(c_storage, g.c, i * g.c.stride);
}

void run(const Gemm& g) {
    if (empty(g)) return;
    if (g.k > 0) {
        require(g.call, g.a);
        require(g.call, g.b);
    }
    require(g.call, g.c);
    for (int i = 0; i < static_cast<int>(g.c.count); ++i) {
        if (g.c.type == CUDA_R_64F) {
            run_f64(g, static_cast<const double*>(g.a.data) + i * g.a.stride,
                    static_cast<const double*>(g.b.data) + i * g.b.stride,
                    static_cast<double*>(const_cast<void*>(g.c.data)) + i * g.c.stride);
        } else {
            run_f32(g, i);
        }
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
        const bool interleaved = g.c.stride >= g.c.rows && g.c.stride * g.c.count <= g.c.ld;
        if (!interleaved) geom::emulator::die(fmt::format("{}: matrices of the result overlap", g.call));
    }
    return put(handle, g.call, [g] { run(g); });
}

Operand operand(const char* name, const void* data, cudaDataType type, cublasOperation_t op, int rows, int cols,
                int ld) {
    if (op != CUBLAS_OP_N) std::swap(rows, cols);
    return {name, data, type, rows, cols, ld};
}

Gemm gemm_f64(const char* call, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
              const double* alpha, const double* a, int lda, const double* b, int ldb, const double* beta, double* c,
              int ldc) {
    return {call,
            transa,
            transb,
            m,
            n,
            k,
            alpha == nullptr ? 0 : *alpha,
            beta == nullptr ? 0 : *beta,
            operand("A", a, CUDA_R_64F, transa, m, k, lda),
            operand("B", b, CUDA_R_64F, transb, k, n, ldb),
            operand("C", c, CUDA_R_64F, CUBLAS_OP_N, m, n, ldc)};
}

/// The combinations of types of cublasGemmEx's table that are emulated.
cublasStatus_t types_hold(cudaDataType a, cudaDataType b, cudaDataType c, cublasComputeType_t compute) {
    if (a != b || size_of(a) == 0 || size_of(c) == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    switch (compute) {
        case CUBLAS_COMPUTE_64F:
        case CUBLAS_COMPUTE_64F_PEDANTIC:
            return a == CUDA_R_64F && c == CUDA_R_64F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
        case CUBLAS_COMPUTE_32F:
        case CUBLAS_COMPUTE_32F_PEDANTIC:
            return a != CUDA_R_64F && (c == a || c == CUDA_R_32F) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
        default:
            return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

/// The scalar's type is that of the computation.
double scalar(const void* value, cublasComputeType_t compute) {
    const bool f64 = compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_64F_PEDANTIC;
    return f64 ? *static_cast<const double*>(value) : *static_cast<const float*>(value);
}

// --- triangles
// ---------------------------------------------------------------------------------------------------------

struct Triangle {
    cublasSideMode_t side;
    cublasFillMode_t uplo;
    cublasOperation_t trans;
    cublasDiagType_t diag;
    int m, n, lda, ldb;

    int order() const { return side == CUBLAS_SIDE_LEFT ? m : n; }
    bool holds() const {
        return (side == CUBLAS_SIDE_LEFT || side == CUBLAS_SIDE_RIGHT) &&
               (uplo == CUBLAS_FILL_MODE_LOWER || uplo == CUBLAS_FILL_MODE_UPPER) && known(trans) &&
               (diag == CUBLAS_DIAG_UNIT || diag == CUBLAS_DIAG_NON_UNIT) && m >= 0 && n >= 0 &&
               lda >= std::max(1, order()) && ldb >= std::max(1, m);
    }
};

void solve(const char* call, const Triangle& t, double alpha, const double* a, double* b) {
    require(call, {"A", a, CUDA_R_64F, t.order(), t.order(), t.lda});
    require(call, {"B", b, CUDA_R_64F, t.m, t.n, t.ldb});
    cblas_dtrsm(CblasColMajor, of(t.side), of(t.uplo), of(t.trans), of(t.diag), t.m, t.n, alpha, a, t.lda, b, t.ldb);
}

}  // namespace

extern "C" {

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = new cublasContext{nullptr, geom::emulator::current_device()};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    cudaDeviceSynchronize();  // as cuBLAS does
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!geom::emulator::stream_exists(stream)) return CUBLAS_STATUS_INVALID_VALUE;
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t* stream) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    *stream = handle->stream;
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
cublasStatus_t cublasGetProperty(libraryPropertyType type, int* value) {
    *value = type == MAJOR_VERSION ? CUBLAS_VER_MAJOR : type == MINOR_VERSION ? CUBLAS_VER_MINOR : CUBLAS_VER_PATCH;
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
    const cublasStatus_t types = types_hold(a_type, b_type, c_type, compute);
    if (types != CUBLAS_STATUS_SUCCESS) return types;
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

cublasStatus_t cublasDgemm(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                           int k, const double* alpha, const double* a, int lda, const double* b, int ldb,
                           const double* beta, double* c, int ldc) {
    if (alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    return multiply(handle, gemm_f64("cublasDgemm", transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc));
}

cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb,
                                         int m, int n, int k, const double* alpha, const double* a, int lda,
                                         long long stride_a, const double* b, int ldb, long long stride_b,
                                         const double* beta, double* c, int ldc, long long stride_c, int count) {
    if (alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    Gemm g = gemm_f64("cublasDgemmStridedBatched", transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    g.a.stride = stride_a;
    g.b.stride = stride_b;
    g.c.stride = stride_c;
    g.a.count = g.b.count = g.c.count = count;
    return multiply(handle, g);
}

cublasStatus_t cublasDgemmBatched(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m,
                                  int n, int k, const double* alpha, const double* const a[], int lda,
                                  const double* const b[], int ldb, const double* beta, double* const c[], int ldc,
                                  int count) {
    const char* const call = "cublasDgemmBatched";
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    Gemm g = gemm_f64(call, transa, transb, m, n, k, alpha, nullptr, lda, nullptr, ldb, beta, nullptr, ldc);
    g.c.count = count;
    if (!shapes_hold(g)) return CUBLAS_STATUS_INVALID_VALUE;
    if (empty(g)) return CUBLAS_STATUS_SUCCESS;
    if (a == nullptr || b == nullptr || c == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    g.c.count = 1;
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

cublasStatus_t cublasDtrsm(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t uplo, cublasOperation_t trans,
                           cublasDiagType_t diag, int m, int n, const double* alpha, const double* a, int lda,
                           double* b, int ldb) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    const Triangle t{side, uplo, trans, diag, m, n, lda, ldb};
    if (alpha == nullptr || !t.holds()) return CUBLAS_STATUS_INVALID_VALUE;
    if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
    return put(handle, "cublasDtrsm", [t, a, b, alpha = *alpha] { solve("cublasDtrsm", t, alpha, a, b); });
}

cublasStatus_t cublasDtrsmBatched(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t uplo,
                                  cublasOperation_t trans, cublasDiagType_t diag, int m, int n, const double* alpha,
                                  const double* const a[], int lda, double* const b[], int ldb, int count) {
    const char* const call = "cublasDtrsmBatched";
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    const Triangle t{side, uplo, trans, diag, m, n, lda, ldb};
    if (alpha == nullptr || !t.holds() || count < 0) return CUBLAS_STATUS_INVALID_VALUE;
    if (m == 0 || n == 0 || count == 0) return CUBLAS_STATUS_SUCCESS;
    if (a == nullptr || b == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    return put(handle, call, [=, alpha = *alpha] {
        const auto all_a = pointers_of(call, a, count);
        const auto all_b = pointers_of(call, b, count);
        for (std::size_t i = 0; i < all_b.size(); ++i) solve(call, t, alpha, all_a[i], all_b[i]);
    });
}

cublasStatus_t cublasDtrmm(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t uplo, cublasOperation_t trans,
                           cublasDiagType_t diag, int m, int n, const double* alpha, const double* a, int lda,
                           const double* b, int ldb, double* c, int ldc) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    const Triangle t{side, uplo, trans, diag, m, n, lda, ldb};
    if (alpha == nullptr || !t.holds() || ldc < std::max(1, m)) return CUBLAS_STATUS_INVALID_VALUE;
    if (b == c && ldb != ldc) return CUBLAS_STATUS_INVALID_VALUE;
    if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
    return put(handle, "cublasDtrmm", [=, alpha = *alpha] {
        require("cublasDtrmm", {"A", a, CUDA_R_64F, t.order(), t.order(), lda});
        require("cublasDtrmm", {"B", b, CUDA_R_64F, m, n, ldb});
        require("cublasDtrmm", {"C", c, CUDA_R_64F, m, n, ldc});
        for (std::int64_t col = 0; b != c && col < n; ++col) std::copy_n(b + col * ldb, m, c + col * ldc);
        cblas_dtrmm(CblasColMajor, of(side), of(uplo), of(trans), of(diag), m, n, alpha, a, lda, c, ldc);
    });
}

cublasStatus_t cublasDsyrk(cublasHandle_t handle, cublasFillMode_t uplo, cublasOperation_t trans, int n, int k,
                           const double* alpha, const double* a, int lda, const double* beta, double* c, int ldc) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    const Operand of_a = operand("A", a, CUDA_R_64F, trans, n, k, lda);
    const bool fill = uplo == CUBLAS_FILL_MODE_LOWER || uplo == CUBLAS_FILL_MODE_UPPER;
    if (alpha == nullptr || beta == nullptr || !fill || !known(trans) || n < 0 || k < 0 ||
        lda < std::max<std::int64_t>(1, of_a.rows) || ldc < std::max(1, n)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (n == 0) return CUBLAS_STATUS_SUCCESS;
    return put(handle, "cublasDsyrk", [=, alpha = *alpha, beta = *beta] {
        require("cublasDsyrk", of_a);
        require("cublasDsyrk", {"C", c, CUDA_R_64F, n, n, ldc});
        cblas_dsyrk(CblasColMajor, of(uplo), of(trans), n, k, alpha, a, lda, beta, c, ldc);
    });
}

cublasStatus_t cublasDgeam(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                           const double* alpha, const double* a, int lda, const double* beta, const double* b, int ldb,
                           double* c, int ldc) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    const Operand of_a = operand("A", a, CUDA_R_64F, transa, m, n, lda);
    const Operand of_b = operand("B", b, CUDA_R_64F, transb, m, n, ldb);
    if (alpha == nullptr || beta == nullptr || !known(transa) || !known(transb) || m < 0 || n < 0 ||
        (*alpha != 0 && lda < std::max<std::int64_t>(1, of_a.rows)) ||
        (*beta != 0 && ldb < std::max<std::int64_t>(1, of_b.rows)) || ldc < std::max(1, m)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    // In place only as it is: C may be A, or B, where that is not transposed and has C's leading dimension.
    if ((a == c && (transa != CUBLAS_OP_N || lda != ldc)) || (b == c && (transb != CUBLAS_OP_N || ldb != ldc))) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
    return put(handle, "cublasDgeam", [=, alpha = *alpha, beta = *beta] {
        if (alpha != 0) require("cublasDgeam", of_a);
        if (beta != 0) require("cublasDgeam", of_b);
        require("cublasDgeam", {"C", c, CUDA_R_64F, m, n, ldc});
        for (std::int64_t col = 0; col < n; ++col) {
            for (std::int64_t row = 0; row < m; ++row) {
                const double x = alpha == 0 ? 0 : alpha * a[transa == CUBLAS_OP_N ? col * lda + row : row * lda + col];
                const double y = beta == 0 ? 0 : beta * b[transb == CUBLAS_OP_N ? col * ldb + row : row * ldb + col];
                c[col * ldc + row] = x + y;
            }
        }
    });
}

cublasStatus_t cublasDscal(cublasHandle_t handle, int n, const double* alpha, double* x, int step) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (alpha == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (n <= 0 || step <= 0) return CUBLAS_STATUS_SUCCESS;
    return put(handle, "cublasDscal", [=, alpha = *alpha] {
        require("cublasDscal", {"x", x, CUDA_R_64F, 1, n, step});
        for (std::int64_t i = 0; i < n; ++i) x[i * step] *= alpha;
    });
}

}  // extern "C"
