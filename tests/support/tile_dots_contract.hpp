// HeadProducts::tile_dots and pack, tested once for every backend: a program includes this once and says which
// paths it has with INSTANTIATE_TEST_SUITE_P.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/stored_group.hpp"

namespace geom::test {

/// A way to keep blocks: of which stored type, on which backend.
struct Path {
    DType stored;
    const char* name;
    std::unique_ptr<Backend> (*make)(int threads);  ///< null pointer where this machine cannot
    int most_threads = 8;                           ///< with which it is worth comparing
    double truncation = 0;  ///< what its units cut off a sum of 5120 products, relative and in proportion to them
};

// Beside rounding. Rows are random, so that a dot is mostly the hd squares of the hd^2 products that its size allows
// for, and they lose in both factors, up to the 1280 columns that are summed at a time.
inline double allowed_on(const Path& path, Backend& backend, const Shape& shape) {
    const double truncation = backend.device() == "emulated GPU" ? 0.0 : path.truncation;
    const auto summed = static_cast<double>(std::min<std::int64_t>(shape.hidden, 1280));
    return allowed(path.stored, shape.hidden) + 2 * truncation * summed / 5120 / static_cast<double>(shape.head_dim);
}

inline std::string path_name(const ::testing::TestParamInfo<Path>& test) {
    std::string name = fmt::format("{}_of_{}", test.param.name, name_of(test.param.stored));
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

class TileDots : public ::testing::TestWithParam<Path> {
protected:
    void SetUp() override {
        if (!backend(1)) GTEST_SKIP() << "this machine has no " << GetParam().name;
    }
    static std::unique_ptr<Backend> backend(int threads) { return GetParam().make(threads); }
};

TEST_P(TileDots, agree_with_the_definition_over_shapes) {
    const std::unique_ptr<Backend> two_threads = backend(2);
    double worst = 0.0, worst_of_allowed = 0.0;
    for (const Shape& shape :
         {Shape{1, 1, 8, 8}, Shape{2, 1, 8, 1}, Shape{5, 2, 8, 33}, Shape{3, 4, 16, 96}, Shape{9, 3, 16, 31},
          Shape{70, 1, 16, 40}, Shape{3, 2, 24, 100}, Shape{5, 1, 80, 100}, Shape{14, 1, 80, 65}, Shape{4, 2, 128, 160},
          Shape{10, 1, 128, 48}, Shape{3, 1, 128, 1030}, Shape{2, 1, 16, 2500}, Shape{3, 1, 256, 72},
          Shape{2, 2, 20, 1056}, Shape{6, 1, 300, 40}}) {
        const StoredGroup group(shape, GetParam().stored);
        std::string path;
        const std::vector<double> gram = group.tile_dots(*two_threads, &path);
        EXPECT_EQ(path, GetParam().name);
        const std::vector<double> expected = reference::tile_dots(group.reference());
        ASSERT_EQ(gram.size(), expected.size());
        const auto layers = static_cast<std::size_t>(shape.layers);
        const double bound = allowed_on(GetParam(), *two_threads, shape);
        for (std::size_t i = 0; i < gram.size(); ++i) {
            const std::size_t head = i / (layers * layers), l = i / layers % layers, m = i % layers;
            const double size = reference::operator_size(group.reference(), head, l) *
                                reference::operator_size(group.reference(), head, m);
            const double error = std::abs(gram[i] - expected[i]) / size;
            worst = std::max(worst, error);
            worst_of_allowed = std::max(worst_of_allowed, error / bound);
            ASSERT_LE(error, bound) << shape << ", head " << head << ", layers " << l << ", " << m;
            ASSERT_LE(error, 1e-5) << "what the specification allows";
            ASSERT_EQ(gram[i], gram[(head * layers + m) * layers + l]) << "symmetric to the bit";
        }
    }
    fmt::print("{} of {}: largest error {:.1e} of sum |k_i||q_i| sum |k'_i||q'_i|, {:.2f} of the bound\n",
               GetParam().name, name_of(GetParam().stored), worst, worst_of_allowed);
}

TEST_P(TileDots, are_the_same_bits_on_any_number_of_threads) {
    for (const Shape& shape : {Shape{70, 2, 16, 40}, Shape{11, 3, 128, 100}, Shape{5, 2, 80, 1100}}) {
        const StoredGroup group(shape, GetParam().stored);
        const std::vector<double> expected = group.tile_dots(*backend(1));
        for (const int threads : {2, 3, 8}) {
            if (threads > GetParam().most_threads) break;
            EXPECT_EQ(group.tile_dots(*backend(threads)), expected) << shape << ", " << threads;
        }
    }
}

TEST_P(TileDots, of_a_head_do_not_depend_on_the_heads_beside_it) {
    // The same seed draws the layers of K first, then those of head 0.
    const std::vector<double> beside = StoredGroup({12, 3, 80, 200}, GetParam().stored, 5).tile_dots(*backend(2));
    const std::vector<double> alone = StoredGroup({12, 1, 80, 200}, GetParam().stored, 5).tile_dots(*backend(2));
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), beside.begin()));
}

