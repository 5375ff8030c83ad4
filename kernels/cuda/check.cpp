#include "kernels/cuda/check.hpp"

#include <fmt/format.h>

namespace geom::cuda {

void check_cuda(cudaError_t status, const char* call, SourceLocation where) {
    if (status == cudaSuccess) return;
    throw Error(ExitCode::internal,
                fmt::format("{} failed: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status)), where);
}

void check_cublas(cublasStatus_t status, const char* call, SourceLocation where) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    throw Error(ExitCode::internal, fmt::format("{} failed: {}", call, cublasGetStatusString(status)), where);
}

void check_cusolver(cusolverStatus_t status, const char* call, SourceLocation where) {
    if (status == CUSOLVER_STATUS_SUCCESS) return;
    throw Error(ExitCode::internal, fmt::format("{} failed with cuSOLVER's status {}", call, static_cast<int>(status)),
                where);
}

}  // namespace geom::cuda
