// Vectors of weight matrices against loops.
#include "kernels/weight_vectors.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "support/error_of.hpp"

namespace geom {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// A random matrix as stored, and the numbers that its folded elements are.
struct Stored {
    std::vector<float> as_f32;
    std::vector<std::uint16_t> as_bf16;
    std::vector<double> fold, numbers;
    std::int64_t rows, cols;

    Stored(std::int64_t m, std::int64_t n, unsigned seed) : rows(m), cols(n) {
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        for (std::int64_t j = 0; j < n; ++j) fold.push_back(1.0 + 0.1 * double{normal(random)});
        for (std::int64_t i = 0; i < m * n; ++i) {
            const auto bits = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(random)) >> 16);
            as_bf16.push_back(bits);
            as_f32.push_back(bf16_to_f32(bits));
            numbers.push_back(double{as_f32.back()} * fold[at(i % n)]);
        }
    }
    FoldedMatrix f32() const {
        return {{reinterpret_cast<const std::byte*>(as_f32.data()), DType::f32, rows, cols}, fold.data()};
    }
    FoldedMatrix bf16() const {
        return {{reinterpret_cast<const std::byte*>(as_bf16.data()), DType::bf16, rows, cols}, fold.data()};
    }
    double element(bool columns, std::int64_t i, std::int64_t k) const {
        return numbers[at(columns ? k * cols + i : i * cols + k)];
    }
};

double dot(const Stored& a, std::int64_t i, const Stored& b, std::int64_t j, bool columns) {
    double sum = 0.0;
    for (std::int64_t k = 0; k < (columns ? a.rows : a.cols); ++k)
        sum += a.element(columns, i, k) * b.element(columns, j, k);
    return sum;
}

class WeightVectorsOf : public ::testing::TestWithParam<bool> {
protected:
    bool columns_ = GetParam();
    std::int64_t count_ = 1100, length_ = 300;  // more than a tile, more than a panel
    Stored a_ = make(1), b_ = make(2);
    Workers one_{1}, three_{3};

    Stored make(unsigned seed) const {
        return columns_ ? Stored(length_, count_, seed) : Stored(count_, length_, seed);
    }
};

TEST_P(WeightVectorsOf, have_the_norms_of_their_folded_elements) {
    std::vector<double> squares(at(count_)), again(at(count_));
    squared_norms(one_, {a_.f32(), columns_}, squares);
    squared_norms(three_, {a_.bf16(), columns_}, again);
    EXPECT_EQ(squares, again);
    for (std::int64_t i = 0; i < count_; ++i)
        EXPECT_NEAR(squares[at(i)], dot(a_, i, a_, i, columns_), 1e-13 * squares[at(i)]);
}

TEST_P(WeightVectorsOf, have_similarities_of_products_and_magnitudes_of_products) {
    std::vector<double> of_a, of_b;
    for (std::int64_t i = 0; i < count_; ++i) {
        of_a.push_back(1.0 + 0.001 * static_cast<double>(i));
        of_b.push_back(1.0 - 0.0005 * static_cast<double>(i));
    }
    const VectorProducts first{{a_.f32(), columns_}, {b_.bf16(), columns_}, of_a, of_b};
    const VectorProducts second{{b_.f32(), columns_}, {a_.f32(), columns_}, of_a, of_b};
    std::vector<float> out(at(count_ * count_)), again(out.size());
    similarities(one_, {{first}}, {{first, second}}, out);
    similarities(three_, {{first}}, {{first, second}}, again);
    EXPECT_EQ(out, again);
    for (const std::int64_t i : {0L, 1L, 700L, 1023L, 1024L, 1099L}) {
        for (const std::int64_t j : {0L, 5L, 1023L, 1024L, 1098L, 1099L}) {
            const double factor = of_a[at(i)] * of_b[at(j)], one = factor * dot(a_, i, b_, j, columns_);
            const double expected = one + std::abs(one + factor * dot(b_, i, a_, j, columns_));
            EXPECT_NEAR(double{out[at(i * count_ + j)]}, expected, 1e-3) << i << ", " << j;
        }
    }
}

