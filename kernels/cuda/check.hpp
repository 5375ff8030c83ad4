// Every call of a CUDA library goes through one of these: an Error with the call, the library's words and the place.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cusolverDn.h>

#include "core/error.hpp"

namespace geom::cuda {

/// Throws Error(internal) unless `status` is cudaSuccess.
void check_cuda(cudaError_t status, const char* call, SourceLocation where = SourceLocation::current());
void check_cublas(cublasStatus_t status, const char* call, SourceLocation where = SourceLocation::current());
void check_cusolver(cusolverStatus_t status, const char* call, SourceLocation where = SourceLocation::current());

}  // namespace geom::cuda
