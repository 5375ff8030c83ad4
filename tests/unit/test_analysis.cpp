#include "measures/analysis.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

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

double cosine(const Cosines& c, std::int64_t l, std::int64_t m, std::int64_t h) {
    return c.cos[static_cast<std::size_t>((l * c.layers + m) * c.heads + h)];
}

double mean(const Cosines& c, std::int64_t l, std::int64_t m) {
    return c.cos_mean[static_cast<std::size_t>(l * c.layers + m)];
}

TEST(Analysis, cosines_are_those_of_the_operators) {
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
    EXPECT_NEAR(mean_adjacent_cosine(c), (mean(c, 0, 1) + mean(c, 1, 2)) / 2, 1e-15);
    EXPECT_NEAR(mean_pair_cosine(c), (mean(c, 0, 1) + mean(c, 0, 2) + mean(c, 1, 2)) / 3, 1e-15);
}

TEST(Analysis, a_zero_operator_has_no_cosine_and_means_leave_it_out) {
    const auto gram = gram_of({{{1, 0}, {1, 1}}, {{0, 0}, {2, 2}}, {{0, 0}, {0, 0}}});
    const Cosines c = cosines_of(gram, 3, 2);
    for (std::int64_t l = 0; l < 3; ++l) {
        EXPECT_TRUE(std::isnan(cosine(c, 1, l, 0)));
        EXPECT_TRUE(std::isnan(cosine(c, l, 1, 0)));
        EXPECT_TRUE(std::isnan(mean(c, 2, l))) << "both heads of layer 2 are zero";
    }
    EXPECT_NEAR(mean(c, 0, 1), 1.0, 1e-15) << "head 1 alone";
    EXPECT_NEAR(mean_adjacent_cosine(c), 1.0, 1e-15) << "of layers 0 and 1; 1 and 2 have none";
    EXPECT_NEAR(mean_pair_cosine(c), 1.0, 1e-15);
}

TEST(Analysis, a_single_layer_has_a_cosine_with_itself_and_no_pairs) {
    const Cosines c = cosines_of(std::vector<double>{4.0, 0.0}, 1, 2);
    EXPECT_EQ(c.cos[0], 1.0);
    EXPECT_TRUE(std::isnan(c.cos[1]));
    EXPECT_EQ(c.cos_mean, std::vector<double>{1.0});
    EXPECT_TRUE(std::isnan(mean_adjacent_cosine(c)));
    EXPECT_TRUE(std::isnan(mean_pair_cosine(c)));
}

TEST(Analysis, huge_and_small_norms_neither_overflow_nor_vanish) {
    // Squared norms near the largest and the smallest normal number: their product is neither representable.
    for (const double size : {1e154, 1e100, 1e-100, 1e-153}) {
        const auto gram = gram_of({{{size, 0}}, {{0.6 * size, 0.8 * size}}});
        EXPECT_NEAR(cosine(cosines_of(gram, 2, 1), 0, 1, 0), 0.6, 1e-14) << size;
    }
    const auto mixed = gram_of({{{1e150, 0}}, {{0.6e-150, 0.8e-150}}});
    EXPECT_NEAR(cosine(cosines_of(mixed, 2, 1), 0, 1, 0), 0.6, 1e-14);
}

TEST(Analysis, a_gram_of_another_size_is_a_bug) {
    EXPECT_NE(error_of([] { cosines_of(std::vector<double>(7), 2, 2); }, ExitCode::internal), "");
}

TEST(Analysis, records_hold_the_same_numbers) {
    Schema schema;
    schema.scales = {{"", "layer", 2, {}, "", {}}, {"", "layer_b", 2, {}, "", {}}, {"", "head", 3, {}, "", {}}};
    schema.variables = analysis_variables();
    std::vector<double> gram;
    for (int i = 0; i < 12; ++i) gram.push_back(1.0 + i % 5);
    const Cosines c = cosines_of(gram, 2, 3);
    for (const Slab& slab : to_slabs(c, schema)) {
        EXPECT_NO_THROW(check_slab(schema, slab));
        const std::string path = schema.variables[static_cast<std::size_t>(slab.variable)].path();
        const std::vector<double>& values = path == "analysis/cos" ? c.cos : c.cos_mean;
        ASSERT_EQ(slab.data.size(), values.size() * sizeof(double)) << path;
        EXPECT_EQ(std::memcmp(slab.data.data(), values.data(), slab.data.size()), 0) << path;
    }
}

}  // namespace
