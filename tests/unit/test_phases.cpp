// Directions of layers' steps and phases: on planted subspaces, by a brute-force SVD, and at chance.
#include <gtest/gtest.h>
#include <lapacke.h>

#include <cmath>
#include <random>

#include "core/residual_settings.hpp"
#include "derivations/small_matrix.hpp"
#include "support/derived_file.hpp"
#include "support/small_matrix.hpp"

namespace geom {
namespace {

using test::at;
using test::DerivedFile;
using test::Matrix;

ModelShape shape_of_steps(std::int64_t layers, std::int64_t hidden, std::int64_t k) {
    ModelShape shape;
    shape.model_layers = layers;
    shape.hidden = hidden;
    shape.heads = 1;
    for (std::int64_t l = 0; l < layers; ++l)
        shape.layers.push_back({.number = l, .kv_heads = 1, .head_dim = 4, .weights = {}});
    shape.settings.top_k = k;
    shape.settings.residual.hidden_states = "streams.h5";
    shape.settings.residual.tokens = hidden + 1;
    use_default_phases(shape.settings.residual, layers);
    return shape;
}

/// k orthonormal rows of `hidden` coordinates, by Gram-Schmidt of random ones.
std::vector<double> random_directions(std::int64_t k, std::int64_t hidden, unsigned seed) {
    std::mt19937_64 generator(seed);
    std::normal_distribution<double> normal;
    std::vector<double> rows(at(k * hidden));
    for (double& x : rows) x = normal(generator);
    for (std::int64_t i = 0; i < k; ++i) {
        double* row = rows.data() + i * hidden;
        for (int pass = 0; pass < 2; ++pass) {
            for (std::int64_t j = 0; j <= i; ++j) {
                const double* other = rows.data() + j * hidden;
                double along = 0;
                for (std::int64_t x = 0; x < hidden; ++x) along += row[x] * other[x];
                for (std::int64_t x = 0; x < hidden; ++x)
                    row[x] = j < i ? row[x] - along * other[x] : row[x] / std::sqrt(along);
            }
        }
    }
    return rows;
}

class Steps {
public:
    Steps(const ModelShape& shape, const std::vector<std::vector<double>>& directions)
        : file_(test::measured_schema(shape, {"residual"}), shape) {
        std::vector<double> all, phases;
        for (const auto& rows : directions) all.insert(all.end(), rows.begin(), rows.end());
        const auto present = shape.settings.residual.phase_of;
        std::vector<std::int32_t> names(present);
        names.erase(std::unique(names.begin(), names.end()), names.end());
        for (const std::int32_t phase : present)
            phases.push_back(static_cast<double>(std::find(names.begin(), names.end(), phase) - names.begin()));
        file_.put("residual/top_dirs", all);
        for (double& x : all) x -= static_cast<float>(x);
        file_.put("residual/top_dirs_rest", all);
        file_.put_whole("residual/layer_phase", std::vector<std::int32_t>(phases.begin(), phases.end()));
        file_.derive();
    }
    std::vector<double> operator[](const std::string& name) const { return file_["residual/" + name]; }

private:
    DerivedFile file_;
};

/// sum_{j <= 8} (v . b_j)^2 with LAPACK's SVD of the rows on top of one another.
double captured(const double* v, const std::vector<const std::vector<double>*>& blocks, std::int64_t k,
                std::int64_t hidden) {
    const std::int64_t rows = k * std::ssize(blocks), n = std::min(rows, hidden);
    Matrix stack(rows, hidden), vt(n, hidden);
    for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t x = 0; x < hidden; ++x) stack(i, x) = (*blocks[at(i / k)])[at(i % k * hidden + x)];
    }
    std::vector<double> s(at(n)), unused(at(n));
    LAPACKE_dgesvd(LAPACK_COL_MAJOR, 'N', 'S', static_cast<lapack_int>(rows), static_cast<lapack_int>(hidden),
                   stack.data.data(), static_cast<lapack_int>(rows), s.data(), nullptr, 1, vt.data.data(),
                   static_cast<lapack_int>(n), unused.data());
    double sum = 0;
    for (std::int64_t j = 0; j < std::min<std::int64_t>(8, n); ++j) {
        double along = 0;
        for (std::int64_t x = 0; x < hidden; ++x) along += vt(j, x) * v[x];
        sum += along * along;
    }
    return sum;
}