TEST_P(WeightVectorsOf, are_combined_and_measured) {
    const std::vector<Combination> combinations{{3, 3, 7, 1.5, 0.0, 0.5},
                                                {0, 1099, 1099, 0.6, -0.8, 1.0},
                                                {5, 5, 5, 0.0, 0.0, 0.0},
                                                {1024, 2, 0, -1.0, 0.3, 2.0}};
    std::vector<double> squares(combinations.size()), again(combinations.size());
    squared_combinations(one_, {a_.f32(), columns_}, {b_.f32(), columns_}, combinations, squares);
    squared_combinations(three_, {a_.bf16(), columns_}, {b_.f32(), columns_}, combinations, again);
    EXPECT_EQ(squares, again);
    for (std::size_t i = 0; i < combinations.size(); ++i) {
        const Combination& c = combinations[i];
        double expected = 0.0;
        for (std::int64_t k = 0; k < length_; ++k) {
            const double difference = c.first_factor * a_.element(columns_, c.first, k) +
                                      c.second_factor * a_.element(columns_, c.second, k) -
                                      c.other_factor * b_.element(columns_, c.other, k);
            expected += difference * difference;
        }
        EXPECT_NEAR(squares[i], expected, 1e-13 * expected) << i;
    }
}

INSTANTIATE_TEST_SUITE_P(RowsAndColumns, WeightVectorsOf, ::testing::Bool(),
                         [](const auto& of) { return of.param ? "columns" : "rows"; });

TEST(StridedProducts, are_of_rows_that_lie_a_step_apart) {
    const Stored a(12, 300, 3), b(12, 300, 4);
    Workers workers(2);
    constexpr std::int64_t step = 3, n = 4;
    std::vector<double> out(step * n * n);
    strided_products(workers, a.f32(), b.f32(), step, out);
    for (std::int64_t s = 0; s < step; ++s) {
        for (std::int64_t i = 0; i < n; ++i) {
            for (std::int64_t j = 0; j < n; ++j)
                EXPECT_NEAR(out[at((s * n + i) * n + j)], dot(a, s + i * step, b, s + j * step, false), 1e-12);
        }
    }
}

TEST(PolarFactors, are_orthogonal_and_have_the_largest_product_with_their_matrix) {
    constexpr std::int64_t n = 6, count = 3;
    std::mt19937 random(5);
    std::normal_distribution<double> normal;
    std::vector<double> matrices(count * n * n);
    for (double& x : matrices) x = normal(random);
    std::fill_n(matrices.begin() + 2 * n * n, n * n, 0.0);
    std::vector<double> polar = matrices, norms(count);
    Workers workers(2);
    polar_factors(workers, polar, n, norms);
    for (std::int64_t m = 0; m < count; ++m) {
        const double *p = polar.data() + m * n * n, *x = matrices.data() + m * n * n;
        double product = 0.0;
        for (std::int64_t i = 0; i < n * n; ++i) product += p[i] * x[i];
        EXPECT_NEAR(product, norms[at(m)], 1e-12);
        for (std::int64_t i = 0; i < n; ++i) {
            for (std::int64_t j = 0; j < n; ++j) {
                double rows = 0.0, symmetric = 0.0;  // P P^T = I, and P^T M is symmetric
                for (std::int64_t k = 0; k < n; ++k) {
                    rows += p[i * n + k] * p[j * n + k];
                    symmetric += p[k * n + i] * x[k * n + j] - p[k * n + j] * x[k * n + i];
                }
                EXPECT_NEAR(rows, i == j ? 1.0 : 0.0, 1e-13);
                EXPECT_NEAR(symmetric, 0.0, 1e-12);
            }
        }
    }
    EXPECT_GT(norms[0], 0.0);
    EXPECT_EQ(norms[2], 0.0);
}

TEST(WeightVectorsErrors, operands_that_do_not_fit_are_refused) {
    const Stored a(4, 5, 6), b(5, 4, 7);
    Workers workers(1);
    std::vector<double> four(4), five(5);
    std::vector<float> values(16);
    const VectorProducts unlike{{a.f32()}, {b.f32()}, four, five}, short_factors{{a.f32()}, {a.f32()}, five, four};
    using test::error_of;
    EXPECT_NE(error_of([&] { squared_norms(workers, {a.f32()}, five); }, ExitCode::internal), "");
    EXPECT_NE(error_of([&] { similarities(workers, {}, {}, values); }, ExitCode::internal), "");
    EXPECT_NE(error_of([&] { similarities(workers, {{unlike}}, {}, values); }, ExitCode::internal), "");
    EXPECT_NE(error_of([&] { similarities(workers, {{short_factors}}, {}, values); }, ExitCode::internal), "");
    EXPECT_NE(error_of([&] { strided_products(workers, a.f32(), a.f32(), 3, four); }, ExitCode::internal), "");
    EXPECT_NE(error_of([&] { strided_products(workers, a.f32(), b.f32(), 1, four); }, ExitCode::internal), "");
    EXPECT_NE(error_of([&] { squared_combinations(workers, {a.f32()}, {b.f32()}, {}, {}); }, ExitCode::internal), "");
    EXPECT_NE(error_of([&] { polar_factors(workers, four, 2, four); }, ExitCode::internal), "");
}

}  // namespace
}  // namespace geom
