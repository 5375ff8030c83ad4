// Starting a kernel. tests/emulator has a file of this name that runs kernels on a processor.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/launch_shape.hpp"

namespace geom::cuda {

/// Issues kernel(arguments...) to `stream`. Throws Error(internal), naming the kernel, when it cannot be started.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
            Arguments... arguments) {
    if (shape.shared_bytes > 48 * 1024) {
        check_cuda(
            cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shape.shared_bytes)),
            name);
    }
    kernel<<<shape.grid, shape.block, shape.shared_bytes, stream>>>(arguments...);
    check_cuda(cudaGetLastError(), name);
}

/// The block's dynamic shared memory.
template <class T>
__device__ T* dynamic_shared() {
    extern __shared__ double2 geom_dynamic_shared[];
    return reinterpret_cast<T*>(geom_dynamic_shared);
}

}  // namespace geom::cuda