TEST(Phases, captures_agree_with_an_svd_of_all_directions_on_top_of_one_another) {
    const std::int64_t layers = 12, hidden = 40, k = 5;
    const ModelShape shape = shape_of_steps(layers, hidden, k);
    std::vector<std::vector<double>> directions;
    for (std::int64_t l = 0; l < layers; ++l)
        directions.push_back(random_directions(k, hidden, static_cast<unsigned>(100 + l)));
    const Steps steps(shape, directions);
    const auto capture = steps["block_capture"], others = steps["block_capture_others"];
    const auto& phase_of = shape.settings.residual.phase_of;
    for (std::int64_t l = 0; l < layers; ++l) {
        std::vector<const std::vector<double>*> block, rest;
        for (std::int64_t other = 0; other < layers; ++other) {
            if (phase_of[at(other)] != phase_of[at(l)]) continue;
            block.push_back(&directions[at(other)]);
            if (other != l) rest.push_back(&directions[at(other)]);
        }
        if (rest.empty()) {
            EXPECT_TRUE(std::isnan(capture[at(l)]) && std::isnan(others[at(l)]));
            continue;
        }
        EXPECT_NEAR(capture[at(l)], captured(directions[at(l)].data(), block, k, hidden), 1e-12) << l;
        EXPECT_NEAR(others[at(l)], captured(directions[at(l)].data(), rest, k, hidden), 1e-12) << l;
    }
}

TEST(Phases, of_layers_that_nothing_relates_are_at_chance) {
    const std::int64_t layers = 64, hidden = 256, k = 8;
    const ModelShape shape = shape_of_steps(layers, hidden, k);
    std::vector<std::vector<double>> directions;
    for (std::int64_t l = 0; l < layers; ++l)
        directions.push_back(random_directions(k, hidden, static_cast<unsigned>(l)));
    const Steps steps(shape, directions);
    double overlap = 0, capture = 0;
    const auto overlaps = steps["subspace_overlap"], others = steps["block_capture_others"];
    for (std::int64_t l = 0; l < layers; ++l) {
        EXPECT_NEAR(overlaps[at(l * layers + l)], 1.0, 1e-6);
        for (std::int64_t other = 0; other < l; ++other) overlap += overlaps[at(l * layers + other)];
        capture += others[at(l)];
    }
    // means k / hidden and 8 / hidden; standard errors over 2016 pairs and 64 layers, by the beta distribution
    EXPECT_NEAR(overlap / 2016.0, 8.0 / 256.0, 4 * 8.0 / 256.0 * std::sqrt(2.0 / 64.0 / 2016.0));
    EXPECT_NEAR(capture / 64.0, 8.0 / 256.0, 4 * 8.0 / 256.0 * std::sqrt(2.0 / 8.0 / 64.0));
    const auto cosines = steps["top1_cos"], intra = steps["phase_intra_cos"], cross = steps["phase_cross_cos"];
    double cosine = 0;
    for (std::int64_t l = 0; l < layers; ++l) {
        for (std::int64_t other = 0; other < l; ++other) cosine += cosines[at(l * layers + other)];
    }
    const double by_chance = std::sqrt(2.0 / (3.14159265358979 * 256.0));  // mean |cos| of random directions
    EXPECT_NEAR(cosine / 2016.0, by_chance, 4 * 0.6 * by_chance / std::sqrt(2016.0) * 1.3);
    ASSERT_EQ(intra.size(), 6U);
    for (const double value : cross) EXPECT_NEAR(value, by_chance, 0.01);
}

