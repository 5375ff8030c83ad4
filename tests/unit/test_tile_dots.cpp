#include <algorithm>

#include "kernels/cpu/isa.hpp"
#include "support/tile_dots_contract.hpp"

namespace geom::test {
namespace {

template <Isa isa>
std::unique_ptr<Backend> with(int threads) {
    return processor_has(isa) ? make_cpu_backend(threads, isa) : nullptr;
}

constexpr Path paths[] = {
    {DType::bf16, "amx-bf16", with<Isa::amx_bf16>},   {DType::bf16, "avx512-bf16", with<Isa::avx512_bf16>},
    {DType::bf16, "avx512-f32", with<Isa::avx512>},   {DType::bf16, "avx2-f32", with<Isa::avx2>},
    {DType::bf16, "sgemm-bf16", with<Isa::portable>}, {DType::f32, "avx512-f32", with<Isa::avx512>},
    {DType::f32, "avx2-f32", with<Isa::avx2>},        {DType::f32, "sgemm", with<Isa::portable>},
    {DType::f16, "avx512-f32", with<Isa::avx512>},    {DType::f16, "avx2-f32", with<Isa::avx2>},
    {DType::f16, "sgemm", with<Isa::portable>},       {DType::f64, "dgemm", with<Isa::portable>},
    {DType::bf16, "neon-bf16", with<Isa::neon_bf16>}, {DType::bf16, "neon-f32", with<Isa::neon>},
    {DType::f32, "neon-f32", with<Isa::neon>},        {DType::f16, "neon-f32", with<Isa::neon>}};

INSTANTIATE_TEST_SUITE_P(Cpu, TileDots, ::testing::ValuesIn(paths), path_name);

// AMX and BFMMLA have an order of their own.
TEST(TileDotsOfAnIsa, are_the_same_bits_with_every_vector_instruction_set) {
    std::vector<Isa> one_order;
    for (const Isa isa : {Isa::neon, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
        if (processor_has(isa)) one_order.push_back(isa);
    }
    if (one_order.size() < 2) GTEST_SKIP() << "this processor has one at most";
    for (const DType stored : {DType::bf16, DType::f16, DType::f32}) {
        for (const Shape& shape : {Shape{5, 2, 80, 1100}, Shape{4, 1, 128, 1031}, Shape{7, 2, 16, 31}}) {
            const StoredGroup group(shape, stored);
            const std::vector<double> expected = group.tile_dots(*make_cpu_backend(2, one_order.front()));
            for (const Isa isa : one_order) {
                EXPECT_EQ(group.tile_dots(*make_cpu_backend(2, isa)), expected) << shape << " " << name_of(isa);
            }
        }
    }
}

class LayerSlices : public ::testing::TestWithParam<Path> {};

TEST_P(LayerSlices, have_the_bits_of_the_whole) {
    const Shape shape{13, 2, 128, 1100};
    const auto backend = GetParam().make(2);
    if (!backend) GTEST_SKIP() << "this machine has no " << GetParam().name;
    const StoredGroup group(shape, GetParam().stored);
    const HeadBlockFormat format = backend->head_products().format(GetParam().stored, shape.head_dim, shape.hidden);
    const Buffer blocks = group.packed(*backend, format);
    const std::vector<double> whole = group.tile_dots(*backend);
    const std::int64_t begin = 2, layers = 9;
    std::vector<double> part(static_cast<std::size_t>(layers * layers));
    backend->head_products().tile_dots(
        {layers, 1, blocks.data() + begin * format.bytes, blocks.data() + (shape.layers + begin) * format.bytes},
        format, part);
    for (std::int64_t l = 0; l < layers; ++l) {
        for (std::int64_t m = 0; m < layers; ++m) {
            EXPECT_EQ(part[static_cast<std::size_t>(l * layers + m)],
                      whole[static_cast<std::size_t>((begin + l) * shape.layers + begin + m)])
                << l << " " << m;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Cpu, LayerSlices, ::testing::ValuesIn(paths), path_name);

}  // namespace
}  // namespace geom::test
