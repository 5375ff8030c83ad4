#include "measures/spectrum.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace geom {
namespace {

TEST(SpectrumRanks, of_equal_values_are_their_number) {
    const SpectrumRanks ranks = ranks_of(std::vector<double>{3, 3, 3, 3, 0, 0});
    EXPECT_NEAR(ranks.eff_rank, 4, 1e-14);
    EXPECT_NEAR(ranks.eff_rank_energy, 4, 1e-14);
    EXPECT_DOUBLE_EQ(ranks.stable_rank, 4);
    EXPECT_DOUBLE_EQ(ranks.energy, 36);
}

TEST(SpectrumRanks, weigh_values_by_their_share) {
    const SpectrumRanks ranks = ranks_of(std::vector<double>{2, 1, 1});
    EXPECT_NEAR(ranks.eff_rank, std::pow(2, 1.5), 1e-14);  // p = 1/2, 1/4, 1/4
    EXPECT_NEAR(ranks.eff_rank_energy, std::exp(std::log(1.5) * 2 / 3 + std::log(6.0) / 3), 1e-14);
    EXPECT_DOUBLE_EQ(ranks.stable_rank, 1.5);
}

TEST(SpectrumRanks, of_nothing_are_not_numbers) {
    const SpectrumRanks ranks = ranks_of(std::vector<double>{0, 0});
    EXPECT_TRUE(std::isnan(ranks.eff_rank) && std::isnan(ranks.eff_rank_energy) && std::isnan(ranks.stable_rank));
    EXPECT_EQ(ranks.energy, 0);
}

TEST(SymmetricOrder, puts_the_positive_of_a_tie_first) {
    std::vector<double> values{-3, 1, 3 - 1e-15, -1e-20, 2, 0};
    order_symmetric_eigenvalues(values, 1e-13);
    EXPECT_EQ(values, (std::vector<double>{3 - 1e-15, -3, 2, 1, -1e-20, 0}));
}

TEST(SymmetricOrder, is_by_magnitude_otherwise) {
    std::vector<double> values{-5, -1, 0.5, 4};
    order_symmetric_eigenvalues(values, 1e-13);
    EXPECT_EQ(values, (std::vector<double>{-5, 4, -1, 0.5}));
}

TEST(EigenvalueOrder, keeps_conjugates_together_with_the_positive_imaginary_part_first) {
    std::vector<double> re{1, 0.5, 0.5, -2}, im{0, 3, -3, 0};
    order_eigenvalues(re, im, 1e-13);
    EXPECT_EQ(re, (std::vector<double>{0.5, 0.5, -2, 1}));
    EXPECT_EQ(im, (std::vector<double>{3, -3, 0, 0}));
}

TEST(EigenvalueOrder, goes_by_real_part_among_magnitudes_that_differ_by_rounding_alone) {
    std::vector<double> re{-1 - 1e-15, 0, 0, 1}, im{0, 1 + 2e-15, -1 - 2e-15, 0};
    order_eigenvalues(re, im, 1e-13);
    EXPECT_EQ(re, (std::vector<double>{1, 0, 0, -1 - 1e-15}));
    EXPECT_EQ(im, (std::vector<double>{0, 1 + 2e-15, -1 - 2e-15, 0}));
}

TEST(Inertia, is_restored_where_rounding_alone_decides_the_sign) {
    std::vector<double> ascending{-3, 1e-17, 2e-17, 3};
    restore_inertia(ascending, 1e-15);
    EXPECT_EQ(ascending, (std::vector<double>{-3, -1e-17, 2e-17, 3}));
    std::vector<double> beyond{-3, 1e-3, 2e-3, 3};  // no matrix of that inertia: it is left to be seen
    restore_inertia(beyond, 1e-15);
    EXPECT_EQ(beyond, (std::vector<double>{-3, 1e-3, 2e-3, 3}));
}

TEST(LeadingEntry, is_the_first_of_those_that_differ_by_rounding_alone) {
    EXPECT_EQ(leading_entry(std::vector<double>{1, -2, 2 + 1e-15, 0}), 1U);
    EXPECT_EQ(leading_entry(std::vector<double>{1, -2, 2.1, 0}), 2U);
}

}  // namespace
}  // namespace geom
