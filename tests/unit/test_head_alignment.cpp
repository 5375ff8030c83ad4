// The search for heads against all orders that grouped-query attention allows.
#include "measures/head_alignment.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "derivations/small_matrix.hpp"
#include "kernels/weight_vectors.hpp"

namespace geom {
namespace {

using Order = std::vector<std::int64_t>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Sizes {
    std::int64_t heads, kv_heads, head_dim;
};

/// Nothing relates the layers.
HeadSimilarities random_similarities(const Sizes& sizes, bool phases, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    HeadSimilarities of{sizes.heads, sizes.kv_heads, sizes.head_dim, {}, {}, {}, {}, {}};
    of.phases.assign(at(of.planes()), phases);
    for (std::int64_t i = 0; i < of.heads * of.heads * of.planes(); ++i)
        of.q.emplace_back(normal(random), normal(random));
    for (std::int64_t i = 0; i < of.kv_heads * of.kv_heads * of.planes(); ++i)
        of.k.emplace_back(normal(random), normal(random));
    const auto fill = [&](std::vector<float>& blocks, std::int64_t width) {
        for (std::int64_t i = 0; i < width * width; ++i) blocks.push_back(static_cast<float>(normal(random)));
    };
    fill(of.o, of.heads * of.head_dim);
    fill(of.v, of.kv_heads * of.head_dim);
    return of;
}

/// What an order is worth with the best turns and rotations: sizes of planes, or of their real parts, and nuclear
/// norms.
double worth_of(const HeadSimilarities& of, const Order& head_of) {
    const std::int64_t group = of.group(), hd = of.head_dim;
    double worth = 0.0;
    for (std::int64_t c = 0; c < of.kv_heads; ++c) {
        const std::int64_t other = head_of[at(c * group)] / group;
        for (std::int64_t p = 0; p < of.planes(); ++p) {
            std::complex<double> z = of.k[at((c * of.kv_heads + other) * of.planes() + p)];
            for (std::int64_t h = c * group; h < (c + 1) * group; ++h)
                z += of.q[at((h * of.heads + head_of[at(h)]) * of.planes() + p)];
            worth += of.phases[at(p)] ? std::abs(z) : std::abs(z.real());
        }
        std::vector<double> matrix;
        for (std::int64_t r = 0; r < hd; ++r) {
            for (std::int64_t s = 0; s < hd; ++s) {
                double sum = double{of.v[at((c * hd + r) * of.kv_heads * hd + other * hd + s)]};
                for (std::int64_t h = c * group; h < (c + 1) * group; ++h)
                    sum += double{of.o[at((h * hd + r) * of.heads * hd + head_of[at(h)] * hd + s)]};
                matrix.push_back(sum);
            }
        }
        for (const double value : singular_values_of(matrix, hd, hd)) worth += value;
    }
    return worth;
}

Order identity(std::int64_t n) {
    Order order(at(n));
    std::iota(order.begin(), order.end(), 0);
    return order;
}

/// Every order that keeps groups together: KV! (G!)^KV.
std::vector<Order> all_orders(std::int64_t heads, std::int64_t group) {
    std::vector<Order> all;
    Order of_groups = identity(heads / group);
    do {
        std::vector<Order> partial{{}};
        for (const std::int64_t other : of_groups) {
            std::vector<Order> longer;
            for (const Order& begun : partial) {
                Order inside = identity(group);
                do {
                    longer.push_back(begun);
                    for (const std::int64_t i : inside) longer.back().push_back(other * group + i);
                } while (std::next_permutation(inside.begin(), inside.end()));
            }
            partial = std::move(longer);
        }
        all.insert(all.end(), partial.begin(), partial.end());
    } while (std::next_permutation(of_groups.begin(), of_groups.end()));
    return all;
}

/// Adds to b's heads what a's are, in this order: strength times the identity, turned by a quarter in planes with
/// phases.
void plant(HeadSimilarities& of, const Order& head_of, double strength) {
    const std::int64_t group = of.group(), hd = of.head_dim;
    const auto add = [&](std::vector<float>& blocks, std::int64_t count, std::int64_t i, std::int64_t j) {
        for (std::int64_t r = 0; r < hd; ++r)
            blocks[at((i * hd + r) * count * hd + j * hd + (r + 1) % hd)] += static_cast<float>(strength);
    };
    for (std::int64_t h = 0; h < of.heads; ++h) {
        const std::int64_t to = head_of[at(h)];
        add(of.o, of.heads, h, to);
        if (h % group == 0) add(of.v, of.kv_heads, h / group, to / group);
        for (std::int64_t p = 0; p < of.planes(); ++p) {
            const std::complex<double> z = of.phases[at(p)] ? std::complex(0.0, strength) : -strength;
            of.q[at((h * of.heads + to) * of.planes() + p)] += z;
            if (h % group == 0) of.k[at((h / group * of.kv_heads + to / group) * of.planes() + p)] += z;
        }
    }
}

class HeadAlignmentOf : public ::testing::TestWithParam<bool> {
protected:
    Workers workers_{2};

