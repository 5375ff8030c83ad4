// A thread an element, in strides of the grid: 2 to 8 bytes read and 4 or 8 written an element, coalesced. Bound by
// memory.
#include "kernels/cuda/convert.hpp"

#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.cuh"

namespace geom::cuda {

namespace {

constexpr unsigned block_threads = 256;

/// What elements are multiplied by.
struct Factors {
    double all;
    const double* columns;  ///< null: nothing else
    std::int64_t width;     ///< of a row

    __device__ double of(std::int64_t i) const { return columns == nullptr ? all : all * columns[i % width]; }
};

template <class From, class To>
__global__ void convert_kernel(const From* in, To* out, std::int64_t elements, Factors factors) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < elements; i += step) {
        narrow(widened<double>(in[i]) * factors.of(i), out[i]);
    }
}

template <class From, class To>
void start(const MatrixRef& block, std::byte* out, const Device& device, const double* columns) {
    const std::int64_t elements = block.rows * block.cols, blocks = (elements + block_threads - 1) / block_threads;
    const auto grid = static_cast<unsigned>(std::min<std::int64_t>(blocks, 16 * device.multiprocessors()));
    launch("convert", convert_kernel<From, To>, {grid, block_threads}, device.stream(),
           reinterpret_cast<const From*>(block.data), reinterpret_cast<To*>(out), elements,
           Factors{std::ldexp(1.0, -block.exponent), columns, block.cols});
}

[[noreturn]] void refuse() { throw Error(ExitCode::internal, "no exact conversion of these weights on the GPU"); }

template <class To>
void start_from(const MatrixRef& block, std::byte* out, const Device& device, const double* columns) {
    switch (block.dtype) {
        case DType::bf16:
            return start<Bf16, To>(block, out, device, columns);
        case DType::f16:
            return start<__half, To>(block, out, device, columns);
        case DType::f32:
            return start<float, To>(block, out, device, columns);
        default:
            refuse();
    }
}

}  // namespace

void convert(const MatrixRef& block, std::byte* out, DType to, const Device& device, const double* columns) {
    const DType from = block.dtype;
    const std::int64_t elements = block.rows * block.cols;
    if (elements == 0) return;
    if (from == to && block.exponent == 0 && columns == nullptr) {
        check_cuda(cudaMemcpyAsync(out, block.data, static_cast<std::size_t>(elements * size_of(from)),
                                   cudaMemcpyDeviceToDevice, device.stream()),
                   "cudaMemcpyAsync");
    } else if (to == DType::bf16 && from == DType::bf16) {
        start<Bf16, Bf16>(block, out, device, columns);
    } else if (to == DType::f64 && from == DType::f64) {
        start<double, double>(block, out, device, columns);
    } else if (to == DType::f32) {
        start_from<float>(block, out, device, columns);
    } else if (to == DType::f64) {
        start_from<double>(block, out, device, columns);
    } else {
        refuse();
    }
}

}  // namespace geom::cuda
