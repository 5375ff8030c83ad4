// The backend of ranks with a GPU: its memory, cuBLAS, cuSOLVER and the kernels of this folder.
#include <fmt/format.h>

#include "kernels/cuda/dense_batch.hpp"
#include "kernels/cuda/device.hpp"
#include "kernels/cuda/input_buffer.hpp"
#include "kernels/cuda/matrices.hpp"
#include "kernels/cuda/tile_dots.hpp"
#include "kernels/cuda/transformer.hpp"
#include "kernels/cuda/yardstick.hpp"
#include "kernels/gpu.hpp"

namespace geom {

namespace {

class CudaBackend final : public Backend {
public:
    CudaBackend(int gpu, int threads)
        : workers_(threads),
          device_(gpu, workers_),
          queue_(device_),
          dense_(device_, workers_),
          matrices_(device_, workers_),
          transformer_(device_),
          head_products_(device_) {
        cudaDeviceProp properties{};
        cuda::check_cuda(cudaGetDeviceProperties(&properties, gpu), "cudaGetDeviceProperties");
        name_ = properties.name;
    }

    std::string name() const override { return "cuda"; }
    std::string device() const override { return name_; }
    std::string library() const override;
    Workers& workers() override { return workers_; }
    std::int64_t progress() override { return workers_.progress() + device_.waits(); }
    Queue& queue() override { return queue_; }
    DenseBatch& dense() override { return dense_; }
    Matrices& matrices() override { return matrices_; }
    Transformer& transformer() override { return transformer_; }
    Buffer allocate(std::int64_t bytes) override { return device_.allocate(bytes); }
    std::unique_ptr<InputBuffer> input_buffer(std::int64_t bytes) override {
        return std::make_unique<cuda::DeviceInputBuffer>(device_, bytes);
    }

    HeadProducts& head_products() override { return head_products_; }

    Yardstick large_product(const GemmShape& shape) override { return cuda::large_product(device_, shape); }
    Yardstick large_copy(std::int64_t bytes) override { return cuda::large_copy(device_, bytes); }

private:
    Workers workers_;
    cuda::Device device_;
    cuda::DeviceQueue queue_;
    cuda::CudaDenseBatch dense_;
    cuda::CudaMatrices matrices_;
    cuda::CudaTransformer transformer_;
    cuda::CudaHeadProducts head_products_;
    std::string name_;
};

// 13020 -> "13.2"
std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

std::string CudaBackend::library() const {
    int driver = 0, blas = 0, solver = 0;
    cuda::check_cuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    cuda::check_cublas(cublasGetVersion(device_.cublas(), &blas), "cublasGetVersion");
    cuda::check_cusolver(cusolverGetVersion(&solver), "cusolverGetVersion");
    return fmt::format("cuBLAS {}.{}.{}, cuSOLVER {}.{}.{}, driver for CUDA {}", blas / 10000, blas / 100 % 100,
                       blas % 100, solver / 1000, solver / 100 % 10, solver % 100, version_text(driver));
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(int gpu, int threads) { return std::make_unique<CudaBackend>(gpu, threads); }

}  // namespace geom
