// What starts a kernel: the checks of its shape and pointers; kernels.cpp runs it.
#include <fmt/format.h>

#include <map>
#include <utility>

#include "emulator/include/kernels/cuda/launch.cuh"
#include "emulator/runtime.hpp"

using geom::emulator::fail;
using geom::emulator::Guard;
using geom::emulator::lock;

namespace {

constexpr int default_shared_bytes = 48 * 1024;

/// The dynamic shared memory that a kernel may have once cudaFuncSetAttribute has said so.
std::map<const void*, int>& shared_limits() {
    static std::map<const void*, int> limits;
    return limits;
}

bool shape_holds(const geom::cuda::LaunchShape& shape) {
    const dim3 &grid = shape.grid, &block = shape.block;
    const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
    return threads > 0 && threads <= 1024 && block.z <= 64 && grid.x > 0 && grid.y > 0 && grid.z > 0 &&
           grid.x <= 2147483647U && grid.y <= 65535 && grid.z <= 65535;
}

/// Null, and the end of an allocation, may be passed along.
bool may_be_passed(const void* pointer) {
    const auto* at = static_cast<const std::byte*>(pointer);
    return at == nullptr || geom::emulator::bytes_left(at) >= 0 || geom::emulator::bytes_left(at - 1) >= 0;
}

}  // namespace

namespace geom::emulator {

cudaError_t launch_kernel(const char* name, const void* function, const cuda::LaunchShape& shape, cudaStream_t stream,
                          std::vector<const void*> pointers, std::function<void()> body) {
    const Guard guard = lock();
    if (stream_device(stream) != current_device()) return fail(cudaErrorInvalidResourceHandle);
    if (!shape_holds(shape)) return fail(cudaErrorInvalidConfiguration);
    const auto limit = shared_limits().find(function);
    const int most = limit == shared_limits().end() ? default_shared_bytes : limit->second;
    if (shape.shared_bytes > static_cast<std::size_t>(most)) return fail(cudaErrorInvalidValue);
    return enqueue(stream, name, [=, pointers = std::move(pointers), body = std::move(body)] {
        for (std::size_t i = 0; i < pointers.size(); ++i) {
            if (may_be_passed(pointers[i])) continue;
            die(fmt::format("kernel {}: its pointer {} is of the host's memory, or freed", name, i));
        }
        run_kernel(name, shape, body);
    });
}

}  // namespace geom::emulator

extern "C" {

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
    const Guard guard = lock();
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return fail(cudaErrorInvalidValue);
    if (value < 0 || value > geom::emulator::most_shared_bytes) return fail(cudaErrorInvalidValue);
    shared_limits()[function] = value;
    return cudaSuccess;
}

}  // extern "C"
