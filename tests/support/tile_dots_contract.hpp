// HeadProducts::tile_dots and pack, tested once for every backend: a program includes this once and says which
// paths it has with INSTANTIATE_TEST_SUITE_P.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "core/dtype.hpp"
#include "kernels/backend.hpp"
#include "reference/tile_dots.hpp"
#include "support/backend_memory.hpp"

namespace geom::test {

struct Shape {
    std::int64_t layers, heads, head_dim, hidden;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& s) {
    return out << "L" << s.layers << " heads " << s.heads << " hd" << s.head_dim << " D" << s.hidden;
}

/// A way to keep blocks: of which stored type, on which backend.
struct Path {
    DType stored;
    const char* name;
    std::unique_ptr<Backend> (*make)(int threads);  ///< null pointer where this machine cannot
    int most_threads = 8;                           ///< with which it is worth comparing
};

inline std::string path_name(const ::testing::TestParamInfo<Path>& test) {
    std::string name = fmt::format("{}_of_{}", test.param.name, name_of(test.param.stored));
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

// Unit roundoff of what products accumulate in.
inline double roundoff(const Path& path) { return path.stored == DType::f64 ? 0x1p-53 : 0x1p-24; }

/// A block's stored elements, and the numbers they stand for.
struct StoredBlock {
    std::vector<std::byte> bytes;
    reference::Block values;
};

inline StoredBlock stored(const std::vector<double>& wanted, DType dtype) {
    StoredBlock block{std::vector<std::byte>(wanted.size() * static_cast<std::size_t>(size_of(dtype))), {}};
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        std::byte* at = block.bytes.data() + i * static_cast<std::size_t>(size_of(dtype));
        const auto put = [&](auto bits, double value) {
            std::memcpy(at, &bits, sizeof bits);
            block.values.push_back(value);
        };
        const auto single = static_cast<float>(wanted[i]);
        switch (dtype) {
            case DType::bf16:
                put(f32_to_bf16(single), bf16_to_f32(f32_to_bf16(single)));
                break;
            case DType::f16:
                put(f64_to_f16(wanted[i]), f16_to_f32(f64_to_f16(wanted[i])));
                break;
            case DType::f32:
                put(single, single);
                break;
            default:
                put(wanted[i], wanted[i]);
        }
    }
    return block;
}

/// Blocks of stored elements, packed one after the other in the backend's memory.
inline Buffer packed_blocks(Backend& backend, const HeadBlockFormat& format, DType dtype,
                            const std::vector<std::vector<std::byte>>& blocks) {
    Buffer packed = backend.allocate(std::ssize(blocks) * format.bytes);
    std::vector<Buffer> held;
    std::vector<MatrixRef> rows;
    std::vector<std::byte*> out;
    for (const auto& bytes : blocks) {
        out.push_back(packed.data() + std::ssize(rows) * format.bytes);
        held.push_back(to_backend(backend, bytes));
        rows.push_back({held.back().data(), dtype, format.head_dim, format.hidden});
    }
    backend.head_products().pack(rows, format, out);
    backend.queue().wait();
    return packed;
}

/// The blocks of a group as stored, and the same for the reference.
class StoredGroup {
public:
    /// Entries of variance 1/D, to which every layer's share what they have in common.
    StoredGroup(const Shape& shape, DType dtype, unsigned seed = 1) : shape_(shape), dtype_(dtype), random_(seed) {
        reference_.head_dim = shape.head_dim;
        reference_.hidden = shape.hidden;
        const auto common = drawn();
        for (std::int64_t l = 0; l < shape.layers; ++l) add(reference_.k, mixed(common));
        for (std::int64_t h = 0; h < shape.heads; ++h) {
            const auto head = drawn();
            reference_.q.emplace_back();
            for (std::int64_t l = 0; l < shape.layers; ++l) add(reference_.q.back(), mixed(head));
        }
    }

    void set_zero(std::int64_t block) {
        auto& bytes = blocks_[static_cast<std::size_t>(block)];
        std::fill(bytes.begin(), bytes.end(), std::byte{0});
        auto& values = block < shape_.layers ? reference_.k[static_cast<std::size_t>(block)]
                                             : reference_.q[static_cast<std::size_t>(block / shape_.layers - 1)]
                                                           [static_cast<std::size_t>(block % shape_.layers)];
        std::fill(values.begin(), values.end(), 0.0);
    }

