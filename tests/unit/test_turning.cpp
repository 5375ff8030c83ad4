// Residuals of tied rows under one orthogonal matrix, against LAPACK's SVD: friendly sets, and hostile ones.
#include <gtest/gtest.h>
#include <lapacke.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"
#include "support/error_of.hpp"
#include "support/small_matrix.hpp"

namespace geom {
namespace {

using test::at;
using test::Matrix;
using test::random;
using test::transposed;

using Sides = std::pair<std::vector<Matrix>, std::vector<Matrix>>;  // a_i, b_i

/// Keeps matrices in row-major memory, as a checkpoint has them.
class Store {
public:
    TurnedRows rows(const Matrix& x) {
        data_.push_back(transposed(x).data);
        return {{{reinterpret_cast<const std::byte*>(data_.back().data()), DType::f64, x.rows, x.cols}}, {0, x.rows}};
    }
    TurnedRows columns(const Matrix& x) {  // its transpose is what is stored
        data_.push_back(x.data);
        return {
            {{reinterpret_cast<const std::byte*>(data_.back().data()), DType::f64, x.cols, x.rows}}, {0, x.rows}, true};
    }
    TiedRows tied(const Sides& sides) {
        TiedRows set;
        for (std::size_t i = 0; i < sides.first.size(); ++i)
            set.pairs.push_back({rows(sides.first[i]), rows(sides.second[i])});
        return set;
    }

private:
    std::deque<std::vector<double>> data_;
};

Matrix scaled(Matrix x, double factor) {
    for (double& value : x.data) value *= factor;
    return x;
}
Matrix unit(const Matrix& x) {
    double sum = 0;
    for (const double value : x.data) sum += value * value;
    return scaled(x, 1 / std::sqrt(sum));
}
Matrix plus(Matrix x, const Matrix& y) {
    for (std::size_t i = 0; i < x.data.size(); ++i) x.data[i] += y.data[i];
    return x;
}
double distance(const Matrix& x, const Matrix& y) {
    double sum = 0;
    for (std::size_t i = 0; i < x.data.size(); ++i) sum += (x.data[i] - y.data[i]) * (x.data[i] - y.data[i]);
    return std::sqrt(sum);
}
Matrix in_f32(Matrix x) {
    for (double& value : x.data) value = static_cast<float>(value);
    return x;
}

/// U V^T of sum a_i b_i^T = U S V^T, by LAPACK.
Matrix polar_of(const Sides& sides) {
    const std::int64_t n = sides.first[0].rows;
    Matrix m(n, n), u(n, n), vt(n, n);
    for (std::size_t i = 0; i < sides.first.size(); ++i)
        m = plus(std::move(m), unit(sides.first[i]) * transposed(unit(sides.second[i])));
    std::vector<double> values(at(n));
    const auto order = static_cast<lapack_int>(n);
    EXPECT_EQ(LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'A', order, order, m.data.data(), order, values.data(), u.data.data(),
                             order, vt.data.data(), order),
              0);
    return u * vt;
}

std::vector<double> expected(const Sides& sides, const Matrix& t) {
    std::vector<double> residuals;
    for (std::size_t i = 0; i < sides.first.size(); ++i)
        residuals.push_back(distance(t * unit(sides.first[i]), unit(sides.second[i])));
    return residuals;
}

double squares(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value * value;
    return sum;
}

/// b_i near a_i, as a later layer is.
Sides drifted(std::int64_t rows, const std::vector<std::int64_t>& widths, unsigned seed) {
    Sides sides;
    for (const std::int64_t width : widths) {
        sides.first.push_back(random(rows, width, seed++));
        sides.second.push_back(plus(scaled(sides.first.back(), 2), random(rows, width, seed++)));
    }
    return sides;
}

Matrix random_orthogonal(std::int64_t n, unsigned seed) {
    Matrix q = random(n, n, seed);
    std::vector<double> tau(at(n));
    const auto order = static_cast<lapack_int>(n);
    LAPACKE_dgeqrf(LAPACK_COL_MAJOR, order, order, q.data.data(), order, tau.data());
    LAPACKE_dorgqr(LAPACK_COL_MAJOR, order, order, order, q.data.data(), order, tau.data());
    return q;
}

class TurnedResidualsVerb : public ::testing::TestWithParam<Isa> {
protected:
    void SetUp() override {
        if (processor_isa() < GetParam()) GTEST_SKIP() << "this processor has no " << name_of(GetParam());
        backend_ = make_cpu_backend(2, GetParam());
    }
    TurnedResiduals of(const TiedRows& set, Turn turn) {
        return backend_->matrices().turned_residuals({&set, 1}, turn)[0];
    }
    TurnedResiduals of(const Sides& sides, Turn turn) { return of(store_.tied(sides), turn); }

