#include "derivations/cosines.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "derivations/statistics.hpp"
#include "support/error_of.hpp"

using namespace geom;
using geom::test::error_of;

namespace {

/// gram of operators that are vectors: operators[layer][head].
std::vector<double> gram_of(const std::vector<std::vector<std::vector<double>>>& operators) {
    std::vector<double> gram;
    for (const auto& left : operators) {
        for (const auto& right : operators) {
            for (std::size_t h = 0; h < left.size(); ++h) {
                double sum = 0.0;
                for (std::size_t i = 0; i < left[h].size(); ++i) sum += left[h][i] * right[h][i];
                gram.push_back(sum);
            }
        }
    }
    return gram;
}

// Both variables of the group, row by row as cosines_with() gives them.
struct Cosines {
    std::int64_t layers = 0, heads = 0;
    std::vector<double> cos, cos_mean;
};

Cosines cosines_of(std::span<const double> gram, std::int64_t layers, std::int64_t heads) {
    Cosines all{layers, heads, {}, {}};
    std::vector<double> norms;
    for (std::int64_t l = 0; l < layers; ++l) {
        for (std::int64_t h = 0; h < heads; ++h)
            norms.push_back(std::sqrt(gram[static_cast<std::size_t>((l * layers + l) * heads + h)]));
    }
    for (std::int64_t l = 0; l < layers; ++l) {
        const auto row =
            gram.subspan(static_cast<std::size_t>(l * layers * heads), static_cast<std::size_t>(layers * heads));
        const CosineRow of_row = cosines_with(l, row, norms, heads);
        all.cos.insert(all.cos.end(), of_row.cos.begin(), of_row.cos.end());
        all.cos_mean.insert(all.cos_mean.end(), of_row.mean.begin(), of_row.mean.end());
    }
    return all;
}

double cosine(const Cosines& c, std::int64_t l, std::int64_t m, std::int64_t h) {
    return c.cos[static_cast<std::size_t>((l * c.layers + m) * c.heads + h)];
}

double mean(const Cosines& c, std::int64_t l, std::int64_t m) {
    return c.cos_mean[static_cast<std::size_t>(l * c.layers + m)];
}

TEST(Cosines, cosines_are_those_of_the_operators) {
    // Head 0: 0, 60 and 90 degrees from the first layer; head 1: opposite, then alike.
    const double s = std::sqrt(3.0) / 2;
    const auto gram = gram_of({{{2, 0}, {1, 1}}, {{1.5, 3 * s}, {-3, -3}}, {{0, 5}, {7, 7}}});
    const Cosines c = cosines_of(gram, 3, 2);
    EXPECT_NEAR(cosine(c, 0, 1, 0), 0.5, 1e-15);
    EXPECT_NEAR(cosine(c, 0, 2, 0), 0.0, 1e-15);
    EXPECT_NEAR(cosine(c, 1, 2, 0), s, 1e-15);
    EXPECT_NEAR(cosine(c, 0, 1, 1), -1.0, 1e-15);
    EXPECT_NEAR(cosine(c, 0, 2, 1), 1.0, 1e-15);
    for (std::int64_t l = 0; l < 3; ++l) {
        for (std::int64_t h = 0; h < 2; ++h) {
            EXPECT_NEAR(cosine(c, l, l, h), 1.0, 1e-15);
            for (std::int64_t m = 0; m < 3; ++m) EXPECT_EQ(cosine(c, l, m, h), cosine(c, m, l, h));
        }
        for (std::int64_t m = 0; m < 3; ++m)
            EXPECT_NEAR(mean(c, l, m), (cosine(c, l, m, 0) + cosine(c, l, m, 1)) / 2, 1e-15);
    }
    EXPECT_NEAR(mean_adjacent_cosine(c.cos_mean, c.layers), (mean(c, 0, 1) + mean(c, 1, 2)) / 2, 1e-15);
}

TEST(Cosines, a_zero_operator_has_no_cosine_and_means_leave_it_out) {
    const auto gram = gram_of({{{1, 0}, {1, 1}}, {{0, 0}, {2, 2}}, {{0, 0}, {0, 0}}});
    const Cosines c = cosines_of(gram, 3, 2);
    for (std::int64_t l = 0; l < 3; ++l) {
        EXPECT_TRUE(std::isnan(cosine(c, 1, l, 0)));
        EXPECT_TRUE(std::isnan(cosine(c, l, 1, 0)));
        EXPECT_TRUE(std::isnan(mean(c, 2, l))) << "both heads of layer 2 are zero";
    }
    EXPECT_NEAR(mean(c, 0, 1), 1.0, 1e-15) << "head 1 alone";
    EXPECT_NEAR(mean_adjacent_cosine(c.cos_mean, c.layers), 1.0, 1e-15) << "of layers 0 and 1; 1 and 2 have none";
}

TEST(Cosines, a_single_layer_has_a_cosine_with_itself_and_no_pairs) {
    const Cosines c = cosines_of(std::vector<double>{4.0, 0.0}, 1, 2);
    EXPECT_EQ(c.cos[0], 1.0);
    EXPECT_TRUE(std::isnan(c.cos[1]));
    EXPECT_EQ(c.cos_mean, std::vector<double>{1.0});
    EXPECT_TRUE(std::isnan(mean_adjacent_cosine(c.cos_mean, c.layers)));
}

TEST(Cosines, huge_and_small_norms_neither_overflow_nor_vanish) {
    // Squared norms near the largest and the smallest normal number: their product is neither representable.
    for (const double size : {1e154, 1e100, 1e-100, 1e-153}) {
        const auto gram = gram_of({{{size, 0}}, {{0.6 * size, 0.8 * size}}});
        EXPECT_NEAR(cosine(cosines_of(gram, 2, 1), 0, 1, 0), 0.6, 1e-14) << size;
    }
    const auto mixed = gram_of({{{1e150, 0}}, {{0.6e-150, 0.8e-150}}});
    EXPECT_NEAR(cosine(cosines_of(mixed, 2, 1), 0, 1, 0), 0.6, 1e-14);
}

TEST(Cosines, a_gram_of_another_size_is_a_bug) {
    const std::vector<double> row(6), norms(4);
    EXPECT_NE(error_of([&] { cosines_with(0, row, norms, 2); }, ExitCode::internal), "");
    EXPECT_NE(error_of([&] { cosines_with(3, row, row, 2); }, ExitCode::internal), "") << "there is no layer 3";
    EXPECT_NE(error_of([&] { cosines_with(0, row, row, 4); }, ExitCode::internal), "");
    EXPECT_NE(error_of([&] { cosines_with(0, {}, {}, 0); }, ExitCode::internal), "");
}

TEST(Cosines, of_a_layer_with_all_others_leave_its_own_out) {
    const std::vector<double> cos_mean{1.0, 0.5, 0.1, 0.5, 1.0, not_a_number, 0.1, not_a_number, 1.0};
    EXPECT_EQ(mean_cosine_with_others(cos_mean, 3), (std::vector<double>{0.3, 0.5, 0.1}));
    EXPECT_TRUE(std::isnan(mean_cosine_with_others(std::vector<double>{1.0}, 1)[0]));
}

TEST(Cosines, with_the_anchor_say_how_much_of_a_layer_it_explains) {
    // Against an anchor of length 2: half of it, something orthogonal, itself, nothing at all.
    const auto gram = gram_of({{{1, 0}}, {{0, 3}}, {{2, 0}}, {{0, 0}}});
    const Cosines c = cosines_of(gram, 4, 1);
    const auto row = std::span(gram).subspan(8, 4);
    const AnchorRow relation = relation_to_anchor(2, row, {{c.cos.begin() + 8, c.cos.begin() + 12}, {}}, 1);
    EXPECT_EQ(relation.scale, (std::vector<double>{0.5, 0.0, 1.0, 0.0}));
    EXPECT_EQ(std::vector(relation.residual.begin(), relation.residual.begin() + 3),
              (std::vector<double>{0.0, 1.0, 0.0}));
    EXPECT_TRUE(std::isnan(relation.residual[3])) << "a zero operator has no cosine";
    const AnchorRow to_nothing =
        relation_to_anchor(3, std::vector<double>(4), {{c.cos.begin() + 12, c.cos.end()}, {}}, 1);
    for (const double scale : to_nothing.scale) EXPECT_TRUE(std::isnan(scale));
}

TEST(Cosines, become_verdicts_above_their_bounds) {
    EXPECT_EQ(verdict_of(0.91), "STRONG");
    EXPECT_EQ(verdict_of(0.9), "MEDIUM");
    EXPECT_EQ(verdict_of(0.5), "WEAK");
    EXPECT_EQ(verdict_of(0.1), "REJECTED");
    EXPECT_EQ(verdict_of(-1.0), "REJECTED");
    EXPECT_EQ(verdict_of(not_a_number), "");
}

TEST(Statistics, leave_nan_out) {
    const std::vector<double> values{3.0, not_a_number, 1.0, 2.0, 5.0};
    EXPECT_EQ(mean_of(values), 2.75);
    EXPECT_EQ(quantile_of(values, 0.0), 1.0);
    EXPECT_EQ(quantile_of(values, 0.25), 1.75);
    EXPECT_EQ(quantile_of(values, 0.5), 2.5);
    EXPECT_EQ(quantile_of(values, 1.0), 5.0);
    EXPECT_EQ(moments_of(std::vector<double>{1.0, 3.0, not_a_number}).mean, 2.0);
    EXPECT_EQ(moments_of(std::vector<double>{1.0, 3.0, not_a_number}).sd, 1.0);
    EXPECT_TRUE(std::isnan(moments_of(std::vector<double>{1.0}).sd));
    EXPECT_TRUE(std::isnan(quantile_of({}, 0.5)));
}

}  // namespace
