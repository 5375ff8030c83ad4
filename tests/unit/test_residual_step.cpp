// What a layer adds to the stream: numbers of tokens by hand, spectra against LAPACK's SVD, hostile steps.
#include <gtest/gtest.h>
#include <lapacke.h>

#include <cmath>

#include "measures/residual_step.hpp"
#include "support/error_of.hpp"
#include "support/small_matrix.hpp"

namespace geom {
namespace {

using test::at;
using test::Matrix;

std::vector<double> row_major(const Matrix& a) { return test::transposed(a).data; }

std::vector<double> sum_of(const std::vector<double>& a, const std::vector<double>& b) {
    std::vector<double> sum(a);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += b[i];
    return sum;
}

double figure(const LayerStep& step, std::string_view name) {
    for (std::size_t i = 0; i < step_figures.size(); ++i) {
        if (name == step_figures[i].name) return step.figures[i];
    }
    ADD_FAILURE() << name;
    return test::nan;
}

class Steps : public ::testing::Test {
protected:
    std::unique_ptr<Backend> backend_ = make_cpu_backend(2, processor_isa());

    LayerStep step(const std::vector<double>& before, const std::vector<double>& after, std::int64_t hidden,
                   std::int64_t k) {
        const StepInput input{before, after};
        return steps_of({&input, 1}, hidden, k, *backend_)[0];
    }
};

TEST_F(Steps, numbers_of_two_tokens_are_what_they_are_by_hand) {
    // lengths of h 5 and 2, of d 1 and 4; along h, and against it
    const LayerStep found = step({3, 4, 0, 2}, {3.6, 4.8, 0, -2}, 2, 2);
    EXPECT_DOUBLE_EQ(figure(found, "frob"), std::sqrt(17.0));
    EXPECT_DOUBLE_EQ(figure(found, "token_norm_mean"), 2.5);
    EXPECT_DOUBLE_EQ(figure(found, "token_norm_std"), 1.5);
    EXPECT_DOUBLE_EQ(figure(found, "h_norm_mean"), 3.5);
    EXPECT_DOUBLE_EQ(figure(found, "rel_step_mean"), (0.2 + 2.0) / 2);
    EXPECT_DOUBLE_EQ(figure(found, "rel_step_std"), 0.9);
    EXPECT_DOUBLE_EQ(figure(found, "parallel_frac"), 1.0);
    EXPECT_NEAR(figure(found, "cos_delta_h_mean"), 0.0, 1e-15);
    EXPECT_DOUBLE_EQ(figure(found, "block_influence"), 1.0);  // cosines 1 and -1
}

TEST_F(Steps, spectra_and_directions_agree_with_an_svd_for_few_tokens_and_for_many) {
    for (const auto& [tokens, hidden] : std::vector<std::pair<std::int64_t, std::int64_t>>{{9, 40}, {40, 9}, {1, 5}}) {
        const std::vector<double> before = row_major(test::random(tokens, hidden, 1));
        const Matrix d = test::random(tokens, hidden, 2);
        const std::int64_t n = std::min(tokens, hidden), k = std::min<std::int64_t>(3, n);
        const LayerStep found = step(before, sum_of(before, row_major(d)), hidden, k);
        Matrix copy = d, vt(n, hidden);
        std::vector<double> values(at(n)), unused(at(n));
        LAPACKE_dgesvd(LAPACK_COL_MAJOR, 'N', 'S', static_cast<lapack_int>(tokens), static_cast<lapack_int>(hidden),
                       copy.data.data(), static_cast<lapack_int>(tokens), values.data(), nullptr, 1, vt.data.data(),
                       static_cast<lapack_int>(n), unused.data());
        double energy = 0, sum = 0, entropy = 0, entropy_of_energy = 0;
        for (const double s : values) energy += s * s, sum += s;
        for (const double s : values) {
            entropy -= s / sum * std::log(s / sum);
            entropy_of_energy -= s * s / energy * std::log(s * s / energy);
        }
        ASSERT_EQ(found.spectrum.size(), values.size());
        for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(found.spectrum[i], values[i], 1e-12 * values[0]);
        EXPECT_NEAR(figure(found, "eff_rank"), std::exp(entropy), 1e-9);
        EXPECT_NEAR(figure(found, "eff_rank_energy"), std::exp(entropy_of_energy), 1e-9);
        EXPECT_NEAR(figure(found, "top1_frac"), values[0] * values[0] / energy, 1e-12);
        EXPECT_LE(figure(found, "top10_frac"), 1 + 1e-12);
        for (std::int64_t j = 0; j < k; ++j) {
            double cosine = 0, largest = 0;
            for (std::int64_t x = 0; x < hidden; ++x) {
                const double entry = found.top_dirs[at(j * hidden + x)];
                cosine += vt(j, x) * entry;
                if (std::abs(entry) > std::abs(largest)) largest = entry;
            }
            EXPECT_NEAR(std::abs(cosine), 1.0, 1e-6);
            EXPECT_GT(largest, 0) << "the largest entry is positive";
        }
    }
}

// Squares of what lies five decades and more below the first value are lost in a Gram matrix.
TEST_F(Steps, of_a_steep_spectrum_small_values_and_their_directions_are_found_as_well) {
    const std::int64_t tokens = 30, hidden = 20;
    std::vector<double> before(at(tokens * hidden), 0.0), after(before);
    for (std::int64_t i = 0; i < hidden; ++i) after[at(i * hidden + i)] = std::pow(10.0, -static_cast<double>(i));
    const LayerStep found = step(before, after, hidden, 10);
    for (std::int64_t i = 0; i < 12; ++i)
        EXPECT_NEAR(found.spectrum[at(i)], std::pow(10.0, -static_cast<double>(i)), 1e-15);
    for (std::int64_t j = 0; j < 10; ++j) EXPECT_NEAR(found.top_dirs[at(j * hidden + j)], 1.0, 1e-6) << j;
    EXPECT_TRUE(std::isnan(figure(found, "rel_step_mean"))) << "the stream is zero";
    double entropy = 0;
    for (const double share : {0.99, 0.0099, 0.000099, 0.00000099, 0.0000000099, 0.000000000099})
        entropy -= share * std::log(share);  // the seventh share, 1e-12 less a little, is left out
    EXPECT_NEAR(figure(found, "eff_rank_energy"), std::exp(entropy), 1e-9);
}

TEST_F(Steps, a_layer_that_adds_nothing_has_no_directions_and_no_ranks) {
    const std::vector<double> stream = row_major(test::random(6, 4, 3));
    const LayerStep found = step(stream, stream, 4, 2);
    EXPECT_EQ(figure(found, "frob"), 0.0);
    EXPECT_NEAR(figure(found, "block_influence"), 0.0, 1e-15);
    for (const char* name : {"eff_rank", "eff_rank_energy", "top1_frac", "top3_frac", "top10_frac", "parallel_frac"})
        EXPECT_TRUE(std::isnan(figure(found, name))) << name;
    for (const float x : found.top_dirs) EXPECT_TRUE(std::isnan(x));
}

TEST_F(Steps, layers_beside_each_other_have_the_bits_they_have_alone) {
    std::vector<std::vector<double>> streams;
    for (unsigned l = 0; l < 6; ++l) streams.push_back(row_major(test::random(30, 12, l)));
    std::vector<StepInput> inputs;
    for (std::size_t l = 0; l + 1 < streams.size(); ++l) inputs.push_back({streams[l], streams[l + 1]});
    const auto together = steps_of(inputs, 12, 4, *backend_);
    for (std::size_t l = 0; l < inputs.size(); ++l) {
        const LayerStep alone = step(streams[l], streams[l + 1], 12, 4);
        EXPECT_EQ(together[l].figures, alone.figures);
        EXPECT_EQ(together[l].spectrum, alone.spectrum);
        EXPECT_EQ(together[l].top_dirs, alone.top_dirs);
    }
}

TEST_F(Steps, of_streams_that_are_not_finite_are_an_error) {
    std::vector<double> stream = row_major(test::random(6, 4, 3)), broken = stream;
    broken[7] = test::nan;
    try {
        step(stream, broken, 4, 2);
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::numerics);
    }
}

}  // namespace
}  // namespace geom
