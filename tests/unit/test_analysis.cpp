// Group analysis and group match as derived from files: of golden numbers, and of small files with planted answers.
#include "derivations/analysis.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "derivations/directions.hpp"
#include "derivations/legacy_analysis.hpp"
#include "derivations/significance.hpp"
#include "support/derived_file.hpp"
#include "support/error_of.hpp"

using namespace geom;
using namespace geom::test;

namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// --- golden numbers ---

class GoldenAnalysis : public ::testing::TestWithParam<const char*> {
protected:
    GoldenAnalysis()
        : folder_(std::string(GEOM_TEST_DATA) + "/golden/" + GetParam()),
          golden_(folder_ + "/golden.h5", true),
          shape_(shape_of(Checkpoint::open(folder_, "", ""), {0, golden_.shape("gram/gram")[0]}, MeasureSettings())),
          measured_(measured_schema(shape_, {"gram", "heads", "match"})),
          file_(measured_, shape_) {
        file_.put_all(golden_, measured_);
    }

    std::string folder_;
    ResultReader golden_;
    ModelShape shape_;
    Schema measured_;
    DerivedFile file_;
};

TEST_P(GoldenAnalysis, is_reproduced_from_golden_gram_and_heads) {
    file_.derive();
    EXPECT_EQ(file_.derived, std::ssize(with_derivations(measured_).variables) - std::ssize(measured_.variables));
    std::int64_t compared = 0;
    for (const Variable& variable : file_.schema().variables) {
        if (variable.group != "analysis" || !golden_.has(variable.path())) continue;
        const auto found = file_[variable.path()], wanted = golden_.read(variable.path());
        ASSERT_EQ(found.size(), wanted.size()) << variable.path();
        for (std::size_t i = 0; i < found.size(); ++i) {
            ASSERT_EQ(std::isnan(found[i]), std::isnan(wanted[i])) << variable.path() << " " << i;
            if (std::isnan(wanted[i])) continue;
            ASSERT_NEAR(found[i], wanted[i], 1e-6) << variable.path() << " " << i;
        }
        ++compared;
    }
    EXPECT_EQ(compared, 15);
    EXPECT_EQ(file_["top_k_signs"], golden_.read("analysis/top_k_signs"));
}

TEST_P(GoldenAnalysis, matches_heads_as_the_golden_assignment_does) {
    file_.derive();
    EXPECT_EQ(file_["match/assignment"], golden_.read("match/assignment"));
    const auto found = file_["match/matched_cos"], wanted = golden_.read("match/matched_cos");
    for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], wanted[i], 1e-6);
    if (std::string(GetParam()) == "qwen2-tiny") {
        EXPECT_EQ(file_.attributes["verdict"], "MEDIUM");
        EXPECT_EQ(file_.attributes["verdict_matched"], "STRONG") << "layer 4 is reordered";
        EXPECT_NEAR(file_.number("analysis/mean_cos_to_anchor_others_matched"), 0.936257, 1e-5);
    }
}