    HeadAlignment align(const HeadSimilarities& of, std::int64_t at_once = 64) {
        return align_heads(
            of,
            [&](std::span<double> matrices, std::span<double> norms) {
                polar_factors(workers_, matrices, of.head_dim, norms);
            },
            at_once);
    }
};

TEST_P(HeadAlignmentOf, unrelated_heads_is_no_worse_than_their_own_order_and_its_value_is_true) {
    for (const Sizes& sizes : std::vector<Sizes>{{4, 2, 4}, {6, 2, 4}, {3, 3, 6}, {8, 1, 2}, {8, 2, 4}}) {
        for (unsigned seed = 1; seed <= 10; ++seed) {
            const HeadSimilarities of = random_similarities(sizes, GetParam(), seed);
            const HeadAlignment found = align(of);
            EXPECT_NEAR(found.value, worth_of(of, found.head_of), 1e-10);
            EXPECT_GE(found.value, worth_of(of, identity(sizes.heads)) - 1e-10);
            EXPECT_EQ(align(of, 1).head_of, found.head_of);
        }
    }
}

TEST_P(HeadAlignmentOf, related_heads_is_the_best_of_all_orders) {
    for (const Sizes& sizes : std::vector<Sizes>{{4, 2, 4}, {6, 2, 4}, {3, 3, 6}, {4, 1, 2}}) {
        const auto orders = all_orders(sizes.heads, sizes.heads / sizes.kv_heads);
        for (unsigned seed = 1; seed <= 10; ++seed) {
            HeadSimilarities of = random_similarities(sizes, GetParam(), seed);
            plant(of, orders[seed * 7 % orders.size()], 3.0);
            const HeadAlignment found = align(of);
            double best = 0.0;
            for (const Order& order : orders) best = std::max(best, worth_of(of, order));
            EXPECT_NEAR(found.value, best, 1e-9) << sizes.heads << " heads, seed " << seed;
        }
    }
}

TEST_P(HeadAlignmentOf, heads_that_were_reordered_finds_the_order) {
    HeadSimilarities of = random_similarities({16, 4, 8}, GetParam(), 3);
    const Order planted{9, 11, 8, 10, 5, 6, 7, 4, 15, 14, 12, 13, 0, 1, 3, 2};
    plant(of, planted, 20.0);
    EXPECT_EQ(align(of).head_of, planted);
}

INSTANTIATE_TEST_SUITE_P(Turns, HeadAlignmentOf, ::testing::Bool(),
                         [](const auto& of) { return of.param ? "phases" : "signs"; });

TEST(BestTurn, makes_the_real_part_largest_and_leaves_zero_alone) {
    EXPECT_NEAR(std::abs(best_turn({3.0, -4.0}, true) * std::complex(3.0, -4.0) - 5.0), 0.0, 1e-15);
    EXPECT_EQ(best_turn({-3.0, 4.0}, false), -1.0);
    EXPECT_EQ(best_turn(0.0, true), 1.0);
    EXPECT_EQ(best_turn({0.0, 2.0}, false), 1.0);
}

}  // namespace
}  // namespace geom
