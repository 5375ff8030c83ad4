#include "mpi/nccl/check.hpp"

#include <fmt/format.h>

namespace geom {

namespace {

const char* likely_cause(ncclResult_t status) {
    switch (status) {
        case ncclUnhandledCudaError:
            return "a CUDA call inside NCCL failed: GPU memory may be short, or a GPU lost";
        case ncclSystemError:
            return "a socket, shared memory (/dev/shm) or a network adapter failed; see NCCL_SOCKET_IFNAME and "
                   "NCCL_IB_HCA";
        case ncclInvalidUsage:
            return "two ranks may use one GPU, or the ranks different versions of NCCL";
        case ncclRemoteError:
            return "another rank has ended, or the network between the nodes broke";
        default:
            return "this is a bug";
    }
}

}  // namespace

void check_nccl(ncclResult_t status, const char* call, SourceLocation where) {
    if (status == ncclSuccess || status == ncclInProgress) return;
    const char* last = ncclGetLastError(nullptr);
    const bool more = last != nullptr && *last != '\0';
    throw Error(ExitCode::internal,
                fmt::format("{} failed: {}{}{}; {}; NCCL_DEBUG=WARN tells more", call, ncclGetErrorString(status),
                            more ? ": " : "", more ? last : "", likely_cause(status)),
                where);
}

void check_cuda(cudaError_t status, const char* call, SourceLocation where) {
    if (status == cudaSuccess) return;
    throw Error(ExitCode::internal,
                fmt::format("{} failed: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status)), where);
}

}  // namespace geom