TEST_P(GoldenAnalysis, with_another_anchor_is_the_row_of_that_layer) {
    file_.derive({1});
    EXPECT_EQ(file_.number("analysis/anchor"), 1.0);
    const std::int64_t layers = shape_.rows();
    const auto cos_mean = file_["analysis/cos_mean"], anchor_cos = file_["analysis/anchor_cos"];
    double others = 0.0;
    for (std::int64_t l = 0; l < layers; ++l) {
        EXPECT_EQ(anchor_cos[at(l)], cos_mean[at(layers + l)]);
        if (l != 1) others += anchor_cos[at(l)] / static_cast<double>(layers - 1);
    }
    EXPECT_NEAR(file_.number("analysis/mean_cos_to_anchor_others"), others, 1e-12);
    EXPECT_NEAR(file_["analysis/angle_mean_cos"][1], 1.0, 1e-6);
    EXPECT_EQ(file_["analysis/sign_agreement"][1], 1.0);
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenAnalysis,
                         ::testing::Values("qwen3-tiny", "qwen2-tiny", "llama-tiny", "qwen3moe-tiny", "qwen3-trained"),
                         [](const auto& test) {
                             std::string name = test.param;
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

// --- planted answers ---

/// `layers` layers of numbers `first`, ..., of H heads in groups.
ModelShape shape_with(std::int64_t layers, std::int64_t heads, std::int64_t group_size, std::int64_t hidden) {
    ModelShape shape;
    shape.heads = heads;
    shape.hidden = hidden;
    for (std::int64_t l = 0; l < layers; ++l) {
        LayerShape layer;
        layer.number = 4 + 2 * l;
        layer.kv_heads = heads / group_size;
        layer.head_dim = 2;
        shape.layers.push_back(layer);
    }
    return shape;
}

/// cross_gram [L, H, L, H] of operators that are vectors: operators[layer][head].
std::vector<double> cross_gram_of(const std::vector<std::vector<std::vector<double>>>& operators) {
    std::vector<double> products;
    for (const auto& layer : operators) {
        for (const auto& left : layer) {
            for (const auto& other : operators) {
                for (const auto& right : other) {
                    double sum = 0.0;
                    for (std::size_t i = 0; i < left.size(); ++i) sum += left[i] * right[i];
                    products.push_back(sum);
                }
            }
        }
    }
    return products;
}

TEST(Match, recovers_a_planted_permutation_with_cosine_1_and_its_inverse) {
    // Layer 4: four heads in two groups. Layer 6: groups traded, heads of the second swapped, one negated.
    const std::vector<std::vector<double>> heads{{1, 0, 0, 0}, {0, 2, 0, 0}, {0, 0, 3, 0}, {0, 0, 0, 4}};
    const std::vector<std::vector<double>> reordered{{0, 0, 5, 0}, {0, 0, 0, 1}, {0, -1, 0, 0}, {7, 0, 0, 0}};
    const ModelShape shape = shape_with(2, 4, 2, 16);
    DerivedFile file(measured_schema(shape, {"match"}), shape);
    file.put("match/cross_gram", cross_gram_of({heads, reordered}));
    file.derive();
    EXPECT_EQ(file["match/assignment"], (std::vector<double>{0, 1, 2, 3, 3, 2, 0, 1, 2, 3, 1, 0, 0, 1, 2, 3}));
    EXPECT_EQ(file["match/matched_cos"], (std::vector<double>{1, 1, 1, 1, 1, -1, 1, 1, 1, 1, -1, 1, 1, 1, 1, 1}));
    const auto null = file["match/matched_null"], excess = file["match/matched_excess"];
    EXPECT_TRUE(std::isnan(null[0]) && std::isnan(excess[3])) << "a layer with itself";
    EXPECT_GT(null[1], 1.0 / 16) << "a maximum, in units of 1/hidden";
    EXPECT_LT(null[1], 2.0 / 16);
    EXPECT_EQ(excess[1], 1.0 - null[1]);
    EXPECT_FALSE(file.has("analysis/z_empirical")) << "that is of cosines of gram";
    EXPECT_EQ(file.number("analysis/mean_cos_to_anchor_others_matched"), 0.5);
}

TEST(Match, counts_zero_operators_as_nothing_and_says_nan) {
    const std::vector<std::vector<double>> some{{1, 0}, {0, 0}}, other{{0, 1}, {1, 0}};
    const ModelShape shape = shape_with(2, 2, 1, 4);
    DerivedFile file(measured_schema(shape, {"match"}), shape);
    file.put("match/cross_gram", cross_gram_of({some, other}));
    file.derive();
    EXPECT_EQ(file["match/assignment"], (std::vector<double>{0, 1, 1, 0, 1, 0, 0, 1}));
    const auto cosines = file["match/matched_cos"];
    EXPECT_EQ(cosines[2], 1.0);
    EXPECT_TRUE(std::isnan(cosines[1])) << "of a zero operator with itself";
    EXPECT_TRUE(std::isnan(cosines[3]));
    EXPECT_NEAR(file["match/matched_excess"][1], 1.0 - file["match/matched_null"][1], 1e-15) << "of what is there";
}

TEST(EmpiricalNull, is_of_heads_that_are_not_matched_and_neighbours_of_matched_ones_stand_apart) {
    const double nan = std::nan("");
    // Matched crosswise: 0-2, 1-3, 2-0, 3-1; groups {0, 1} and {2, 3}.
    const std::vector<double> cosines{0.1, 0.3, 0.9, 0.5,  //
                                      0.1, nan, 0.7, 0.9,  //
                                      0.9, 0.6, 0.2, 0.2,  //
                                      0.6, 0.9, 0.4, 0.4};
    const EmpiricalNull null = empirical_null(cosines, std::vector<double>{2, 3, 0, 1}, 2);
    EXPECT_NEAR(null.other_keys.mean, (0.1 + 0.3 + 0.1 + 0.2 + 0.2 + 0.4 + 0.4) / 7, 1e-15);
    EXPECT_NEAR(null.shared_keys.mean, (0.5 + 0.7 + 0.6 + 0.6) / 4, 1e-15);
    EXPECT_NEAR(null.shared_keys.sd, std::sqrt((0.01 + 0.01) / 4), 1e-15);
    const EmpiricalNull one_key = empirical_null(cosines, std::vector<double>{2, 3, 0, 1}, 4);
    EXPECT_TRUE(std::isnan(one_key.other_keys.sd));
    EXPECT_FALSE(std::isnan(one_key.shared_keys.sd));
}

TEST(Anchor, is_a_layers_number_or_counted_from_the_last) {
    const Scale layers{"analysis", "layer", 3, {}, "", {4, 6, 8}};
    EXPECT_EQ(anchor_row(layers, 4), 0);
    EXPECT_EQ(anchor_row(layers, 8), 2);
    EXPECT_EQ(anchor_row(layers, -1), 2);
    EXPECT_EQ(anchor_row(layers, -3), 0);
    EXPECT_EQ(anchor_row({"analysis", "layer", 3, {}, "", {}}, 1), 1);
    EXPECT_TRUE(says(error_of([&] { anchor_row(layers, 5); }, ExitCode::usage), "--anchor 5", "3, from 4 to 8"));
    EXPECT_TRUE(says(error_of([&] { anchor_row(layers, -4); }, ExitCode::usage), "--anchor -4"));
}

TEST(SignAgreement, counts_equal_signs_and_leaves_padding_out) {
    const double nan = std::nan("");
    const std::vector<double> left{5, -4, 3, 0, nan}, right{-5, -4, 3, 0, 1};
    EXPECT_EQ(sign_agreement(left, right, 2), 0.5);
    EXPECT_EQ(sign_agreement(left, right, 4), 0.75) << "zeros are alike";
    EXPECT_EQ(sign_agreement(left, right, 5), 0.75);
    EXPECT_EQ(sign_agreement(left, right, 50), 0.75);
}

TEST(Subspaces, have_the_principal_angles_that_were_planted) {
    const float nan = std::nanf(""), c = 0.6F, s = 0.8F;
    const std::vector<float> plane{1, 0, 0, 0, 0, 1, 0, 0}, turned{0, c, s, 0, 1, 0, 0, 0},
        line{0, c, s, 0, nan, nan, nan, nan};
    const SubspaceAngles angles = subspace_angles(plane, turned, 4);
    EXPECT_NEAR(angles.mean_cos, 0.8, 1e-7);
    EXPECT_NEAR(angles.min_cos, 0.6, 1e-7);
    EXPECT_NEAR(angles.overlap, 1.36, 1e-6);
    EXPECT_EQ(angles.chance, 1.0);
    EXPECT_EQ(angles.top1, 0.0);
    const SubspaceAngles of_line = subspace_angles(plane, line, 4);
    EXPECT_NEAR(of_line.mean_cos, 0.6, 1e-7);
    EXPECT_EQ(of_line.chance, 0.5);
    EXPECT_TRUE(std::isnan(subspace_angles(plane, std::vector<float>(8, nan), 4).mean_cos));
}

TEST(Subspaces, of_random_directions_overlap_by_k_squared_over_hidden) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    constexpr std::int64_t hidden = 40, k = 1;
    double mean = 0.0;
    constexpr int draws = 4000;
    for (int draw = 0; draw < draws; ++draw) {
        std::vector<float> a(hidden), b(hidden);
        for (std::vector<float>* direction : {&a, &b}) {
            float square = 0;
            for (float& x : *direction) {
                x = normal(random);
                square += x * x;
            }
            for (float& x : *direction) x /= std::sqrt(square);
        }
        mean += subspace_angles(a, b, hidden).overlap / draws;
    }
    EXPECT_NEAR(mean, static_cast<double>(k * k) / hidden, 4 * std::sqrt(2.0) / hidden / std::sqrt(draws));
}

TEST(LegacyAnalysis, makes_rows_orthonormal_and_keeps_the_first) {
    std::vector<float> rows{0.6F, 0.8F, 0, 0, 0.8F, 0.6F, 0, 0, 0, 0.6F, 0.8F, 0};
    orthonormalise(rows, 4);
    for (std::size_t i = 0; i < 3; ++i) {
        for (std::size_t j = 0; j < 3; ++j) {
            double product = 0.0;
            for (std::size_t x = 0; x < 4; ++x) product += rows[i * 4 + x] * rows[j * 4 + x];
            EXPECT_NEAR(product, i == j ? 1.0 : 0.0, 1e-6);
        }
    }
    EXPECT_EQ(std::vector<float>(rows.begin(), rows.begin() + 4), (std::vector<float>{0.6F, 0.8F, 0, 0}));
    EXPECT_NEAR(rows[4], 0.8, 1e-6);
    EXPECT_NEAR(rows[10], 1.0, 1e-6) << "each row adds its direction";
}

// --- what is declared ---

TEST(Analysis, is_declared_for_the_layers_of_what_was_measured) {
    const ModelShape shape = shape_with(2, 3, 1, 8);
    for (const char* group : {"gram", "heads", "match"}) {
        const Schema schema = with_derivations(measured_schema(shape, {group}));
        const Variable& anchor = schema.variables[at(schema.index_of("analysis/anchor"))];
        EXPECT_EQ(schema.scale_of(anchor, "layer").path(), "analysis/layer");
        EXPECT_EQ(schema.scale_of(anchor, "layer_b").values, (std::vector<std::int32_t>{4, 6}));
        EXPECT_EQ(schema.find("analysis/cos") >= 0, std::string(group) == "gram");
        EXPECT_EQ(schema.find("analysis/sign_agreement") >= 0, std::string(group) == "heads");
        EXPECT_EQ(schema.find("match/assignment") >= 0, std::string(group) == "match");
        EXPECT_EQ(schema.find("analysis/z_shared"), -1) << "takes gram and heads";
    }
    EXPECT_TRUE(with_derivations({}).variables.empty());
    EXPECT_TRUE(with_derivations(measured_schema(shape_with(0, 3, 1, 8), {"gram"})).find("analysis/cos") < 0);
}

TEST(Analysis, of_a_single_layer_has_no_pairs_and_no_verdict) {
    const ModelShape shape = shape_with(1, 2, 1, 8);
    DerivedFile file(measured_schema(shape, {"gram", "match"}), shape);
    file.put("gram/gram", {4.0, 1.0});
    file.put("match/cross_gram", {4.0, 0.0, 0.0, 1.0});
    file.derive();
    EXPECT_TRUE(file.attributes.empty());
    EXPECT_EQ(file.number("analysis/mean_cos_to_anchor"), 1.0);
    for (const char* name :
         {"mean_cos_to_anchor_others", "mean_cos_adjacent", "cos_first_last", "share_beyond_empirical",
          "mean_cos_any_anchor_median", "mean_cos_to_anchor_others_matched"})
        EXPECT_TRUE(std::isnan(file.number(std::string("analysis/") + name))) << name;
}

}  // namespace
