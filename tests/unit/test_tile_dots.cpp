#include "kernels/cpu/isa.hpp"
#include "support/tile_dots_contract.hpp"

namespace geom::test {
namespace {

std::unique_ptr<Backend> with_amx(int threads) { return have_amx_bf16() ? make_cpu_backend(threads, true) : nullptr; }
std::unique_ptr<Backend> without_amx(int threads) { return make_cpu_backend(threads, false); }

constexpr Path paths[] = {{DType::bf16, "amx-bf16", with_amx},
                          {DType::bf16, "sgemm-bf16", without_amx},
                          {DType::f32, "sgemm", without_amx},
                          {DType::f16, "sgemm", without_amx},
                          {DType::f64, "dgemm", without_amx}};

INSTANTIATE_TEST_SUITE_P(Cpu, TileDots, ::testing::ValuesIn(paths), path_name);

}  // namespace
}  // namespace geom::test