TEST(Phases, of_layers_with_one_direction_in_common_are_captured_by_the_others) {
    const std::int64_t layers = 8, hidden = 64, k = 2;
    const ModelShape shape = shape_of_steps(layers, hidden, k);
    std::vector<std::vector<double>> directions;
    for (std::int64_t l = 0; l < layers; ++l) {
        std::vector<double> rows(at(k * hidden));
        rows[3] = l % 2 == 0 ? 1.0 : -1.0;
        rows[at(hidden + 8 + l)] = 1.0;
        directions.push_back(rows);
    }
    const Steps steps(shape, directions);
    for (const double cosine : steps["top1_cos"]) EXPECT_EQ(cosine, 1.0);
    for (std::int64_t l = 0; l < layers; ++l) {
        EXPECT_EQ(steps["subspace_overlap"][at(l * layers + (l + 1) % layers)], 0.5);
        if (!std::isnan(steps["block_capture_others"][at(l)])) {
            EXPECT_NEAR(steps["block_capture_others"][at(l)], 1.0, 1e-12);
        }
    }
}

TEST(Phases, a_layer_that_adds_nothing_has_no_cosines_and_leaves_the_others_theirs) {
    const std::int64_t layers = 8, hidden = 32, k = 3;
    const ModelShape shape = shape_of_steps(layers, hidden, k);
    std::vector<std::vector<double>> directions;
    for (std::int64_t l = 0; l < layers; ++l)
        directions.push_back(l == 3 ? std::vector<double>(at(k * hidden), test::nan)
                                    : random_directions(k, hidden, static_cast<unsigned>(l)));
    const Steps steps(shape, directions);
    for (std::int64_t l = 0; l < layers; ++l) {
        EXPECT_TRUE(std::isnan(steps["top1_cos"][at(3 * layers + l)]));
        EXPECT_TRUE(std::isnan(steps["subspace_overlap"][at(l * layers + 3)]));
    }
    EXPECT_TRUE(std::isnan(steps["block_capture"][3]));
    EXPECT_FALSE(std::isnan(steps["block_capture"][2]));
    for (const double value : steps["phase_cross_cos"]) EXPECT_FALSE(std::isnan(value));
}

TEST(SmallMatrix, leading_eigenvectors_diagonalise) {
    for (const std::int64_t n : {1, 2, 7, 40}) {
        const Matrix a = test::random(n, n + 3, 5);
        std::vector<double> gram(at(n * n));
        for (std::int64_t i = 0; i < n; ++i) {
            for (std::int64_t j = 0; j < n; ++j) {
                for (std::int64_t x = 0; x < n + 3; ++x) gram[at(i * n + j)] += a(i, x) * a(j, x);
            }
        }
        const std::int64_t k = std::min<std::int64_t>(3, n);
        const auto values = symmetric_eigenvalues_of(gram, n), vectors = leading_eigenvectors_of(gram, n, k);
        for (std::int64_t j = 0; j < k; ++j) {
            for (std::int64_t i = 0; i < n; ++i) {
                double product = 0;
                for (std::int64_t x = 0; x < n; ++x) product += gram[at(i * n + x)] * vectors[at(j * n + x)];
                EXPECT_NEAR(product, values[at(j)] * vectors[at(j * n + i)], 1e-12 * values[0]);
            }
        }
    }
}

TEST(PhaseNames, are_those_of_the_specification_for_64_layers_and_by_depth_for_others) {
    ResidualSettings settings;
    use_default_phases(settings, 64);
    const std::vector<std::int64_t> begins{0, 7, 10, 32, 47, 59};
    for (std::int64_t layer = 0; layer < 64; ++layer)
        EXPECT_EQ(settings.phase_of[at(layer)],
                  std::upper_bound(begins.begin(), begins.end(), layer) - begins.begin() - 1);
    use_default_phases(settings, 28);
    EXPECT_EQ(settings.phase_of, (std::vector<std::int32_t>{0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2,
                                                            3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5, 5}));
}

}  // namespace
}  // namespace geom
