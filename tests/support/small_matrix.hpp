// Small column-major matrices in host memory, to check dense linear algebra with.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernels/dense_batch.hpp"

namespace geom::test {

constexpr double eps = std::numeric_limits<double>::epsilon();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// A column-major matrix in host memory.
struct Matrix {
    std::int64_t rows, cols;
    std::vector<double> data;

    Matrix(std::int64_t m, std::int64_t n) : rows(m), cols(n), data(at(m * n)) {}
    double& operator()(std::int64_t i, std::int64_t j) { return data[at(i + j * rows)]; }
    double operator()(std::int64_t i, std::int64_t j) const { return data[at(i + j * rows)]; }
    Batch batch() { return {{data.data()}, rows, cols, rows}; }
};
inline Matrix random(std::int64_t rows, std::int64_t cols, unsigned seed) {
    std::mt19937_64 generator(seed);
    std::normal_distribution<double> normal;
    Matrix out(rows, cols);
    for (double& x : out.data) x = normal(generator);
    return out;
}

inline Matrix random_lower(std::int64_t n, unsigned seed) {
    Matrix out = random(n, n, seed);
    for (std::int64_t j = 0; j < n; ++j) {
        std::fill_n(&out(0, j), j, 0.0);
        out(j, j) = 3 + std::abs(out(j, j));
    }
    return out;
}

inline Matrix transposed(const Matrix& a) {
    Matrix out(a.cols, a.rows);
    for (std::int64_t j = 0; j < a.cols; ++j) {
        for (std::int64_t i = 0; i < a.rows; ++i) out(j, i) = a(i, j);
    }
    return out;
}

inline Matrix operator*(const Matrix& a, const Matrix& b) {
    Matrix out(a.rows, b.cols);
    for (std::int64_t j = 0; j < b.cols; ++j) {
        for (std::int64_t l = 0; l < a.cols; ++l) {
            for (std::int64_t i = 0; i < a.rows; ++i) out(i, j) += a(i, l) * b(l, j);
        }
    }
    return out;
}

enum class Compare : std::uint8_t { all, lower };

inline void expect_near(const Matrix& found, const Matrix& expected, double tolerance, Compare compare = Compare::all) {
    ASSERT_EQ(found.rows, expected.rows);
    ASSERT_EQ(found.cols, expected.cols);
    for (std::int64_t j = 0; j < found.cols; ++j) {
        for (std::int64_t i = compare == Compare::lower ? j : 0; i < found.rows; ++i) {
            ASSERT_NEAR(found(i, j), expected(i, j), tolerance) << i << ", " << j;
        }
    }
}

}  // namespace geom::test
