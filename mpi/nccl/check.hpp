// Every call of NCCL, and the few of CUDA around it, goes through one of these.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "core/error.hpp"

namespace geom {

/// Throws Error(internal) with the call, NCCL's words, and the likely cause unless `status` is ncclSuccess, or
/// ncclInProgress: a communicator that does not block says so of work that has begun.
void check_nccl(ncclResult_t status, const char* call, SourceLocation where = SourceLocation::current());

/// Throws Error(internal) unless `status` is cudaSuccess.
void check_cuda(cudaError_t status, const char* call, SourceLocation where = SourceLocation::current());

}  // namespace geom
