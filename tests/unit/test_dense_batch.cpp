#include "kernels/dense_batch.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <random>

#include "core/dtype.hpp"
#include "core/error.hpp"
#include "kernels/backend.hpp"
#include "kernels/cpu/dense_batch.hpp"
#include "support/small_matrix.hpp"

namespace geom {
namespace {

using namespace test;

/// Stored rows are row-major: the memory of a column-major D x n matrix W^T.
MatrixRef stored(const Matrix& wt) {
    return {reinterpret_cast<const std::byte*>(wt.data.data()), DType::f64, wt.cols, wt.rows};
}

class DenseBatchOnCpu : public ::testing::Test {
protected:
    Workers workers_{2};
    cpu::CpuDenseBatch dense_{workers_};

    Matrix qr_lower(const Matrix& wt) {
        Matrix lower(wt.cols, wt.cols);
        const MatrixRef w = stored(wt);
        double sine = 0;
        dense_.qr_lower({&w, 1}, {}, lower.batch(), {&sine, 1});
        return lower;
    }

    CholeskyReport cholesky(Matrix gram, Matrix& lower) {
        CholeskyReport report;
        dense_.cholesky(gram.batch(), lower.batch(), {&report, 1});
        return report;
    }
};

TEST_F(DenseBatchOnCpu, multiplies_a_stack_of_blocks_with_itself) {
    const Matrix k = random(300, 5, 1), q1 = random(300, 5, 2), q2 = random(300, 5, 3);  // more than a panel of D
    const std::vector<MatrixRef> first{stored(k), stored(k)}, second{stored(q1), stored(q2)};
    Matrix gram1(10, 10), gram2(10, 10);
    dense_.stacked_grams(first, second, {{gram1.data.data(), gram2.data.data()}, 10, 10, 10});
    for (const auto& [q, gram] : {std::pair(&q1, &gram1), std::pair(&q2, &gram2)}) {
        Matrix x(300, 10);
        std::copy(k.data.begin(), k.data.end(), x.data.begin());
        std::copy(q->data.begin(), q->data.end(), x.data.begin() + 5 * 300);
        expect_near(*gram, transposed(x) * x, 1e-12, Compare::lower);
    }
}

template <class Stored, class Narrow>
void expect_exact_widening(DenseBatch& dense, DType dtype, const std::vector<double>& values, Narrow narrow) {
    std::vector<Stored> q;
    for (const double value : values) q.push_back(static_cast<Stored>(narrow(value)));
    Matrix z(1, 1), out(static_cast<std::int64_t>(values.size()), 1);
    z(0, 0) = 1;
    const MatrixRef w{reinterpret_cast<const std::byte*>(q.data()), dtype, 1, out.rows};
    dense.combine_rows({&w, 1}, z.batch(), out.batch());
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(out.data[i], values[i]) << name_of(dtype);
}

TEST_F(DenseBatchOnCpu, widens_stored_numbers_exactly) {
    const std::vector<double> f16{1, -1.5, 65504, 0x1p-14, 0x1p-24, -0x1.ff8p-15, 0, 0x1.554p-2};
    expect_exact_widening<std::uint16_t>(dense_, DType::f16, f16, f64_to_f16);
    const std::vector<double> bf16{1, -1.5, 0x1.feP127, 0x1p-126, 0x1p-133, 0, -0x1.02p-3};
    expect_exact_widening<std::uint16_t>(dense_, DType::bf16, bf16,
                                         [](double x) { return f32_to_bf16(static_cast<float>(x)); });
    const std::vector<double> f32{1, 0x1.fffffeP127, 0x1p-149, -0x1.000002p0};
    expect_exact_widening<float>(dense_, DType::f32, f32, [](double x) { return x; });
    expect_exact_widening<double>(dense_, DType::f64, {1, 0x1.fffffffffffffp1000, -3e-300}, [](double x) { return x; });
}

TEST_F(DenseBatchOnCpu, keeps_infinity_and_NaN_of_f16) {
    const std::uint16_t bits[] = {0x7c00, 0xfc00, 0x7e01};
    Matrix z(1, 1), out(3, 1);
    z(0, 0) = 1;
    const MatrixRef w{reinterpret_cast<const std::byte*>(bits), DType::f16, 1, 3};
    dense_.combine_rows({&w, 1}, z.batch(), out.batch());
    EXPECT_EQ(out.data[0], std::numeric_limits<double>::infinity());
    EXPECT_EQ(out.data[1], -std::numeric_limits<double>::infinity());
    EXPECT_TRUE(std::isnan(out.data[2]));
}

TEST_F(DenseBatchOnCpu, refuses_integer_weights) {
    const std::int8_t bytes[4] = {};
    Matrix z(1, 1), out(4, 1);
    const MatrixRef w{reinterpret_cast<const std::byte*>(bytes), DType::i8, 1, 4};
    EXPECT_THROW(dense_.combine_rows({&w, 1}, z.batch(), out.batch()), Error);
}

TEST_F(DenseBatchOnCpu, factors_a_gram_and_reports_its_pivots) {
    const Matrix expected = random_lower(7, 1);
    Matrix lower(7, 7);
    const Matrix gram = expected * transposed(expected);
    const CholeskyReport report = cholesky(gram, lower);
    expect_near(lower, expected, 1e-13);
    EXPECT_TRUE(report.complete);
    double least = 1e9, largest = 0, sine = 1;
    for (std::int64_t i = 0; i < 7; ++i) {
        least = std::min(least, expected(i, i));
        largest = std::max(largest, expected(i, i));
        sine = std::min(sine, expected(i, i) / std::sqrt(gram(i, i)));
    }
    EXPECT_NEAR(report.min_pivot, least, 1e-13);
    EXPECT_NEAR(report.max_pivot, largest, 1e-13);
    EXPECT_NEAR(report.min_sine, sine, 1e-13);
}

TEST_F(DenseBatchOnCpu, reports_a_gram_that_is_not_positive_definite) {
    Matrix lower(4, 4);
    const CholeskyReport report = cholesky(Matrix(4, 4), lower);
    EXPECT_TRUE(report.finite);
    EXPECT_FALSE(report.complete);
}

TEST_F(DenseBatchOnCpu, reports_NaN_in_a_gram) {
    Matrix gram(3, 3), lower(3, 3);
    gram(1, 1) = std::numeric_limits<double>::quiet_NaN();
    EXPECT_FALSE(cholesky(gram, lower).finite);
}

TEST_F(DenseBatchOnCpu, factors_by_qr_what_cholesky_factors) {
    const Matrix wt = random(50, 6, 2);
    const Matrix lower = qr_lower(wt);
    expect_near(lower * transposed(lower), transposed(wt) * wt, 1e-12);
    for (std::int64_t j = 0; j < 6; ++j) {
        for (std::int64_t i = 0; i < j; ++i) EXPECT_EQ(lower(i, j), 0.0);
    }
}

TEST_F(DenseBatchOnCpu, factors_by_qr_more_rows_than_the_hidden_space_holds) {
    const Matrix wt = random(4, 6, 3);
    const Matrix lower = qr_lower(wt);
    expect_near(lower * transposed(lower), transposed(wt) * wt, 1e-13);
    for (std::int64_t i = 0; i < 6; ++i) {
        EXPECT_EQ(lower(i, 4), 0.0);
        EXPECT_EQ(lower(i, 5), 0.0);
    }
}

TEST_F(DenseBatchOnCpu, measures_how_independent_rows_are) {
    Matrix wt(3, 2);  // rows (1, 0, 0) and (cos, sin, 0)
    wt(0, 0) = 1;
    wt(0, 1) = 5 * std::cos(1e-3);
    wt(1, 1) = 5 * std::sin(1e-3);
    Matrix lower(2, 2);
    const MatrixRef w = stored(wt);
    double sine = 0;
    dense_.qr_lower({&w, 1}, {}, lower.batch(), {&sine, 1});
    EXPECT_NEAR(sine, std::sin(1e-3), 1e-15);
}

/// a v = s u, orthonormal vectors, descending values.
void expect_singular_vectors(const Matrix& a, const std::vector<double>& s, const Matrix& u, const Matrix& v,
                             double tolerance) {
    Matrix su = u, identity(u.cols, u.cols);
    for (std::int64_t j = 0; j < u.cols; ++j) {
        for (std::int64_t i = 0; i < u.rows; ++i) su(i, j) *= s[at(j)];
        identity(j, j) = 1;
    }
    EXPECT_TRUE(std::is_sorted(s.rbegin(), s.rend()));
    expect_near(a * v, su, tolerance);
    expect_near(transposed(u) * u, identity, tolerance);
    expect_near(transposed(v) * v, identity, tolerance);
}

TEST_F(DenseBatchOnCpu, finds_singular_values_and_leading_pairs_of_a_product) {
    Matrix left = random_lower(64, 4), right = random_lower(64, 5);
    const Matrix a = transposed(left) * right;
    std::vector<double> some(64), all(64);
    Matrix u8(64, 8), v8(64, 8), u64(64, 64), v64(64, 64);
    dense_.product_singular_values(left.batch(), right.batch(), some, u8.batch(), v8.batch());
    dense_.product_singular_values(left.batch(), right.batch(), all, u64.batch(), v64.batch());
    EXPECT_EQ(some, all) << "values are the same bits however many vectors are wanted";
    expect_singular_vectors(a, some, u8, v8, 1e-10);
    expect_singular_vectors(a, all, u64, v64, 1e-10);
    for (std::int64_t j = 0; j < 8; ++j) {  // two methods, one answer but for the sign of a pair
        const double sign = u8(0, j) * u64(0, j) > 0 ? 1 : -1;
        for (std::int64_t i = 0; i < 64; ++i) {
            EXPECT_NEAR(u8(i, j), sign * u64(i, j), 1e-10);
            EXPECT_NEAR(v8(i, j), sign * v64(i, j), 1e-10);
        }
    }
}

TEST_F(DenseBatchOnCpu, finds_orthogonal_pairs_for_equal_singular_values) {
    Matrix left(48, 48), right(48, 48);
    for (std::int64_t i = 0; i < 48; ++i) left(i, i) = right(i, i) = i < 6 ? 2 : 1;
    std::vector<double> s(48);
    Matrix u(48, 6), v(48, 6);
    dense_.product_singular_values(left.batch(), right.batch(), s, u.batch(), v.batch());
    expect_singular_vectors(transposed(left) * right, s, u, v, 1e-14);
}

TEST_F(DenseBatchOnCpu, finds_no_vectors_where_none_are_wanted) {
    Matrix left = random_lower(5, 1), right = random_lower(5, 2), none(5, 0);
    std::vector<double> s(5);
    dense_.product_singular_values(left.batch(), right.batch(), s, none.batch(), none.batch());
    EXPECT_GT(s[4], 0);
}

TEST_F(DenseBatchOnCpu, maps_vectors_to_hidden_space_alike_by_cholesky_and_by_qr) {
    const Matrix wt = random(300, 9, 6), z = random(9, 2, 7);
    const MatrixRef w = stored(wt);
    Matrix lower = qr_lower(wt), solved = z, given = z, by_solving(300, 2), by_qr(300, 2);
    dense_.solve_transposed(lower.batch(), solved.batch());
    expect_near(transposed(lower) * solved, z, 1e-13);
    dense_.combine_rows({&w, 1}, solved.batch(), by_solving.batch());
    expect_near(by_solving, wt * solved, 1e-12);
    dense_.combine_orthonormal({&w, 1}, given.batch(), by_qr.batch());
    expect_near(by_qr, by_solving, 1e-13);
}

TEST_F(DenseBatchOnCpu, maps_by_qr_where_rows_are_dependent) {
    const Matrix wt(20, 3);  // nothing but zeros
    const MatrixRef w = stored(wt);
    Matrix z(3, 3), out(20, 3), identity(3, 3);
    for (std::int64_t i = 0; i < 3; ++i) z(i, i) = identity(i, i) = 1;
    dense_.combine_orthonormal({&w, 1}, z.batch(), out.batch());
    expect_near(transposed(out) * out, identity, 1e-15);
}

TEST_F(DenseBatchOnCpu, exchanges_the_halves_of_a_factor) {
    Matrix lower = random_lower(8, 8), j(8, 8), skew(8, 8), out(8, 8);
    for (std::int64_t i = 0; i < 4; ++i) {
        j(i, 4 + i) = j(4 + i, i) = skew(4 + i, i) = 1;
        skew(i, 4 + i) = -1;
    }
    double asymmetry = 0;
    dense_.exchange_products(lower.batch(), out.batch(), {&asymmetry, 1});
    expect_near(out, transposed(lower) * (j * lower), 1e-12, Compare::lower);
    double squares = 0;
    for (const double x : (transposed(lower) * (skew * lower)).data) squares += x * x;
    EXPECT_NEAR(asymmetry, std::sqrt(squares), 1e-11);
}

TEST_F(DenseBatchOnCpu, finds_the_eigenvalues_of_a_chain) {
    Matrix chain(50, 50);  // 2 - 2 cos(i pi / 51)
    for (std::int64_t i = 0; i < 50; ++i) {
        chain(i, i) = 2;
        if (i < 49) chain(i + 1, i) = -1;
    }
    std::vector<double> values(50);
    dense_.symmetric_eigenvalues(chain.batch(), values);
    for (int i = 0; i < 50; ++i) {
        EXPECT_NEAR(values[at(i)], 2 - 2 * std::cos((i + 1) * std::numbers::pi / 51), 1e-14);
    }
}

/// A cyclic shift has the n-th roots of one for eigenvalues. Orders on both sides of the change of method.
TEST_F(DenseBatchOnCpu, finds_the_eigenvalues_of_a_shift_as_conjugates_side_by_side) {
    for (const std::int64_t n : {1, 2, 5, 128, 300}) {
        Matrix shift(n, n);
        for (std::int64_t i = 0; i < n; ++i) shift((i + 1) % n, i) = 1;
        std::vector<double> re(at(n)), im(at(n));
        dense_.general_eigenvalues(shift.batch(), re, im)->finish();
        double sum = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            EXPECT_NEAR(std::hypot(re[at(i)], im[at(i)]), 1.0, 1e-12);
            const double turns = std::atan2(im[at(i)], re[at(i)]) * static_cast<double>(n) / (2 * std::numbers::pi);
            EXPECT_NEAR(turns, std::round(turns), 1e-9);
            sum += re[at(i)];
            if (im[at(i)] <= 0) continue;
            EXPECT_EQ(re[at(i)], re[at(i + 1)]);
            EXPECT_EQ(im[at(i)], -im[at(i + 1)]);
        }
        EXPECT_NEAR(sum, n == 1 ? 1 : 0, 1e-11);
    }
}

TEST_F(DenseBatchOnCpu, finds_eigenvalues_that_balancing_isolates) {
    Matrix triangular = random(6, 6, 10);
    std::vector<double> expected, re(6), im(6);
    for (std::int64_t j = 0; j < 6; ++j) {
        std::fill_n(&triangular(0, j) + j + 1, 5 - j, 0.0);
        expected.push_back(triangular(j, j));
    }
    dense_.general_eigenvalues(triangular.batch(), re, im)->finish();
    std::sort(re.begin(), re.end());
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(re, expected);
    EXPECT_EQ(im, std::vector<double>(6));
}

TEST_F(DenseBatchOnCpu, reads_blocks_without_gaps) {
    Matrix a(3, 3);
    for (std::size_t i = 0; i < 9; ++i) a.data[i] = static_cast<double>(i);
    std::vector<double> host(4);
    dense_.read(a.batch().block(1, 1, 2, 2), host);
    EXPECT_EQ(host, (std::vector<double>{4, 5, 7, 8}));
}

}  // namespace
}  // namespace geom
