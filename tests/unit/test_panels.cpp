// Every vector instruction set against the order of sums that panels.hpp promises, to the bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/dtype.hpp"
#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/panels.hpp"

namespace geom {
namespace {

struct Body {
    Isa isa;
    const char* path;
};
constexpr Body bodies[] = {{Isa::avx2, "avx2-f32"},
                           {Isa::avx512, "avx512-f32"},
                           {Isa::avx512_bf16, "avx512-bf16"},
                           {Isa::neon, "neon-f32"},
                           {Isa::neon_bf16, "neon-bf16"}};

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
std::int64_t rounded_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

/// Row-major bf16 numbers, in panels and as they are.
struct Block {
    std::int64_t rows, cols;
    std::vector<std::uint16_t> values;

    Block(std::int64_t r, std::int64_t c, unsigned seed) : rows(r), cols(c), values(at(r * c)) {
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        for (std::uint16_t& value : values) value = f32_to_bf16(normal(random));
    }
    float operator()(std::int64_t row, std::int64_t col) const {
        return row < rows && col < cols ? bf16_to_f32(values[at(row * cols + col)]) : 0.0F;
    }
    std::int64_t panels() const { return rounded_up(rows, 16) / 16; }
    std::vector<std::byte> packed() const {
        std::vector<std::byte> out(at(panels() * rounded_up(cols, 2) / 2 * panels::step_bytes));
        panels::pack(reinterpret_cast<const std::byte*>(values.data()), rows, 2 * cols, out.data());
        return out;
    }
};

/// a + b to f32, towards zero with the last bit set where anything was lost.
float rounded_to_odd(double a, double b) {
    const double sum = a + b, back = sum - a, lost = (a - (sum - back)) + (b - back);
    auto nearest = static_cast<float>(sum);
    const double over = (static_cast<double>(nearest) - sum) - lost;
    if (over == 0.0) return nearest;
    if (std::signbit(over) == std::signbit(nearest)) nearest = std::nextafter(nearest, 0.0F);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &nearest, sizeof bits);
    bits |= 1U;
    std::memcpy(&nearest, &bits, sizeof bits);
    return nearest;
}

/// What is added to `sum` of a pair of columns: fused, the second first; or by BFMMLA, both products first.
float added(float sum, const Block& a, std::int64_t i, const Block& b, std::int64_t j, std::int64_t k, bool to_odd) {
    if (!to_odd) return std::fma(a(i, k), b(j, k), std::fma(a(i, k + 1), b(j, k + 1), sum));
    const auto product = [&](std::int64_t col) {
        return static_cast<double>(a(i, col)) * static_cast<double>(b(j, col));
    };
    return rounded_to_odd(sum, rounded_to_odd(product(k), product(k + 1)));
}

/// Runs of 512 columns.
float expected(const Block& a, std::int64_t i, const Block& b, std::int64_t j, bool to_odd) {
    float sum = 0.0F;
    for (std::int64_t run = 0; run < a.cols; run += 512) {
        float part = 0.0F;
        for (std::int64_t k = run; k < std::min(a.cols, run + 512); k += 2) part = added(part, a, i, b, j, k, to_odd);
        sum = run == 0 ? part : sum + part;
    }
    return sum;
}

/// A B^T with a body; widened first where it multiplies f32.
std::vector<float> product(const panels::Kernels& kernels, const Block& a, const Block& b) {
    const std::int64_t pairs = rounded_up(a.cols, 2) / 2, side = 16 * a.panels();
    std::vector<float> c(at(side * side), -1.0F);
    const std::vector<std::byte> packed[] = {a.packed(), b.packed()};
    if (kernels.pairs) {
        const std::int64_t stride = pairs * panels::step_bytes;
        kernels.accumulate({{packed[0].data(), stride}, {packed[1].data(), stride}, a.panels(), pairs, true}, c.data());
        return c;
    }
    std::vector<float> wide[2];
    for (int side_of = 0; side_of < 2; ++side_of) {
        wide[side_of].resize(at(a.panels() * pairs * 32));
        kernels.widen(packed[side_of].data(), a.panels() * pairs, wide[side_of].data());
    }
    const std::int64_t stride = 2 * pairs * panels::step_bytes;
    kernels.accumulate({{reinterpret_cast<const std::byte*>(wide[0].data()), stride},
                        {reinterpret_cast<const std::byte*>(wide[1].data()), stride},
                        a.panels(),
                        2 * pairs,
                        true},
                       c.data());
    return c;
}

class Panels : public ::testing::TestWithParam<Body> {
protected:
    void SetUp() override {
        if (!processor_has(GetParam().isa)) GTEST_SKIP() << "this machine has no " << name_of(GetParam().isa);
    }
    static bool to_odd() { return GetParam().isa == Isa::neon_bf16; }
    static const panels::Kernels& kernels() { return *panels::kernels_of(GetParam().path); }
};

TEST_P(Panels, are_multiplied_in_the_order_that_is_promised_to_the_bit) {
    // 1 to 9 panels: 3, 2 and 1 vectors of columns, and ends that begin inside a panel
    for (const std::int64_t rows : {1, 8, 16, 17, 48, 64, 80, 100, 128, 144}) {
        for (const std::int64_t cols : {1, 2, 31, 512, 515, 1300}) {
            const Block a(rows, cols, 1), b(rows, cols, 2);
            const std::vector<float> c = product(kernels(), a, b);
            const std::int64_t side = 16 * a.panels();
            for (std::int64_t i = 0; i < side; ++i) {
                for (std::int64_t j = 0; j < side; ++j)
                    ASSERT_EQ(c[at(i * side + j)], expected(a, i, b, j, to_odd()))
                        << rows << " x " << cols << ": " << i << " " << j;
            }
        }
    }
}

TEST_P(Panels, are_added_to_what_is_there_when_a_product_is_not_the_first) {
    const Block a(32, 40, 3), b(32, 40, 4);
    if (!kernels().pairs) GTEST_SKIP() << "tested with f32 by tile_dots of several chunks";
    const std::vector<std::byte> left = a.packed(), right = b.packed();
    std::vector<float> c(32 * 32, 2.0F);
    kernels().accumulate({{left.data(), 20 * 64}, {right.data(), 20 * 64}, 2, 20, false}, c.data());
    for (std::int64_t i = 0; i < 32; ++i) {
        for (std::int64_t j = 0; j < 32; ++j) ASSERT_EQ(c[at(i * 32 + j)], 2.0F + expected(a, i, b, j, to_odd()));
    }
}

TEST_P(Panels, are_dotted_in_f64_in_one_order_of_all_instruction_sets) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    std::vector<float> a(16 * 37), b(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
        a[i] = normal(random);
        b[i] = normal(random);
    }
    double lanes[16] = {};
    for (std::size_t i = 0; i < a.size(); ++i)
        lanes[i % 16] = std::fma(static_cast<double>(a[i]), static_cast<double>(b[i]), lanes[i % 16]);
    for (std::size_t width = 8; width > 0; width /= 2) {
        for (std::size_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
    }
    EXPECT_EQ(kernels().dot(a.data(), b.data(), static_cast<std::int64_t>(a.size())), lanes[0]);
}

// vdpbf16ps knows no subnormal numbers; f32 products do. Both are far below what gram allows.
TEST_P(Panels, of_numbers_below_the_normal_range_are_zero_with_bf16_instructions_alone) {
    Block a(16, 2, 6), b(16, 2, 7);
    std::fill(a.values.begin(), a.values.end(), f32_to_bf16(0x1p-120F));
    std::fill(b.values.begin(), b.values.end(), f32_to_bf16(0x1p-20F));
    EXPECT_EQ(product(kernels(), a, b)[0], kernels().pairs ? 0.0F : 0x1p-139F);
    std::fill(a.values.begin(), a.values.end(), f32_to_bf16(0x1p-130F));
    std::fill(b.values.begin(), b.values.end(), f32_to_bf16(0x1p30F));
    EXPECT_EQ(product(kernels(), a, b)[0], kernels().pairs ? 0.0F : 0x1p-99F);
}

INSTANTIATE_TEST_SUITE_P(Cpu, Panels, ::testing::ValuesIn(bodies), [](const auto& test) {
    std::string name = test.param.path;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
});

}  // namespace
}  // namespace geom