    static void expect_near(const TurnedResiduals& found, const std::vector<double>& expected, double bound) {
        ASSERT_EQ(found.residuals.size(), expected.size());
        for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found.residuals[i], expected[i], bound) << i;
    }

    std::unique_ptr<Backend> backend_;
    Store store_;
};

TEST_P(TurnedResidualsVerb, are_those_of_an_svd_whatever_the_shape) {
    const std::vector<std::pair<std::int64_t, std::vector<std::int64_t>>> shapes{
        {1, {1, 1}},           {2, {5}},
        {7, {3, 3, 3}},        {9, {2, 3}},
        {40, {16, 16}},        {130, {64, 64, 64}},
        {500, {200, 257, 50}}, {520, {170, 70, 30}}};
    for (const auto& [rows, widths] : shapes) {
        SCOPED_TRACE(testing::Message() << rows << " rows, " << widths.size() << " matrices");
        const Sides sides = drifted(rows, widths, 3);
        const Matrix polar = polar_of(sides);
        const TurnedResiduals nearest = of(sides, Turn::nearest);
        EXPECT_TRUE(nearest.unique);
        expect_near(nearest, expected(sides, transposed(polar)), 1e-8);
        Matrix identity(rows, rows);
        for (std::int64_t i = 0; i < rows; ++i) identity(i, i) = 1;
        const TurnedResiduals none = of(sides, Turn::none);
        expect_near(none, expected(sides, identity), 1e-13);
        EXPECT_LE(squares(nearest.residuals), squares(none.residuals) + 1e-12);
    }
}

TEST_P(TurnedResidualsVerb, are_right_where_the_columns_are_more_than_a_tile_and_fewer_than_the_rows) {
    const Sides sides = drifted(560, {200, 200, 110}, 5);
    expect_near(of(sides, Turn::nearest), expected(sides, transposed(polar_of(sides))), 1e-8);
}

TEST_P(TurnedResidualsVerb, turn_backward_as_earlier_scripts_did) {
    const Sides sides = drifted(60, {32, 32}, 8);
    expect_near(of(sides, Turn::backward), expected(sides, polar_of(sides)), 1e-8);
    const TurnedResiduals open = of(drifted(60, {20, 20}, 8), Turn::backward);
    EXPECT_FALSE(open.unique);
    EXPECT_TRUE(std::isnan(open.residuals[0]) && std::isnan(open.residuals[1]));
}

TEST_P(TurnedResidualsVerb, find_a_planted_rotation_of_f32_weights) {
    for (const std::int64_t width : {std::int64_t{32}, std::int64_t{50}, std::int64_t{150}}) {
        SCOPED_TRACE(width);
        const Matrix turn = random_orthogonal(96, 4);
        Sides sides;
        for (unsigned i = 0; i < 3; ++i) {
            sides.first.push_back(in_f32(random(96, width, 20 + i)));
            sides.second.push_back(in_f32(scaled(turn * sides.first.back(), 3)));
        }
        for (const double residual : of(sides, Turn::nearest).residuals) EXPECT_LE(residual, 1e-6);
        for (const double residual : of(sides, Turn::none).residuals) EXPECT_GE(residual, 0.5);
    }
}

TEST_P(TurnedResidualsVerb, hold_for_weights_whose_values_span_six_digits) {
    Sides sides;
    for (unsigned i = 0; i < 3; ++i) {
        Matrix a = random(120, 50, 30 + i), b = random(120, 50, 40 + i);
        for (std::int64_t j = 0; j < 50; ++j) {
            const double steep = std::pow(10.0, -static_cast<double>(j) * 6 / 50);
            for (std::int64_t r = 0; r < 120; ++r) {
                a(r, j) *= steep;
                b(r, j) = 2 * a(r, j) + steep * b(r, j);
            }
        }
        sides.first.push_back(a);
        sides.second.push_back(b);
    }
    const TurnedResiduals found = of(sides, Turn::nearest);
    EXPECT_TRUE(found.unique);
    expect_near(found, expected(sides, transposed(polar_of(sides))), 1e-7);
}

