// Found before kernels/cuda/launch.cuh where CUDA is emulated: the same interface, and what nvcc gives of itself, for
// sources that g++ compiles as C++ with the real CUDA headers. Threads of a block are fibers that are switched at
// barriers and shuffles alone (kernels.cpp); blocks run one after the other, so that __shared__ may be static.
//
// Of what nvcc knows it has what the kernels use, each intrinsic for the types they use it with.
#pragma once

#include <cuda_runtime.h>
#include <math.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/launch_shape.hpp"

#undef __shared__
#define __shared__ static
#undef __launch_bounds__
#define __launch_bounds__(...)

namespace geom::emulator {

/// Where in the source a barrier stands: all threads have to meet at the same one.
struct Place {
    const char* what;
    const char* file;
    int line;
};

cudaError_t launch_kernel(const char* name, const void* function, const cuda::LaunchShape& shape, cudaStream_t stream,
                          std::vector<const void*> pointers, std::function<void()> body);
void* dynamic_shared_memory();
/// Waits for every thread of the block.
void meet_block(const Place& place);
/// Waits for the lanes of the mask; the value that lane `source` brought.
std::uint64_t meet_warp(std::uint32_t mask, std::uint64_t value, int source, const Place& place);
/// Of the thread within its warp of 32.
int lane();

template <class T>
T shuffle(std::uint32_t mask, T value, int source, const Place& place) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = meet_warp(mask, bits, source, place);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

}  // namespace geom::emulator

// --- what nvcc declares ----------------------------------------------------------------------------------------------

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    geom::emulator::meet_block({"__syncthreads", file, line});
}
inline int __syncthreads_or(int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    static int any = 0;
    const geom::emulator::Place place{"__syncthreads_or", file, line};
    geom::emulator::meet_block(place);  // all have what the call before gave
    if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) any = 0;
    geom::emulator::meet_block(place);
    if (predicate != 0) any = 1;
    geom::emulator::meet_block(place);
    return any;
}
// As the hardware has it: where a shuffle names a lane beyond the warp, a thread gets its own value.
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    const int own = geom::emulator::lane(), target = own ^ lanes;
    return geom::emulator::shuffle(mask, value, target < 32 ? target : own, {"__shfl_xor_sync", file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int lanes, const char* file = __builtin_FILE(),
                   int line = __builtin_LINE()) {
    const int own = geom::emulator::lane(), target = own + lanes;
    return geom::emulator::shuffle(mask, value, target < 32 ? target : own, {"__shfl_down_sync", file, line});
}
inline int atomicAdd(int* at, int value) {  // one thread runs at a time
    const int before = *at;
    *at += value;
    return before;
}
inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }

// --- kernels/cuda/launch.cuh -----------------------------------------------------------------------------------------

namespace geom::cuda {

/// Issues kernel(arguments...) to `stream`. Throws Error(internal), naming the kernel, when it cannot be started.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
            Arguments... arguments) {
    static_assert((std::is_trivially_copyable_v<std::remove_cvref_t<Parameters>> && ...), "copied byte by byte");
    static_assert((!std::is_reference_v<Parameters> && ...), "the host's memory is not the device's");
    static_assert((sizeof(Parameters) + ... + 0) <= 4096, "kernels' parameters");
    const auto function = reinterpret_cast<const void*>(kernel);
    if (shape.shared_bytes > 48 * 1024) {
        check_cuda(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(shape.shared_bytes)),
                   name);
    }
    const std::tuple<std::remove_cv_t<Parameters>...> values(arguments...);
    std::vector<const void*> pointers;
    std::apply(
        [&pointers]<class... Values>(const Values&... value) {
            const auto note = [&pointers]<class T>(const T& one) {
                if constexpr (std::is_pointer_v<T>) pointers.push_back(one);
            };
            (note(value), ...);
        },
        values);
    emulator::launch_kernel(name, function, shape, stream, std::move(pointers),
                            [kernel, values] { std::apply(kernel, values); });
    check_cuda(cudaGetLastError(), name);
}

/// The block's dynamic shared memory.
template <class T>
T* dynamic_shared() {
    static_assert(alignof(T) <= 16);
    return static_cast<T*>(emulator::dynamic_shared_memory());
}

}  // namespace geom::cuda
