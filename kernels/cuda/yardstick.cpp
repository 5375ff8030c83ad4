#include "kernels/cuda/yardstick.hpp"

#include <cstring>
#include <memory>

namespace geom::cuda {

namespace {

Buffer random_operand(Device& device, std::int64_t elements) {
    const std::vector<std::uint16_t> values = random_bf16(elements);
    const auto bytes = static_cast<std::int64_t>(values.size() * sizeof values[0]);
    const Buffer pinned = device.allocate_pinned(bytes);
    std::memcpy(pinned.data(), values.data(), static_cast<std::size_t>(bytes));
    Buffer operand = device.allocate(bytes);
    check_cuda(cudaMemcpyAsync(operand.data(), pinned.data(), static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice,
                               device.stream()),
               "cudaMemcpyAsync");
    device.wait();
    return operand;
}

}  // namespace

Yardstick large_product(Device& device, const GemmShape& shape) {
    device.use();
    struct Operands {
        Buffer a, b, c;
    };
    const auto operands = std::make_shared<Operands>(Operands{random_operand(device, shape.m * shape.k),
                                                              random_operand(device, shape.n * shape.k),
                                                              device.allocate(shape.m * shape.n * 4)});
    const auto m = static_cast<int>(shape.m), n = static_cast<int>(shape.n), k = static_cast<int>(shape.k);
    return {"bf16 cuBLAS", [=, &device] {
                const float one = 1, zero = 0;
                check_cublas(cublasGemmEx(device.cublas(), CUBLAS_OP_T, CUBLAS_OP_N, n, m, k, &one, operands->b.data(),
                                          CUDA_R_16BF, k, operands->a.data(), CUDA_R_16BF, k, &zero, operands->c.data(),
                                          CUDA_R_32F, n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                             "cublasGemmEx");
                device.wait();
            }};
}

Yardstick large_copy(Device& device, std::int64_t bytes) {
    device.use();
    const auto from = std::make_shared<Buffer>(device.allocate(bytes)),
               to = std::make_shared<Buffer>(device.allocate(bytes));
    const auto size = static_cast<std::size_t>(bytes);
    check_cuda(cudaMemsetAsync(from->data(), 1, size, device.stream()), "cudaMemsetAsync");
    device.wait();
    return {"cudaMemcpy", [=, &device] {
                check_cuda(cudaMemcpyAsync(to->data(), from->data(), size, cudaMemcpyDeviceToDevice, device.stream()),
                           "cudaMemcpyAsync");
                device.wait();
            }};
}

}  // namespace geom::cuda