TEST_P(TileDots, of_zero_operators_are_zero) {
    StoredGroup group({4, 2, 16, 50}, GetParam().stored);
    group.set_zero(1);      // K of layer 1: both heads
    group.set_zero(4 + 2);  // Q of head 0, layer 2
    const std::vector<double> gram = group.tile_dots(*backend(2));
    for (std::size_t head = 0; head < 2; ++head) {
        for (std::size_t l = 0; l < 4; ++l) {
            for (std::size_t m = 0; m < 4; ++m) {
                const bool zero = l == 1 || m == 1 || (head == 0 && (l == 2 || m == 2));
                EXPECT_EQ(gram[(head * 4 + l) * 4 + m] == 0.0, zero) << head << " " << l << " " << m;
            }
        }
    }
}

TEST_P(TileDots, of_small_integers_are_exact) {
    for (const Shape& shape : {Shape{3, 2, 8, 5}, Shape{4, 1, 16, 33}, Shape{2, 1, 80, 64}}) {
        const DType dtype = GetParam().stored;
        reference::Group numbers{shape.head_dim, shape.hidden, {}, {}};
        std::vector<std::vector<std::byte>> blocks;
        int next = 0;
        for (std::int64_t b = 0; b < shape.layers * (1 + shape.heads); ++b) {
            std::vector<double> wanted;
            for (std::int64_t i = 0; i < shape.head_dim * shape.hidden; ++i)
                wanted.push_back((next = (next * 7 + 3) % 11) - 5);
            blocks.push_back(stored(wanted, dtype).bytes);
            if (b < shape.layers) {
                numbers.k.push_back(wanted);
            } else {
                if (b % shape.layers == 0) numbers.q.emplace_back();
                numbers.q.back().push_back(wanted);
            }
        }
        const auto engine = backend(1);
        const HeadBlockFormat format = engine->head_products().format(dtype, shape.head_dim, shape.hidden);
        const Buffer packed = packed_blocks(*engine, format, dtype, blocks);
        std::vector<double> gram(static_cast<std::size_t>(shape.heads * shape.layers * shape.layers));
        engine->head_products().tile_dots(
            {shape.layers, shape.heads, packed.data(), packed.data() + shape.layers * format.bytes}, format, gram);
        EXPECT_EQ(gram, reference::tile_dots(numbers)) << shape;
    }
}

