#include "kernels/gpu.hpp"
#include "support/tile_dots_contract.hpp"

namespace geom::test {
namespace {

std::unique_ptr<Backend> on_gpu(int threads) {
    return visible_gpus().gpus.empty() ? nullptr : make_cuda_backend(0, threads);
}

constexpr Path paths[] = {{DType::bf16, "cublas-bf16", on_gpu, 2, 1.6e-5},
                          {DType::f32, "cublas-f32", on_gpu, 2},
                          {DType::f16, "cublas-f32", on_gpu, 2},
                          {DType::f64, "cublas-f64", on_gpu, 2}};

INSTANTIATE_TEST_SUITE_P(Cuda, TileDots, ::testing::ValuesIn(paths), path_name);

}  // namespace
}  // namespace geom::test
