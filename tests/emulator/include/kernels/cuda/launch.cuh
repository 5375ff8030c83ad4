// Found before kernels/cuda/launch.cuh where CUDA is emulated: the same interface, and what nvcc gives of itself, for
// sources that g++ compiles as C++ with the real CUDA headers. Threads of a block are fibers that are switched at
// barriers and shuffles alone (kernels.cpp); blocks run one after the other, so that __shared__ may be static.
//
// Not there: inline PTX, tensor core fragments, cooperative groups, textures, clusters, __activemask.
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
#undef __constant__
#define __constant__
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__

namespace geom::emulator {

/// Where in the source a barrier stands: all threads have to meet at the same one.
struct Place {
    const char* what;
    const char* file;
    int line;
};

cudaError_t launch_kernel(const char* name, const void* function, dim3 grid, dim3 block, std::size_t shared_bytes,
                          cudaStream_t stream, std::vector<const void*> pointers, std::function<void()> body);
void* dynamic_shared_memory();
/// Waits for every thread of the block; the number of those whose predicate holds.
int meet_block(int predicate, const Place& place);
/// Waits for the lanes of the mask; the value that lane `source` brought.
std::uint64_t meet_warp(std::uint32_t mask, std::uint64_t value, int source, const Place& place);
/// The same; a bit for each lane whose predicate holds.
std::uint32_t meet_ballot(std::uint32_t mask, int predicate, const Place& place);
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

/// The lane of the same group of `width` lanes, or the own one where that would leave the group.
inline int shuffle_source(int target, int width) {
    return target / width == lane() / width && target >= 0 ? target : lane();
}

}  // namespace geom::emulator

// --- what nvcc declares
// -----------------------------------------------------------------------------------------------

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
inline constexpr int warpSize = 32;

#define GEOM_PLACE(what) \
    ::geom::emulator::Place { what, file, line }
#define GEOM_FROM const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(GEOM_FROM) { geom::emulator::meet_block(0, GEOM_PLACE("__syncthreads")); }
inline int __syncthreads_count(int predicate, GEOM_FROM) {
    return geom::emulator::meet_block(predicate, GEOM_PLACE("__syncthreads_count"));
}
inline int __syncthreads_or(int predicate, GEOM_FROM) {
    return geom::emulator::meet_block(predicate, GEOM_PLACE("__syncthreads_or")) != 0;
}
inline int __syncthreads_and(int predicate, GEOM_FROM) {
    return geom::emulator::meet_block(!predicate, GEOM_PLACE("__syncthreads_and")) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, GEOM_FROM) {
    geom::emulator::meet_ballot(mask, 0, GEOM_PLACE("__syncwarp"));
}
inline unsigned __ballot_sync(unsigned mask, int predicate, GEOM_FROM) {
    return geom::emulator::meet_ballot(mask, predicate, GEOM_PLACE("__ballot_sync"));
}
inline int __any_sync(unsigned mask, int predicate, GEOM_FROM) {
    return geom::emulator::meet_ballot(mask, predicate, GEOM_PLACE("__any_sync")) != 0;
}
inline int __all_sync(unsigned mask, int predicate, GEOM_FROM) {
    return geom::emulator::meet_ballot(mask, !predicate, GEOM_PLACE("__all_sync")) == 0;
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, GEOM_FROM) {
    const int first = geom::emulator::lane() / width * width;
    return geom::emulator::shuffle(mask, value, first + (source & (width - 1)), GEOM_PLACE("__shfl_sync"));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize, GEOM_FROM) {
    // As the hardware has it: lanes of lower groups may be read, those of higher ones may not.
    const int target = geom::emulator::lane() ^ lanes;
    const int source = target / width <= geom::emulator::lane() / width ? target : geom::emulator::lane();
    return geom::emulator::shuffle(mask, value, source, GEOM_PLACE("__shfl_xor_sync"));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = warpSize, GEOM_FROM) {
    const int target = geom::emulator::lane() + static_cast<int>(lanes);
    return geom::emulator::shuffle(mask, value, geom::emulator::shuffle_source(target, width),
                                   GEOM_PLACE("__shfl_down_sync"));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = warpSize, GEOM_FROM) {
    const int target = geom::emulator::lane() - static_cast<int>(lanes);
    return geom::emulator::shuffle(mask, value, geom::emulator::shuffle_source(target, width),
                                   GEOM_PLACE("__shfl_up_sync"));
}
#undef GEOM_FROM
#undef GEOM_PLACE

// One thread runs at a time: nothing to do for these to be atomic, or seen.
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
template <class T>
T atomicExch(T* at, std::type_identity_t<T> value) {
    const T before = *at;
    *at = value;
    return before;
}
template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
    return atomicExch(at, static_cast<T>(*at + value));
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
    static_assert(std::is_integral_v<T>, "there is no such instruction for floating point");
    return atomicExch(at, *at < value ? value : *at);
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> value) {
    static_assert(std::is_integral_v<T>, "there is no such instruction for floating point");
    return atomicExch(at, value < *at ? value : *at);
}
template <class T>
T atomicOr(T* at, std::type_identity_t<T> value) {
    return atomicExch(at, static_cast<T>(*at | value));
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
    return atomicExch(at, *at == compare ? value : *at);
}
template <class T>
T __ldg(const T* at) {
    return *at;
}

template <class A, class B>
requires(std::is_arithmetic_v<A>&& std::is_arithmetic_v<B>) constexpr std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    const T x = static_cast<T>(a);
    const T y = static_cast<T>(b);
    return y < x || x != x ? y : x;  // a NaN gives way, as in fmin
}
template <class A, class B>
requires(std::is_arithmetic_v<A>&& std::is_arithmetic_v<B>) constexpr std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    const T x = static_cast<T>(a);
    const T y = static_cast<T>(b);
    return x < y || x != x ? y : x;
}
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrtf(float x) { return 1.0F / sqrtf(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }  // the emulated sources are not contracted at all
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __ddiv_rn(double a, double b) { return a / b; }

// --- kernels/cuda/launch.cuh
// ------------------------------------------------------------------------------------------

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
    emulator::launch_kernel(name, function, shape.grid, shape.block, shape.shared_bytes, stream, std::move(pointers),
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