// Blocks of integers 1 to 100 times any power of two that the stored type has, with subnormals: every layer's and every
// head's another one. What was an integer comes back as one, to the bit.
TEST_P(TileDots, of_weights_far_from_one_are_those_of_ordinary_ones_times_the_powers_of_two) {
    const DType dtype = GetParam().stored;
    const int least = dtype == DType::f16 ? -24 : dtype == DType::bf16 ? -133 : dtype == DType::f32 ? -149 : -200;
    const int most = dtype == DType::f16 ? 9 : dtype == DType::f64 ? 190 : 120;
    const Shape shape{5, 2, 16, 40};
    const auto engine = backend(2);
    const HeadBlockFormat format = engine->head_products().format(dtype, shape.head_dim, shape.hidden);
    const std::int64_t elements = shape.layers * shape.layers;
    for (int step = 0; step < 12; ++step) {
        std::vector<std::vector<std::byte>> plain, scaled;
        std::vector<std::int32_t> powers, exponents;
        int next = step;
        for (std::int64_t b = 0; b < shape.layers * (1 + shape.heads); ++b) {
            std::vector<double> wanted;
            for (std::int64_t i = 0; i < shape.head_dim * shape.hidden; ++i)
                wanted.push_back((next = (next * 37 + 11) % 101) - 50);
            powers.push_back(least + static_cast<int>((step * 7 + b * 29) % (most - least + 1)));
            plain.push_back(stored(wanted, dtype).bytes);
            for (double& value : wanted) value = std::ldexp(value, powers.back());
            StoredBlock block = stored(wanted, dtype);
            ASSERT_EQ(block.values, wanted) << "2^" << powers.back() << " is one that " << name_of(dtype) << " has";
            scaled.push_back(std::move(block.bytes));
            exponents.push_back(block_exponent(powers.back() + 6));
        }
        const auto dots = [&](const Buffer& packed, const std::int32_t* e) {
            std::vector<double> out(static_cast<std::size_t>(shape.heads * elements));
            engine->head_products().tile_dots(
                {shape.layers, shape.heads, packed.data(), packed.data() + shape.layers * format.bytes, e,
                 e != nullptr ? e + shape.layers : nullptr},
                format, out);
            return out;
        };
        const auto expected = dots(packed_blocks(*engine, format, dtype, plain), nullptr);
        const auto found = dots(packed_blocks(*engine, format, dtype, scaled, exponents), exponents.data());
        for (std::size_t i = 0; i < found.size(); ++i) {
            const std::size_t h = i / at(elements), l = i / at(shape.layers) % at(shape.layers),
                              m = i % at(shape.layers);
            const auto power = [&](std::size_t layer) {
                return powers[layer] + powers[(1 + h) * at(shape.layers) + layer];
            };
            ASSERT_EQ(found[i], std::ldexp(expected[i], power(l) + power(m))) << h << " " << l << " " << m;
        }
    }
}

TEST_P(TileDots, take_folded_blocks_as_the_products_rounded_once) {
    const DType kept = GetParam().stored;
    if (kept != DType::f32 && kept != DType::f64) GTEST_SKIP() << "folded blocks are f32 or f64";
    const auto engine = backend(2);
    const HeadBlockFormat format = engine->head_products().format(kept, 40, 5);
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32, kept}) {
        std::vector<double> wanted, weights;
        for (int i = 0; i < 200; ++i) wanted.push_back(std::sin(i) * std::pow(2.0, i % 7 - 3));
        for (int j = 0; j < 5; ++j) weights.push_back(0.3 + std::cos(j));
        const StoredBlock block = stored(wanted, dtype), columns = stored(weights, dtype);
        std::vector<double> products;
        for (std::size_t i = 0; i < 200; ++i) products.push_back(0x1p-40 * block.values[i] * columns.values[i % 5]);
        const Buffer rows = to_backend(*engine, block.bytes), row = to_backend(*engine, columns.bytes);
        const Buffer packed = engine->allocate(format.bytes);
        const MatrixRef source{rows.data(), dtype, 40, 5, 40};
        std::byte* const out = packed.data();
        engine->head_products().pack({&source, 1}, format, {&out, 1}, {row.data(), dtype, 1, 5});
        engine->queue().wait();
        const Buffer expected = packed_blocks(*engine, format, kept, {stored(products, kept).bytes});
        EXPECT_EQ(from_backend(*engine, packed.data(), format.bytes),
                  from_backend(*engine, expected.data(), format.bytes))
            << name_of(dtype) << " in " << name_of(kept);
    }
}

TEST_P(TileDots, take_blocks_of_any_narrower_type_exactly) {
    // A checkpoint whose layers have different types keeps all in the widest: what is stored is exact in it, so that
    // the packed bytes are those of the same numbers stored in that type.
    const DType kept = GetParam().stored;
    if (kept != DType::f32 && kept != DType::f64) GTEST_SKIP() << "the narrowest type";
    const auto engine = backend(2);
    const HeadBlockFormat format = engine->head_products().format(kept, 40, 5);
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
        std::vector<double> wanted;
        for (int i = 0; i < 200; ++i) wanted.push_back(std::sin(i) * std::pow(2.0, i % 7 - 3));
        wanted[3] = 0x1p-24;  // subnormal in f16
        const StoredBlock narrow = stored(wanted, dtype), wide = stored(narrow.values, kept);
        ASSERT_EQ(narrow.values, wide.values) << name_of(dtype) << " in " << name_of(kept);
        const Buffer packed = packed_blocks(*engine, format, dtype, {narrow.bytes});
        const Buffer expected = packed_blocks(*engine, format, kept, {wide.bytes});
        EXPECT_EQ(from_backend(*engine, packed.data(), format.bytes),
                  from_backend(*engine, expected.data(), format.bytes))
            << name_of(dtype) << " in " << name_of(kept);
    }
}

}  // namespace geom::test