    std::vector<double> tile_dots(Backend& backend, std::string* path = nullptr) const {
        const HeadBlockFormat format = backend.head_products().format(dtype_, shape_.head_dim, shape_.hidden);
        if (path != nullptr) *path = format.path;
        const Buffer packed = packed_blocks(backend, format, dtype_, blocks_);
        std::vector<double> gram(static_cast<std::size_t>(shape_.heads * shape_.layers * shape_.layers), -1.0);
        backend.head_products().tile_dots(
            {shape_.layers, shape_.heads, packed.data(), packed.data() + shape_.layers * format.bytes}, format, gram);
        return gram;
    }

    const reference::Group& reference() const { return reference_; }

private:
    std::vector<double> drawn() {
        std::normal_distribution<double> normal(0.0, 1.0 / std::sqrt(static_cast<double>(shape_.hidden)));
        std::vector<double> values(static_cast<std::size_t>(shape_.head_dim * shape_.hidden));
        for (double& value : values) value = normal(random_);
        return values;
    }
    std::vector<double> mixed(const std::vector<double>& common) {
        std::vector<double> values = drawn();
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.8 * common[i] + 0.6 * values[i];
        return values;
    }
    void add(std::vector<reference::Block>& to, const std::vector<double>& wanted) {
        StoredBlock block = stored(wanted, dtype_);
        blocks_.push_back(std::move(block.bytes));
        to.push_back(std::move(block.values));
    }

    Shape shape_;
    DType dtype_;
    std::mt19937 random_;
    reference::Group reference_;
    std::vector<std::vector<std::byte>> blocks_;  // k[layer], q[head][layer]
};

class TileDots : public ::testing::TestWithParam<Path> {
protected:
    void SetUp() override {
        if (!backend(1)) GTEST_SKIP() << "this machine has no " << GetParam().name;
    }
    static std::unique_ptr<Backend> backend(int threads) { return GetParam().make(threads); }
};

// In the accumulator's unit roundoff u, a product of two rows of D elements is off by at most D u |a| |b|, and by about
// sqrt(D) u |a| |b| / 4 when signs are random; summing hd^2 of them averages more of it away. 2 + sqrt(D) / 16 of u is
// a few times what is left: it finds a lost column and a lost bit, which the bound for the worst case, D u, would not.
inline double allowed(const Path& path, std::int64_t hidden) {
    return roundoff(path) * (2.0 + std::sqrt(static_cast<double>(hidden)) / 16.0);
}

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
        for (std::size_t i = 0; i < gram.size(); ++i) {
            const std::size_t head = i / (layers * layers), l = i / layers % layers, m = i % layers;
            const double size = reference::operator_size(group.reference(), head, l) *
                                reference::operator_size(group.reference(), head, m);
            const double error = std::abs(gram[i] - expected[i]) / size;
            worst = std::max(worst, error);
            worst_of_allowed = std::max(worst_of_allowed, error / allowed(GetParam(), shape.hidden));
            ASSERT_LE(error, allowed(GetParam(), shape.hidden))
                << shape << ", head " << head << ", layers " << l << ", " << m;
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

TEST_P(TileDots, take_blocks_of_any_narrower_type_exactly) {
    // A checkpoint whose layers have different types keeps all in the widest: what is stored is exact in it.
    const DType kept = GetParam().stored;
    if (kept != DType::f32 && kept != DType::f64) GTEST_SKIP() << "the narrowest type";
    const auto engine = backend(2);
    const HeadBlockFormat format = engine->head_products().format(kept, 8, 5);
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
        std::vector<double> wanted;
        for (int i = 0; i < 40; ++i) wanted.push_back(std::sin(i) * std::pow(2.0, i % 7 - 3));
        wanted[3] = 0x1p-24;  // subnormal in f16
        const StoredBlock block = stored(wanted, dtype);
        const Buffer packed = packed_blocks(*engine, format, dtype, {block.bytes});
        const std::vector<std::byte> bytes = from_backend(*engine, packed.data(), format.bytes);
        for (std::size_t i = 0; i < 40; ++i) {
            const double value = kept == DType::f64
                                     ? reinterpret_cast<const double*>(bytes.data())[i]
                                     : static_cast<double>(reinterpret_cast<const float*>(bytes.data())[i]);
            EXPECT_EQ(value, block.values[i]) << name_of(dtype) << " in " << name_of(kept);
        }
    }
}

}  // namespace geom::test
