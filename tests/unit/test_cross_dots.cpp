#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "kernels/cpu/tile_dots.hpp"
#include "support/stored_group.hpp"

namespace geom::test {
namespace {

struct OfIsa {
    Isa isa;
    DType stored;
};

std::string isa_name(const ::testing::TestParamInfo<OfIsa>& test) {
    std::string name = fmt::format("{}_of_{}", name_of(test.param.isa), name_of(test.param.stored));
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

constexpr double unwritten = std::numeric_limits<double>::infinity();

class CrossDots : public ::testing::TestWithParam<OfIsa> {
protected:
    void SetUp() override {
        if (!processor_has(GetParam().isa)) GTEST_SKIP() << "this machine has no " << name_of(GetParam().isa);
        backend_ = make_cpu_backend(2, GetParam().isa);
    }

    /// Blocks in the backend's memory; `heads` neighbours of the group from `first` on.
    struct Placed {
        StoredGroup group;
        Shape shape;
        HeadBlockFormat format;
        Buffer memory;

        KvGroupBlocks heads(std::int64_t first, std::int64_t count) const {
            return {shape.layers, count, memory.data(), memory.data() + (1 + first) * shape.layers * format.bytes};
        }
    };

    Placed placed(const Shape& shape, unsigned seed) {
        StoredGroup group(shape, GetParam().stored, seed);
        const HeadBlockFormat format =
            cpu::head_block_format(GetParam().stored, shape.head_dim, shape.hidden, GetParam().isa);
        Buffer memory = group.packed(*backend_, format);
        return {std::move(group), shape, format, std::move(memory)};
    }

    /// What is computed of pairs of heads: those of `left` against those of `right`, place as cross_dots has it.
    static std::vector<double> crossed(const Placed& of, const KvGroupBlocks& left, const KvGroupBlocks& right,
                                       std::int64_t place, int threads = 2) {
        Workers workers(threads);
        std::vector<double> out(static_cast<std::size_t>(left.heads * right.heads * left.layers * right.layers),
                                unwritten);
        cpu::cross_dots(left, right, place, of.format, out, workers);
        return out;
    }

    /// [l, l'] of left head i and right head j in `out`.
    static std::vector<double> pair_of(const std::vector<double>& out, std::size_t i, std::size_t j,
                                       std::size_t right_heads, std::size_t elements) {
        const auto begin = out.begin() + static_cast<std::ptrdiff_t>((i * right_heads + j) * elements);
        return {begin, begin + static_cast<std::ptrdiff_t>(elements)};
    }

    void expect_close(const std::vector<double>& dots, const Placed& left, std::size_t i, const Placed& right,
                      std::size_t j) const {
        const std::vector<double> expected =
            reference::head_pair(left.group.reference(), i, right.group.reference(), j);
        ASSERT_EQ(dots.size(), expected.size());
        const auto layers = static_cast<std::size_t>(right.shape.layers);
        for (std::size_t at = 0; at < dots.size(); ++at) {
            const double size = reference::operator_size(left.group.reference(), i, at / layers) *
                                reference::operator_size(right.group.reference(), j, at % layers);
            ASSERT_LE(std::abs(dots[at] - expected[at]), allowed(GetParam().stored, left.shape.hidden) * size)
                << left.shape << ", heads " << i << ", " << j << ", layers " << at / layers << ", " << at % layers;
        }
    }

    std::unique_ptr<Backend> backend_;
};

TEST_P(CrossDots, of_two_groups_agree_with_the_definition_for_every_pair_of_heads) {
    for (const Shape& shape : {Shape{1, 1, 8, 8}, Shape{5, 3, 16, 33}, Shape{10, 1, 48, 100}, Shape{4, 1, 128, 48},
                               Shape{3, 2, 24, 1056}, Shape{2, 1, 300, 40}}) {
        Shape other = shape;
        other.heads += 1;
        const Placed left = placed(shape, 1), right = placed(other, 2);
        const std::vector<double> out = crossed(left, left.heads(0, shape.heads), right.heads(0, other.heads), -1);
        const auto right_heads = static_cast<std::size_t>(other.heads);
        const auto elements = static_cast<std::size_t>(shape.layers * shape.layers);
        for (std::size_t i = 0; i < static_cast<std::size_t>(shape.heads); ++i) {
            for (std::size_t j = 0; j < right_heads; ++j)
                expect_close(pair_of(out, i, j, right_heads, elements), left, i, right, j);
        }
    }
}

TEST_P(CrossDots, of_a_group_with_itself_are_those_of_pairs_in_order_and_gram_is_among_them) {
    for (const Shape& shape : {Shape{26, 2, 40, 50}, Shape{3, 2, 72, 1100}}) {
        const Placed group = placed(shape, 3);
        const KvGroupBlocks all = group.heads(0, shape.heads);
        const std::vector<double> out = crossed(group, all, all, 0);
        const std::vector<double> gram = group.group.tile_dots(*backend_);
        const auto heads = static_cast<std::size_t>(shape.heads);
        const auto elements = static_cast<std::size_t>(shape.layers * shape.layers);
        for (std::size_t i = 0; i < heads; ++i) {
            for (std::size_t j = 0; j < heads; ++j) {
                const std::vector<double> dots = pair_of(out, i, j, heads, elements);
                if (j < i) {
                    EXPECT_EQ(dots, std::vector<double>(elements, unwritten)) << "pairs out of order are left alone";
                    continue;
                }
                expect_close(dots, group, i, group, j);
                if (i == j) {
                    EXPECT_EQ(dots, pair_of(gram, i, 0, 1, elements)) << "the bits of gram";
                }
            }
        }
    }
}

TEST_P(CrossDots, of_some_heads_of_a_group_with_all_of_it_are_a_part_of_the_whole) {
    const Shape shape{9, 4, 80, 1100};
    const Placed group = placed(shape, 4);
    const KvGroupBlocks all = group.heads(0, shape.heads);
    const auto elements = static_cast<std::size_t>(4 * shape.layers * shape.layers);
    const std::vector<double> whole = crossed(group, all, all, 0);
    const std::vector<double> part = crossed(group, group.heads(1, 2), all, 1);
    EXPECT_EQ(part, std::vector<double>(whole.begin() + static_cast<std::ptrdiff_t>(elements),
                                        whole.begin() + static_cast<std::ptrdiff_t>(3 * elements)));
}

TEST_P(CrossDots, are_the_same_bits_on_any_number_of_threads) {
    const Shape shape{11, 2, 80, 200};
    const Placed left = placed(shape, 5), right = placed(shape, 6);
    const std::vector<double> out = crossed(left, left.heads(0, 2), right.heads(0, 2), -1, 1);
    EXPECT_EQ(crossed(left, left.heads(0, 2), right.heads(0, 2), -1, 3), out);
}

std::vector<OfIsa> every_isa() {
    std::vector<OfIsa> all;
    for (int i = 0; i < isa_count; ++i) {
        const auto isa = static_cast<Isa>(i);
        all.push_back({isa, DType::bf16});
        if (isa <= Isa::avx512) all.push_back({isa, DType::f32});
    }
    all.push_back({Isa::portable, DType::f64});
    return all;
}

INSTANTIATE_TEST_SUITE_P(Cpu, CrossDots, ::testing::ValuesIn(every_isa()), isa_name);

}  // namespace
}  // namespace geom::test
