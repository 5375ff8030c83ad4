// Whole matrices as a checkpoint has them, friendly and hostile, and their singular values by LAPACK's SVD.
#pragma once

#include <gtest/gtest.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/matrices.hpp"
#include "support/small_matrix.hpp"

namespace geom::test {

/// Row-major memory of a matrix, as a checkpoint has it.
struct Stored {
    std::vector<double> data;
    std::int64_t rows, cols;

    explicit Stored(const Matrix& a) : data(transposed(a).data), rows(a.rows), cols(a.cols) {}
    MatrixRef ref() const { return {reinterpret_cast<const std::byte*>(data.data()), DType::f64, rows, cols}; }
    MatrixRef strip(std::int64_t begin, std::int64_t end) const {
        return {reinterpret_cast<const std::byte*>(data.data() + begin * cols), DType::f64, end - begin, cols};
    }
};

inline std::vector<double> lapack_values(Matrix a) {
    std::vector<double> values(at(std::min(a.rows, a.cols))), unused(values.size());
    const auto m = static_cast<lapack_int>(a.rows), n = static_cast<lapack_int>(a.cols);
    EXPECT_EQ(LAPACKE_dgesvd(LAPACK_COL_MAJOR, 'N', 'N', m, n, a.data.data(), m, values.data(), nullptr, 1, nullptr, 1,
                             unused.data()),
              0);
    return values;
}

/// U diag(values) V^T with orthogonal U, V from QR of random matrices.
inline Matrix with_values(const std::vector<double>& values, std::int64_t rows, std::int64_t cols, unsigned seed) {
    const auto orthonormal = [](std::int64_t m, std::int64_t n, unsigned s) {
        Matrix q = random(m, n, s);
        std::vector<double> tau(at(n));
        const auto lm = static_cast<lapack_int>(m), ln = static_cast<lapack_int>(n);
        LAPACKE_dgeqrf(LAPACK_COL_MAJOR, lm, ln, q.data.data(), lm, tau.data());
        LAPACKE_dorgqr(LAPACK_COL_MAJOR, lm, ln, ln, q.data.data(), lm, tau.data());
        return q;
    };
    const auto k = std::ssize(values);
    Matrix u = orthonormal(rows, k, seed);
    const Matrix v = orthonormal(cols, k, seed + 1);
    for (std::int64_t j = 0; j < k; ++j) {
        for (std::int64_t i = 0; i < rows; ++i) u(i, j) *= values[at(j)];
    }
    return u * transposed(v);
}

inline void expect_within(const SingularValues& found, const std::vector<double>& expected) {
    ASSERT_EQ(found.values.size(), expected.size());
    const double rounding = 8 * eps * expected[0] * static_cast<double>(expected.size());  // LAPACK's own
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double s = found.values[i], true_s = expected[i];
        if (i > 0) {
            EXPECT_LE(s, found.values[i - 1]);
        }
        EXPECT_LE(std::abs(s * s - true_s * true_s),
                  found.square_error + (found.error + rounding) * (s + true_s + found.error + rounding))
            << i;
    }
}

struct Hostile {
    const char* name;
    Matrix matrix;
};

inline std::vector<Hostile> hostile_matrices() {
    Matrix hilbert(40, 40), outlier = random(60, 150, 7), deficient(50, 70);
    for (std::int64_t i = 0; i < 40; ++i) {
        for (std::int64_t j = 0; j < 40; ++j) hilbert(i, j) = 1.0 / static_cast<double>(i + j + 1);
    }
    outlier(3, 5) = 1e6;
    for (std::int64_t i = 0; i < 50; ++i) {
        for (std::int64_t j = 0; j < 70; ++j) deficient(i, j) = static_cast<double>((i % 5) * (j % 7) + (i % 3));
    }
    std::vector<double> power;
    for (int i = 1; i <= 64; ++i) power.push_back(std::pow(i, -3));
    return {{"Hilbert", hilbert},           {"one outlier", outlier},     {"rank 3", deficient},
            {"zero", Matrix(20, 30)},       {"a row", random(1, 500, 8)}, {"powers", with_values(power, 64, 100, 9)},
            {"a column", random(80, 1, 10)}};
}

}  // namespace geom::test
