// Numbers read off singular values, against answers that are known: by hand, in the limit of large matrices, planted.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cpu/isa.hpp"
#include "measures/marchenko_pastur.hpp"
#include "measures/power_law.hpp"
#include "measures/spectral_figures.hpp"
#include "support/small_matrix.hpp"

namespace geom {
namespace {

using test::at;
using test::Matrix;
using test::random;

std::map<std::string, double> figures(std::vector<double> values, const MatrixSize& size) {
    SingularValues spectrum;
    spectrum.values = std::move(values);
    const auto numbers = figures_of(spectrum, size);
    std::map<std::string, double> named;
    for (std::size_t i = 0; i < numbers.size(); ++i) named[spectral_figures[i].name] = numbers[i];
    return named;
}

std::vector<double> values_of(const Matrix& a) {
    const auto backend = make_cpu_backend(1, processor_isa());
    const MatrixRef ref{reinterpret_cast<const std::byte*>(a.data.data()), DType::f64, a.cols, a.rows};
    return backend->matrices().gram_singular_values({&ref, 1})[0].values;
}

std::vector<double> squares_of(const Matrix& a) {
    std::vector<double> squares = values_of(a);
    for (double& s : squares) s *= s;
    return squares;
}

// --- ranks, norms, shares --------------------------------------------------------------------------------------------

TEST(SpectralFigures, are_those_of_a_spectrum_done_by_hand) {
    const auto found = figures({4, 2, 2, 1}, {4, 9});  // squares 16 4 4 1 of 25: shares 0.64 0.80 0.96 1
    EXPECT_EQ(found.at("spectral_norm"), 4);
    EXPECT_EQ(found.at("fro_norm"), 5);
    EXPECT_EQ(found.at("condition"), 4);
    EXPECT_EQ(found.at("stable_rank"), 25.0 / 16);
    EXPECT_EQ(found.at("n50"), 1);
    EXPECT_EQ(found.at("n75"), 2);
    EXPECT_EQ(found.at("n90"), 3);
    EXPECT_EQ(found.at("n95"), 3);
    EXPECT_EQ(found.at("n99"), 4);
    EXPECT_EQ(found.at("rows"), 4);
    EXPECT_EQ(found.at("cols"), 9);
    const double entropy = -(4.0 / 9 * std::log(4.0 / 9) + 4.0 / 9 * std::log(2.0 / 9) + 1.0 / 9 * std::log(1.0 / 9));
    EXPECT_NEAR(found.at("eff_rank"), std::exp(entropy), 1e-14);
    EXPECT_TRUE(std::isnan(found.at("alpha"))) << "four values are too few";
}

TEST(SpectralFigures, count_values_that_are_rounding_as_zeros) {
    SingularValues spectrum;
    spectrum.values = {1, 0.5, 1e-17};
    const auto numbers = figures_of(spectrum, {3, 3});
    EXPECT_EQ(spectrum.values, (std::vector<double>{1, 0.5, 0}));
    EXPECT_TRUE(std::isinf(numbers[5])) << spectral_figures[5].name;
}

TEST(SpectralFigures, of_a_zero_matrix_are_NaN_where_they_are_ratios) {
    const auto found = figures({0, 0, 0}, {3, 5});
    for (const char* ratio : {"eff_rank", "eff_rank_energy", "stable_rank", "n50", "n99", "alpha"})
        EXPECT_TRUE(std::isnan(found.at(ratio))) << ratio;
    EXPECT_EQ(found.at("spectral_norm"), 0);
    EXPECT_EQ(found.at("fro_norm"), 0);
    EXPECT_EQ(found.at("mp_outliers"), 0);
    EXPECT_TRUE(std::isinf(found.at("condition")));
}

// --- doubt -----------------------------------------------------------------------------------------------------------

/// What the figures' doubt has to bound: values moved by as much as is allowed, in any direction.
TEST(SpectralDoubt, bounds_what_any_errors_of_the_allowed_size_do_to_effective_ranks) {
    std::mt19937_64 draw(1);
    std::uniform_real_distribution<double> any(-1, 1);
    for (const double floor : {1e-4, 1e-8, 1e-12}) {
        SingularValues known;
        for (int i = 0; i < 60; ++i) known.values.push_back(std::pow(0.7, i));
        known.square_error = floor;
        const SpectralDoubt doubt = doubt_of(known);
        const auto rank = [](const SingularValues& s) { return figures(s.values, {60, 60}); };
        const auto before = rank(known);
        for (int trial = 0; trial < 200; ++trial) {
            SingularValues moved = known;
            for (double& s : moved.values) s = std::sqrt(std::max(s * s + floor * std::copysign(1, any(draw)), 0.0));
            std::sort(moved.values.rbegin(), moved.values.rend());
            const auto after = rank(moved);
            EXPECT_LE(std::abs(after.at("eff_rank") / before.at("eff_rank") - 1), doubt.eff_rank);
            EXPECT_LE(std::abs(after.at("eff_rank_energy") / before.at("eff_rank_energy") - 1), doubt.eff_rank_energy);
        }
        EXPECT_EQ(doubt.values, std::count_if(known.values.begin(), known.values.end(), [&](double s) {
                      return s - std::sqrt(std::max(s * s - floor, 0.0)) >
                             1e-9 * std::sqrt(std::max(s * s - floor, 0.0));
                  }));
    }
}

TEST(SpectralDoubt, is_none_where_nothing_is_wrong) {
    SingularValues exact;
    exact.values = {3, 2, 1};
    const SpectralDoubt doubt = doubt_of(exact);
    EXPECT_EQ(doubt.least, 0);
    EXPECT_EQ(doubt.eff_rank, 0);
    EXPECT_EQ(doubt.values, 0);
}

// --- Marchenko and Pastur --------------------------------------------------------------------------------------------

TEST(MarchenkoPastur, expects_the_known_effective_ranks) {
    EXPECT_NEAR(marchenko_pastur_eff_rank(1000, 1000) / 1000, 0.805, 0.0005);
    EXPECT_NEAR(marchenko_pastur_eff_rank(1000, 5000) / 1000, 0.973, 0.0005);
    EXPECT_EQ(marchenko_pastur_eff_rank(1000, 5000), marchenko_pastur_eff_rank(5000, 1000));
    EXPECT_NEAR(marchenko_pastur_eff_rank(1, 1000000), 1, 1e-5);
}

TEST(MarchenkoPastur, independent_entries_have_the_effective_rank_that_is_expected) {
    EXPECT_NEAR(figures(values_of(random(500, 500, 1)), {500, 500}).at("eff_rank") / 500, 0.805, 0.005);
    EXPECT_NEAR(figures(values_of(random(200, 1000, 2)), {200, 1000}).at("eff_rank") / 200, 0.973, 0.003);
}

TEST(MarchenkoPastur, noise_alone_has_no_outliers_in_99_of_100_matrices) {
    int with_outliers = 0;
    for (unsigned seed = 0; seed < 500; ++seed)
        with_outliers += marchenko_pastur_outliers(squares_of(random(100, 300, 1000 + seed)), 100, 300) > 0 ? 1 : 0;
    EXPECT_LE(with_outliers, 5);
}

TEST(MarchenkoPastur, counts_the_outliers_that_were_planted) {
    for (const std::int64_t planted : {1, 3, 8}) {
        Matrix a = random(100, 300, static_cast<unsigned>(planted));
        const Matrix left = random(100, planted, 77), right = random(planted, 300, 78);
        const Matrix signal = left * right;  // singular values about sqrt(100 * 300) = 173; noise ends near 27.3
        for (std::size_t i = 0; i < a.data.size(); ++i) a.data[i] += signal.data[i];
        EXPECT_EQ(marchenko_pastur_outliers(squares_of(a), 100, 300), planted);
        EXPECT_EQ(marchenko_pastur_outliers(squares_of(a), 300, 100), planted);
    }
}

TEST(MarchenkoPastur, an_outlier_that_hides_another_behind_its_share_of_the_variance_is_taken_away_first) {
    Matrix a = random(50, 100, 5);
    a(0, 0) += 1e6;
    a(1, 1) += 60;
    EXPECT_EQ(marchenko_pastur_outliers(squares_of(a), 50, 100), 2);
}

// --- power laws ------------------------------------------------------------------------------------------------------

std::vector<double> power_law_sample(double alpha, double xmin, int n, std::mt19937_64& draw) {
    std::uniform_real_distribution<double> uniform(0, 1);
    std::vector<double> sample;
    for (int i = 0; i < n; ++i) sample.push_back(xmin * std::pow(1 - uniform(draw), -1 / (alpha - 1)));
    std::sort(sample.rbegin(), sample.rend());
    return sample;
}

TEST(PowerLaw, with_xmin_given_the_exponent_is_within_two_errors_in_95_of_100_samples) {
    std::mt19937_64 draw(1);
    int within = 0;
    for (int i = 0; i < 1000; ++i) {
        const PowerLaw law = power_law_above(2.0, power_law_sample(2.5, 2.0, 400, draw));
        within += std::abs(law.alpha - 2.5) <= 2 * law.standard_error ? 1 : 0;
    }
    EXPECT_GE(within, 940);  // 954 expected of normal deviates, sd 7
}

TEST(PowerLaw, with_xmin_fitted_the_exponent_is_within_two_errors_in_90_of_100_samples) {
    std::mt19937_64 draw(2);
    for (const double alpha : {2.0, 3.5}) {
        int within = 0;
        for (int i = 0; i < 300; ++i) {
            const PowerLaw law = fit_power_law(power_law_sample(alpha, 1.0, 500, draw));
            within += std::abs(law.alpha - alpha) <= 2 * law.standard_error ? 1 : 0;
        }
        EXPECT_GE(within, 270) << alpha;
    }
}

/// The definition, candidate by candidate.
PowerLaw naive_fit(const std::vector<double>& descending) {
    PowerLaw best;
    double least = HUGE_VAL;
    for (const double xmin : descending) {
        std::vector<double> tail;
        for (const double x : descending) {
            if (x >= xmin) tail.insert(tail.begin(), x);
        }
        const PowerLaw law = power_law_above(xmin, descending);
        if (tail.size() < 10 || std::isnan(law.alpha)) continue;
        double distance = 0;
        for (const double x : tail) {
            const double p = 1 - std::pow(x / xmin, 1 - law.alpha);
            const auto below = std::count_if(tail.begin(), tail.end(), [=](double y) { return y < x; });
            const auto upto = std::count_if(tail.begin(), tail.end(), [=](double y) { return y <= x; });
            const auto n = static_cast<double>(tail.size());
            distance = std::max(
                {distance, std::abs(static_cast<double>(below) / n - p), std::abs(static_cast<double>(upto) / n - p)});
        }
        if (distance > least) continue;
        least = distance;
        best = law;
    }
    return best;
}

TEST(PowerLaw, xmin_is_that_of_the_definition) {
    std::mt19937_64 draw(3);
    std::uniform_real_distribution<double> body(0, 1);
    for (int trial = 0; trial < 20; ++trial) {
        std::vector<double> sample = power_law_sample(2.2, 1.0, 60, draw);
        for (int i = 0; i < 60; ++i) sample.push_back(body(draw));
        std::sort(sample.rbegin(), sample.rend());
        const PowerLaw found = fit_power_law(sample), expected = naive_fit(sample);
        EXPECT_EQ(found.xmin, expected.xmin);
        EXPECT_NEAR(found.alpha, expected.alpha, 1e-10 * expected.alpha);
        EXPECT_NEAR(found.standard_error, expected.standard_error, 1e-10 * expected.alpha);
    }
}

TEST(PowerLaw, leaves_at_least_ten_values_and_says_nothing_about_fewer) {
    std::mt19937_64 draw(4);
    EXPECT_TRUE(std::isnan(fit_power_law(power_law_sample(2, 1, 9, draw)).alpha));
    const auto ten = power_law_sample(2, 1, 10, draw);
    EXPECT_EQ(fit_power_law(ten).xmin, ten.back());
    std::vector<double> with_zeros = ten;
    with_zeros.resize(30, 0.0);
    EXPECT_EQ(fit_power_law(with_zeros).xmin, ten.back());
    EXPECT_TRUE(std::isnan(fit_power_law(std::vector<double>(20, 1.0)).alpha)) << "equal values have no tail";
}

}  // namespace
}  // namespace geom