TEST_P(TurnedResidualsVerb, say_where_another_turn_is_as_near_and_are_least_all_the_same) {
    Sides few_rows = drifted(60, {40, 40}, 50), few_columns = drifted(60, {20, 20}, 60);
    for (std::int64_t j = 0; j < 40; ++j) {  // two neurons without weights, in both layers
        for (const std::int64_t row : {std::int64_t{3}, std::int64_t{58}}) {
            for (Matrix* x : {&few_rows.first[0], &few_rows.first[1], &few_rows.second[0], &few_rows.second[1]})
                (*x)(row, j) = 0;
        }
    }
    for (Matrix* x : {&few_columns.first[0], &few_columns.second[0]}) {  // a column twice
        for (std::int64_t row = 0; row < 60; ++row) (*x)(row, 7) = (*x)(row, 2);
    }
    for (const Sides& sides : {few_rows, few_columns}) {
        const TurnedResiduals found = of(sides, Turn::nearest);
        EXPECT_FALSE(found.unique);
        EXPECT_NEAR(squares(found.residuals), squares(expected(sides, transposed(polar_of(sides)))), 1e-8);
    }
}

TEST_P(TurnedResidualsVerb, take_columns_norm_weights_and_parts_of_matrices) {
    const Matrix a = random(24, 30, 70), b = random(24, 30, 71), c = random(24, 30, 72), d = random(24, 30, 73);
    const std::vector<double> fold_a(30, 0.5), fold_b = [] {
        std::vector<double> fold;
        for (int i = 0; i < 30; ++i) fold.push_back(1 + 0.1 * i);
        return fold;
    }();
    const auto folded = [](Matrix x, const std::vector<double>& fold) {
        for (std::int64_t j = 0; j < x.cols; ++j) {
            for (std::int64_t i = 0; i < x.rows; ++i) x(i, j) *= fold[at(j)];
        }
        return x;
    };
    const auto part = [](const Matrix& x) {  // rows 8 to 19
        Matrix some(12, x.cols);
        for (std::int64_t j = 0; j < x.cols; ++j) {
            for (std::int64_t i = 0; i < 12; ++i) some(i, j) = x(8 + i, j);
        }
        return some;
    };
    TurnedRows of_a = store_.rows(a), of_b = store_.rows(b), of_c = store_.columns(c), of_d = store_.columns(d);
    of_a.whole.fold = fold_a.data();
    of_b.whole.fold = fold_b.data();
    for (TurnedRows* x : {&of_a, &of_b, &of_c, &of_d}) x->part = {8, 20};
    const Sides plain{{part(folded(a, fold_a)), part(c)}, {part(folded(b, fold_b)), part(d)}};
    const TiedRows set{{{of_a, of_b}, {of_c, of_d}}};
    expect_near(of(set, Turn::nearest), expected(plain, transposed(polar_of(plain))), 1e-10);
    expect_near(of(set, Turn::none), of(plain, Turn::none).residuals, 1e-14);
}

TEST_P(TurnedResidualsVerb, leave_zero_matrices_out) {
    const Sides others = drifted(30, {40}, 80);
    Sides sides = others;
    sides.first.emplace_back(30, 12);
    sides.second.push_back(random(30, 12, 81));
    const TurnedResiduals found = of(sides, Turn::nearest);
    EXPECT_EQ(found.residuals[0], of(others, Turn::nearest).residuals[0]);
    EXPECT_TRUE(std::isnan(found.residuals[1]));
}

TEST_P(TurnedResidualsVerb, refuse_weights_that_are_not_finite) {
    Sides sides = drifted(10, {12}, 90);
    sides.first[0](3, 3) = test::nan;
    EXPECT_TRUE(test::says(test::error_of([&] { of(sides, Turn::none); }, ExitCode::numerics), "NaN"));
}

TEST_P(TurnedResidualsVerb, have_the_same_bits_on_any_number_of_threads_alone_and_side_by_side) {
    for (const std::vector<std::int64_t>& widths : {std::vector<std::int64_t>{300, 300}, {120, 60}}) {
        std::vector<TiedRows> sets;
        for (unsigned i = 0; i < 3; ++i) sets.push_back(store_.tied(drifted(500, widths, 100 + 10 * i)));
        const auto side_by_side = backend_->matrices().turned_residuals(sets, Turn::nearest);
        for (const int threads : {1, 3}) {
            const auto other = make_cpu_backend(threads, GetParam());
            for (std::size_t i = 0; i < sets.size(); ++i) {
                EXPECT_EQ(other->matrices().turned_residuals({&sets[i], 1}, Turn::nearest)[0].residuals,
                          side_by_side[i].residuals);
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Paths, TurnedResidualsVerb, ::testing::Values(Isa::portable, Isa::avx512),
                         [](const auto& isa) { return isa.param == Isa::portable ? "by_openblas" : "by_tiles"; });

}  // namespace
}  // namespace geom
