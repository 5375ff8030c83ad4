// A thread an element, in strides of the grid: 2 to 8 bytes read and 4 or 8 written an element, coalesced. Bound by
// memory.
#include "kernels/cuda/convert.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.cuh"

namespace geom::cuda {

namespace {

constexpr unsigned block_threads = 256;

template <class From, class To>
__global__ void convert_kernel(const From* in, To* out, std::int64_t elements) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < elements; i += step) {
        out[i] = widened<To>(in[i]);
    }
}

template <class From, class To>
void start(const std::byte* in, std::byte* out, std::int64_t elements, const Device& device) {
    const std::int64_t blocks = (elements + block_threads - 1) / block_threads;
    const auto grid = static_cast<unsigned>(std::min<std::int64_t>(blocks, 16 * device.multiprocessors()));
    launch("convert", convert_kernel<From, To>, {grid, block_threads}, device.stream(),
           reinterpret_cast<const From*>(in), reinterpret_cast<To*>(out), elements);
}

template <class To>
void start_from(DType from, const std::byte* in, std::byte* out, std::int64_t elements, const Device& device) {
    switch (from) {
        case DType::bf16:
            return start<Bf16, To>(in, out, elements, device);
        case DType::f16:
            return start<__half, To>(in, out, elements, device);
        case DType::f32:
            return start<float, To>(in, out, elements, device);
        default:
            throw Error(ExitCode::internal, "no exact conversion of these weights on the GPU");
    }
}

}  // namespace

void convert(const std::byte* in, DType from, std::byte* out, DType to, std::int64_t elements, const Device& device) {
    if (elements == 0) return;
    if (from == to) {
        check_cuda(cudaMemcpyAsync(out, in, static_cast<std::size_t>(elements * size_of(from)),
                                   cudaMemcpyDeviceToDevice, device.stream()),
                   "cudaMemcpyAsync");
    } else if (to == DType::f32) {
        start_from<float>(from, in, out, elements, device);
    } else if (to == DType::f64) {
        start_from<double>(from, in, out, elements, device);
    } else {
        throw Error(ExitCode::internal, "no exact conversion of these weights on the GPU");
    }
}

}  // namespace geom::cuda
