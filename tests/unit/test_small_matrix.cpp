#include "derivations/small_matrix.hpp"

#include <gtest/gtest.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <random>

using namespace geom;

namespace {

std::vector<double> random_matrix(std::int64_t rows, std::int64_t cols, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    std::vector<double> matrix(static_cast<std::size_t>(rows * cols));
    for (double& number : matrix) number = normal(random);
    return matrix;
}

TEST(SmallMatrix, singular_values_are_those_of_lapack) {
    for (const auto& [rows, cols] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {3, 5}, {5, 3}, {40, 40}}) {
        const auto matrix = random_matrix(rows, cols, 1);
        auto copy = matrix;
        const std::int64_t count = std::min(rows, cols);
        std::vector<double> wanted(static_cast<std::size_t>(count)), spoilt(static_cast<std::size_t>(count));
        ASSERT_EQ(LAPACKE_dgesvd(LAPACK_ROW_MAJOR, 'N', 'N', static_cast<lapack_int>(rows),
                                 static_cast<lapack_int>(cols), copy.data(), static_cast<lapack_int>(cols),
                                 wanted.data(), nullptr, 1, nullptr, 1, spoilt.data()),
                  0);
        const auto found = singular_values_of(matrix, rows, cols);
        ASSERT_EQ(found.size(), wanted.size());
        for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 1e-13 * wanted[0]);
    }
}

TEST(SmallMatrix, small_singular_values_keep_their_digits_and_zeros_are_zero) {
    const std::vector<double> graded{1.0, 1e-3, 0.0, 1e-9};  // nearly triangular: s = 1, 1e-9
    EXPECT_NEAR(singular_values_of(graded, 2, 2)[1] / 1e-9, 1.0, 1e-6);
    EXPECT_EQ(singular_values_of(std::vector<double>{3.0, 0.0, 0.0, 0.0}, 2, 2), (std::vector<double>{3.0, 0.0}));
    EXPECT_EQ(singular_values_of(std::vector<double>(6, 0.0), 3, 2), (std::vector<double>{0.0, 0.0}));
}

TEST(SmallMatrix, symmetric_eigenvalues_are_those_of_lapack) {
    for (const std::int64_t n : {1, 2, 3, 10, 64}) {
        auto matrix = random_matrix(n, n, 2);
        for (std::int64_t i = 0; i < n; ++i) {
            for (std::int64_t j = 0; j < i; ++j)
                matrix[static_cast<std::size_t>(i * n + j)] = matrix[static_cast<std::size_t>(j * n + i)];
        }
        auto copy = matrix;
        std::vector<double> wanted(static_cast<std::size_t>(n));
        const auto order = static_cast<lapack_int>(n);
        ASSERT_EQ(LAPACKE_dsyev(LAPACK_ROW_MAJOR, 'N', 'L', order, copy.data(), order, wanted.data()), 0);
        auto found = symmetric_eigenvalues_of(matrix, n);
        for (std::size_t i = 1; i < found.size(); ++i) EXPECT_GE(std::abs(found[i - 1]), std::abs(found[i]));
        std::sort(found.begin(), found.end());
        for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 1e-12 * static_cast<double>(n));
    }
}

TEST(SmallMatrix, eigenvalues_of_what_is_diagonal_or_zero_already_are_found) {
    EXPECT_EQ(symmetric_eigenvalues_of({1.0, 0.0, 0.0, 0.0, -3.0, 0.0, 0.0, 0.0, 2.0}, 3),
              (std::vector<double>{-3.0, 2.0, 1.0}));
    EXPECT_EQ(symmetric_eigenvalues_of(std::vector<double>(16, 0.0), 4), std::vector<double>(4, 0.0));
    EXPECT_TRUE(symmetric_eigenvalues_of({}, 0).empty());
    const auto exchange = symmetric_eigenvalues_of({0.0, 1.0, 1.0, 0.0}, 2);
    EXPECT_NEAR(exchange[0] * exchange[1], -1.0, 1e-15);
}

}  // namespace
