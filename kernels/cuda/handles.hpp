// Owners of the CUDA libraries' handles. Move-only; destructors do not throw.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cusolverDn.h>

#include <memory>
#include <type_traits>

#include "kernels/cuda/check.hpp"

namespace geom::cuda {

/// Calls Destroy on a handle that is a pointer.
template <auto Destroy>
struct Destroyer {
    template <class T>
    void operator()(T* handle) const noexcept {
        Destroy(handle);
    }
};

template <class Handle, auto Destroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroyer<Destroy>>;

using Stream = Owned<cudaStream_t, cudaStreamDestroy>;
using Event = Owned<cudaEvent_t, cudaEventDestroy>;
using Cublas = Owned<cublasHandle_t, cublasDestroy>;
using Cusolver = Owned<cusolverDnHandle_t, cusolverDnDestroy>;
using CusolverParams = Owned<cusolverDnParams_t, cusolverDnDestroyParams>;

/// A stream that does not wait for the default stream.
inline Stream make_stream() {
    cudaStream_t stream = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    return Stream(stream);
}

/// An event that keeps no time.
inline Event make_event() {
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    return Event(event);
}

}  // namespace geom::cuda
