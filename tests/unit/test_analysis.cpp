#include "derivations/analysis.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

using namespace geom;
using geom::test::error_of;
using geom::test::TemporaryFolder;

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
    EXPECT_NEAR(mean_adjacent_cosine(c.cos_mean, c.layers), (mean(c, 0, 1) + mean(c, 1, 2)) / 2, 1e-15);
    EXPECT_NEAR(mean_pair_cosine(c.cos_mean, c.layers), (mean(c, 0, 1) + mean(c, 0, 2) + mean(c, 1, 2)) / 3, 1e-15);
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
    EXPECT_NEAR(mean_adjacent_cosine(c.cos_mean, c.layers), 1.0, 1e-15) << "of layers 0 and 1; 1 and 2 have none";
    EXPECT_NEAR(mean_pair_cosine(c.cos_mean, c.layers), 1.0, 1e-15);
}

TEST(Analysis, a_single_layer_has_a_cosine_with_itself_and_no_pairs) {
    const Cosines c = cosines_of(std::vector<double>{4.0, 0.0}, 1, 2);
    EXPECT_EQ(c.cos[0], 1.0);
    EXPECT_TRUE(std::isnan(c.cos[1]));
    EXPECT_EQ(c.cos_mean, std::vector<double>{1.0});
    EXPECT_TRUE(std::isnan(mean_adjacent_cosine(c.cos_mean, c.layers)));
    EXPECT_TRUE(std::isnan(mean_pair_cosine(c.cos_mean, c.layers)));
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
    const std::vector<double> row(6), norms(4);
    EXPECT_NE(error_of([&] { cosines_with(0, row, norms, 2); }, ExitCode::internal), "");
    EXPECT_NE(error_of([&] { cosines_with(3, row, row, 2); }, ExitCode::internal), "") << "there is no layer 3";
    EXPECT_NE(error_of([&] { cosines_with(0, row, row, 4); }, ExitCode::internal), "");
    EXPECT_NE(error_of([&] { cosines_with(0, {}, {}, 0); }, ExitCode::internal), "");
}

// Layers 4 and 6 of a model whose layer 5 has no attention, three heads.
Schema with_gram() {
    Schema schema;
    schema.scales = {{"", "layer", 3, {}, "", {4, 5, 6}},
                     {"", "layer_b", 3, {}, "", {4, 5, 6}},
                     {"gram", "layer", 2, {}, "decoder layer", {4, 6}},
                     {"gram", "layer_b", 2, {}, "decoder layer, second of a pair", {4, 6}},
                     {"", "head", 3, {}, "", {}}};
    schema.variables = {{"gram", "gram", {"layer", "layer_b", "head"}, ValueType::f64, "", "1", ""}};
    return schema;
}

TEST(Analysis, is_declared_for_the_layers_of_gram) {
    const Schema schema = with_derivations(with_gram());
    const auto shape_of = [&](const char* path) {
        return schema.shape_of(schema.variables[static_cast<std::size_t>(schema.index_of(path))]);
    };
    EXPECT_EQ(shape_of("analysis/cos"), (std::vector<std::int64_t>{2, 2, 3}));
    EXPECT_EQ(shape_of("analysis/cos_mean"), (std::vector<std::int64_t>{2, 2}));
    const Variable& cos = schema.variables[static_cast<std::size_t>(schema.index_of("analysis/cos"))];
    EXPECT_EQ(schema.scale_of(cos, "layer").path(), "analysis/layer");
    EXPECT_EQ(schema.scale_of(cos, "layer_b").values, (std::vector<std::int32_t>{4, 6}));
    EXPECT_EQ(schema.scale_of(cos, "head").path(), "head");
}

TEST(Analysis, declares_nothing_when_there_is_no_gram) {
    Schema measured = with_gram();
    measured.variables[0] = {"heads", "fro_sq", {"layer", "head"}, ValueType::f64, "", "1", ""};
    const Schema schema = with_derivations(measured);
    EXPECT_EQ(schema.scales, measured.scales);
    ASSERT_EQ(schema.variables.size(), 1U);
    EXPECT_EQ(schema.variables[0].path(), "heads/fro_sq");
    EXPECT_TRUE(analysis_derivation().declare(Schema()).variables.empty());
    EXPECT_TRUE(analysis_derivation().declare(Schema()).scales.empty());
}

TEST(Analysis, of_a_file_is_every_element_once_with_the_same_numbers) {
    const TemporaryFolder folder;
    const auto file = folder / "result.h5";
    const Schema schema = with_derivations(with_gram());
    const auto gram = gram_of({{{2, 0}, {1, 1}, {0, 0}}, {{1.5, 2}, {-3, -3}, {1, 0}}});
    create_skeleton(file, schema, {});
    append(file, schema, {whole_slab(schema, "gram/gram", gram)}, {});
    const Cosines wanted = cosines_of(gram, 2, 3);
    std::vector<std::vector<double>> found{std::vector<double>(12, 42.0), std::vector<double>(4, 42.0)};
    std::int64_t elements = 0;
    analysis_derivation().compute(ResultReader(file, true), schema, [&](const Slab& slab) {
        EXPECT_NO_THROW(check_slab(schema, slab));
        const bool cos = slab.variable == schema.index_of("analysis/cos");
        ASSERT_TRUE(cos || slab.variable == schema.index_of("analysis/cos_mean"));
        const std::int64_t row = cos ? 6 : 2;  // slabs are rows: one layer against all
        ASSERT_EQ(slab.elements(), row);
        std::memcpy(found[cos ? 0 : 1].data() + slab.start[0] * row, slab.data.data(), slab.data.size());
        elements += slab.elements();
    });
    EXPECT_EQ(elements, 12 + 4);
    EXPECT_EQ(std::memcmp(found[0].data(), wanted.cos.data(), 12 * sizeof(double)), 0);
    EXPECT_EQ(std::memcmp(found[1].data(), wanted.cos_mean.data(), 4 * sizeof(double)), 0);
}

}  // namespace
